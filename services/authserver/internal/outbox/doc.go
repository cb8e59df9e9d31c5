// Package outbox tells the broker which sessions have ended, until it has heard.
//
// Whatever ends a session writes that into the store, in the transaction that makes
// its tokens worthless. [Sender] takes what is due, calls EndSession, which is
// idempotent, and removes what was confirmed. Replicas share the work: each claims
// rows that no other holds, for a lease, and a row whose replica died is due again
// when the lease is over, a quarter of a minute. What a stop interrupts is given back at
// once. A broker that is down costs waiting, longer each time and
// fifteen seconds at most; nothing is ever given up.
package outbox
