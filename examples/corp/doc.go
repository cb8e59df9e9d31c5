// Package corp is the demo's corporate identity provider: an OpenID provider
// with a login form, refresh tokens that rotate, and RFC 8693 token exchange.
//
// The protocol is that of github.com/zitadel/oidc; this package brings what such
// a provider has of its own: who may sign in, what is stored, which client may
// have what. An authorization request is kept in the state until its code is
// redeemed; it belongs to the browser that brought it. A redeemed code
// opens a grant in the ledger (package grants), the family of one access token
// after another and one refresh token after another. Access tokens for the login
// client are opaque: only the provider can read them, so revoking one works at
// once. Exchanged tokens are JWTs for one audience and a few minutes, and are not
// stored: their audience verifies them offline.
//
// A token exchange is refused unless a rule names the client, the audience and
// the scopes. The subject token is an access token of corp's own, or a JWT of a
// trusted foreign issuer whose subject an administrator has linked to a person. An
// actor token is a JWT of such an issuer, and becomes the act of what is issued.
//
// What it leaves out: registration, consent (the company decides), remembering
// who signed in (each login asks for the password), implicit and device flows,
// request objects, and dynamic registration.
package corp
