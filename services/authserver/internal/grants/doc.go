// Package grants turns finished logins into tokens: authorization codes, the token
// endpoint (RFC 6749, sections 4.1.3 and 6), revocation (RFC 7009) and introspection
// (RFC 7662).
//
// The protocol's shared phases are ory/fosite's: client authentication, the code
// grant and PKCE. What is ours hangs in as its handlers, in this order:
//
//	code:    replay guard ─▶ fosite code ─▶ fosite PKCE ─▶ resource, ActivateSession ─▶ consume, issue
//	refresh: token, reuse and grace, resource, TouchSession ─▶ rotate, issue
//
// The broker is asked before anything is spent, so that a broker that is down costs
// a 503 and no token. Spending is one statement; of two redemptions at once, one
// gets tokens and the other is a replay.
//
// A code that comes a second time, or a refresh token after its successor was used
// or the grace window has passed, ends the session everywhere: the grant is dead
// and the broker hears of it through the outbox, in one transaction. Within the
// grace window the same successor comes back, because clients repeat requests whose
// answer was lost. The answer is kept sealed under a key that is derived from the
// token that was presented, so that the store alone opens nothing.
//
// How often a login's tokens may be refreshed is limited, because every used refresh
// token is kept until it expires. Lifetimes count by the database's clock.
//
// Access tokens are JWTs (RFC 9068) and are not stored: resource servers check them
// offline, and the broker checks their session.
//
// What it leaves out: other grants, private_key_jwt, DPoP.
package grants
