// Package authorize checks a client's authorization request (RFC 6749, section
// 4.1.1, as OAuth 2.1 tightens it) before anything else happens: no page, no
// redirect to a provider, no session at the broker.
//
// In this order: the client is known; the redirect URI is one of its own (only
// from here on may an error go there); then each parameter once, response_type
// and response_mode, PKCE with S256 from every client (RFC 7636), and the resource
// (RFC 8707). Scopes are never a reason to refuse.
//
// What it leaves out: request objects (RFC 9101), pushed requests (RFC 9126) and
// OpenID Connect's parameters, which are ignored.
package authorize
