// Package login is the broker's half of a chained login (broker.v1.LoginService).
//
//	BeginSession ──▶ pending session
//	RedeemCode   ──▶ upstream ──▶ seal ──▶ staged leg (the primary one sets the user)
//	SkipProvider ──▶ noted, staged leg erased
//	ActivateSession: staged legs ──▶ sealed anew for their connections ──▶ one transaction
//	TouchSession, EndSession
//
// A chain cannot hurt what works: until the activation its tokens lie on the
// session alone. The activation is prepared without locks (tokens are opened and
// sealed for their new place), then done in one transaction that fails, and is
// prepared again, when a connection or a leg changed meanwhile. It promotes the legs
// that the chain has seen redeemed; one that came later, and took the place of another,
// is nothing that the person has confirmed.
//
// A login that brings no refresh token keeps the one that the connection has: some
// providers send one with the first consent only. It is not kept while a renewal is
// spending it: the login waits a moment for what that renewal brings, and otherwise
// stands without; package refresh then hands the new token over to it. Doubt whether an
// earlier attempt has spent the token stays with it. Where the provider says nothing
// of who logged in, nothing is kept: the token may be another account's.
//
// Tokens that end up nowhere (a failed chain, a skipped leg, a leg that could not be
// stored) are queued for package revoke, by the store in the same transaction.
//
// Reconnecting one provider: RedeemCode on a session that is active already stages
// the leg beside what the session has, and ActivateSession promotes it. The primary
// leg may be run again for the same person only.
//
// Anybody can begin a login, so their number is bounded (--max-pending-sessions): the
// one beyond is asked to wait, and a login that has begun is not hindered.
//
// What it leaves out: which leg is next, state, PKCE and nonce (the authorization
// server's), and the upstream's protocol (package upstream).
package login
