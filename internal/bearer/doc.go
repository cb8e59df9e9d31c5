// Package bearer verifies JWT access tokens (RFC 9068) offline, against the
// public keys of the issuer.
//
//	raw ──▶ seen before? ──▶ form, algorithm, type ──▶ key by kid ──▶ signature ──▶ claims ──▶ remembered
//	             └──────────────────────── expiry and audience ◀────────────────────────┘
//
// A [Verifier] trusts one issuer and a fixed list of asymmetric algorithms. It
// fetches keys when the first token needs them, so that no start waits for the
// issuer; fetches them again when they are ten minutes old, or when a token names
// a key that it does not know (once for all callers, rate-limited, and not again
// soon for the same name); and keeps the old ones while the issuer is down. It
// runs nothing in the background. Tokens that were verified are remembered, by
// the SHA-256 of their text, until they expire, five minutes at most.
//
// All errors are *fault.Error: Unauthenticated with one of the Reason constants,
// or Unavailable with ReasonKeys when nobody can tell whether the token is good.
//
// What it leaves out: encrypted tokens, proof of possession (RFC 9449), opaque
// tokens and introspection (RFC 7662), and the check of scopes, which is the
// caller's.
package bearer
