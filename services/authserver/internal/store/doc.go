// Package store keeps what the authorization server must remember, in the
// Postgres schema "authserver" that it owns alone.
//
//	clients ◀── authorization_requests ◀── legs         (a chain under way: ten minutes)
//	   ▲
//	   └─────── grants ◀── authorization_codes           (what a login led to)
//	              ▲ └───── refresh_tokens
//	session_ends (the outbox towards the broker)  signing_keys (the public halves)
//
// Everything that may happen once only is one statement: a request is taken with
// DELETE … RETURNING, a leg's state is spent, a code redeemed and a refresh token
// rotated with UPDATE … WHERE it was not before. Whatever ends a session writes the end to the
// outbox in the same transaction, so that the broker hears of it even when it is
// down at the time. The clock is the database's, for tokens too: replicas whose
// clocks differ agree on what has expired.
//
// A migration that was released is never edited; a change is a new file.
//
// Nothing here opens anything by itself: states, cookies, codes and refresh
// tokens are kept as SHA-256 hashes, verifiers and nonces sealed by the caller.
//
// Driver errors end here; methods return *fault.Error: NotFound, Conflict (lost
// a race), Exhausted (too often), Unavailable, Timeout, Internal.
//
// What it leaves out: upstream tokens and users, which the token broker keeps.
package store
