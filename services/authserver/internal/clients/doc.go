// Package clients registers OAuth clients (RFC 7591) and decides which redirect
// URIs are theirs.
//
// [Registrar] answers POST /oauth/register. Anyone may register, so everything is
// bounded (64 KiB a body, 10 redirect URIs of 2,048 characters) and nobody gets
// more than the deployment offers: what a client asks for beyond that is left
// out, and the answer says what was granted (RFC 7591, section 3.2.1). A client is
// public unless the deployment allows confidential ones and it asks for a secret.
//
// [CheckRedirectURI] is what may be registered: https anywhere, http on the
// loopback interface, private-use schemes for public clients (RFC 8252).
// [MatchRedirectURI] is what may be asked for: a registered URI, byte for byte,
// except for the port of a loopback http URI, which an application learns only
// when it starts to listen.
//
// What it leaves out: software statements and initial access tokens (RFC 7591,
// sections 2.3 and 3), keys of clients (private_key_jwt), and the management of
// registrations (RFC 7592).
package clients
