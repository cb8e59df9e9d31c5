// Package optest runs an OpenID provider that we did not write, the one of
// github.com/zitadel/oidc, inside a test. It has discovery, PKCE, refresh token
// rotation, revocation and token exchange (RFC 8693). Its tokens are opaque.
//
//	Start(tb) ──▶ OP.Issuer: what a provider is configured with
//	OP.Code   ──▶ logs the person in as a browser would ──▶ the code for Redeem
//
// What it leaves out: misbehaving. The tests of package upstream have a provider
// of their own for that.
//
// It is for tests alone: nothing that is linked into a service imports it.
package optest
