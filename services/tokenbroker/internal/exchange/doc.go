// Package exchange gets tokens for backends from token services (RFC 8693).
//
//	Subject ─▶ Cache, by subject and grant ─▶ one flight for all callers ─▶ Grant ─▶ Token
//
// A [Client] is the cache and the flight; a [Grant] knows what is asked of which
// token endpoint, and how its answer is read.
//
// A [Subject] says whose token is exchanged: a connection and its version, a
// session, or the caller's own token. The cache is keyed by it and by a digest of
// the grant's configuration, so that nothing is ever shared between people,
// and an entry of an older version of the subject is never served. It lives in
// memory, is bounded, and forgets a subject as soon as it is told that the
// subject's tokens changed.
//
// When a backend rejects a token, [Client.Reject] drops it, once; a second
// rejection soon after means that the subject itself should be renewed, which is
// the caller's to do. A token service that does not accept the subject token gets
// a renewed one, once.
//
// In the last fifth of a token's life whoever asks gets it still, and the next one is
// made in the background, once.
//
// What it leaves out: refresh tokens that a token
// service returns, which are dropped; and who may ask, which is package
// credential's.
package exchange
