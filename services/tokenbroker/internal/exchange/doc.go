// Package exchange gets tokens for backends from token services (RFC 8693).
//
//	Subject ─▶ Cache, by subject and exchange ─▶ one request for all callers ─▶ Token
//
// A [Subject] says whose token is exchanged: a connection and its version, a
// session, or the caller's own token. The cache is keyed by it and by a digest of
// the exchange's configuration, so that nothing is ever shared between people,
// and an entry of an older version of the subject is never served. It lives in
// memory, is bounded, and forgets a subject as soon as it is told that the
// subject's tokens changed.
//
// When a backend rejects a token, [Client.Reject] drops it, once; a second
// rejection soon after means that the subject itself should be renewed, which is
// the caller's to do. A token service that does not accept the subject token gets
// a renewed one, once.
//
// What it leaves out: actor tokens (section 2.1) and refresh tokens that a token
// service returns, which are dropped; and who may ask, which is package
// credential's.
package exchange
