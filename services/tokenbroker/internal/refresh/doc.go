// Package refresh opens what a session may use at a provider, and keeps it fresh.
//
//	Token(session, provider) ──▶ link and connection, one read ──▶ due? ──▶ renew ──▶ open
//	Renew(connection, version): a backend refused this version    ─────────▶ renew
//
// A renewal is one live attempt per connection and version over all callers and
// replicas. Callers in a process share one (single flight). Replicas share by a
// lease on the connection's row, measured by the database's clock and longer
// than the upstream call's hard deadline; it is committed, with a mark of the
// attempt, before the call, and no transaction or lock spans the call. The result
// is committed by compare-and-set on the version that was presented, even after
// the lease ended, since a late answer may hold the only valid token. When a login
// has made a newer version meanwhile that rests on the spent refresh token, or has
// none, that version gets the new one. Whoever finds a live lease waits until the
// version moves or the lease ends. Nobody gets a token that is not committed.
//
// Run renews ahead of expiry what is in use. The primary provider's connection is in
// use when a session that links it is, since the lock below rests on its answers: at
// most one for each access token and person, and none of providers that give no refresh
// token or no end of the access token.
//
// What an attempt ends with:
//
//	granted           new version, event
//	invalid_grant     the connection asks for a new login; with the primary
//	                  provider, the user's sessions are locked until then
//	an error answer   back-off, remembered in the row; a token that is still
//	                  valid is served meanwhile
//	a mark, no result in doubt (a crash, or no answer in time): one further attempt
//	                  with the same token, then a new login; or a new login at once
//	                  where the provider's refreshInDoubt says so
//
// What was never sent is no attempt. After a token was presented twice, or to a
// provider that failed, invalid_grant locks nobody until a renewal has succeeded.
//
// What it leaves out: the upstream's protocol (package upstream), how rows look
// (package store) and who may ask (package credential).
package refresh
