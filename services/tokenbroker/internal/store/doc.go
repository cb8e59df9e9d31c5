// Package store keeps users, sessions, connections, events, audit records and
// blobs in the schema tokenbroker of a Postgres database.
//
// Driver errors end here: every error is a *fault.Error. Tokens pass through as
// package seal made them; the store cannot open one. Times are the database's
// (clock_timestamp), so that replicas whose clocks differ agree on leases and ends.
//
// Every change that a watcher must hear of appends events in its own transaction.
// An event's position comes from one counter row, taken as the last lock of the
// transaction and held until it commits: positions are therefore in commit order
// without gaps, and a reader that saw position n will never meet a smaller one
// later. NOTIFY only wakes readers.
//
// Whatever erases tokens queues their revocation in its own transaction, sealed as
// they were: no crash comes between the two, and no key is needed for the move.
//
// A stranger needs no account to begin logins, so what happens to a session before it
// has a user leaves little: its end, and legs that nobody came back from, are no audit
// records, but lines of the log and counts. A first leg that a provider has answered,
// whatever the answer, is on record, as every leg is; since anybody can bring a code
// that is refused, that record goes with its session, a day after the session's end,
// and not after the time that records are kept.
//
// The files follow the aggregates: users, sessions, their ending, staging,
// activation, connections, renewal (leases), revocations, events, audit, blobs, sweeping; inventory
// counts, and rewrapping is about the keys of all that is sealed.
//
// What it leaves out: sealing (package seal), what a state means to a caller
// (packages login, refresh, connections), and connecting.
package store
