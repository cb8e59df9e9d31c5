// Package brokertest is a token broker in memory, with upstream providers, for
// tests of the authorization server. It speaks LoginService over the same mutual
// TLS as the real one and keeps its promises: pending, active and ended sessions,
// idempotent calls, one redemption per code, PKCE, redirect URI and nonce checks.
//
// [Broker.SignIn] plays the person at a provider: it takes the URL that the
// browser was sent to and returns the callback URL.
//
// What it leaves out: tokens, connections that outlive a session, and refresh.
package brokertest
