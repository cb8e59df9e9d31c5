// Package outbound makes the HTTP clients for calls that leave the deployment.
//
// A URL may come from a stranger (a client's metadata document, a discovery
// document, a redirect). So [New] returns a client that, unless a policy says
// otherwise, connects only to public addresses: the dialer resolves the name
// itself, refuses when any answer is loopback, private, link-local, unique-local,
// carrier-grade NAT, multicast, reserved or a cloud's metadata service, and
// connects to the very address that it checked, so that a second DNS answer
// cannot differ. The client follows no redirects, uses no proxy from the
// environment, has a total deadline, and speaks TLS 1.2 or newer.
//
// [Dials] (the --dial flag) maps a public HOST:PORT to an inside one. The
// mapping is the operator's, and its targets are exempt from the address check.
//
// [ReadAll] reads a response within a bound. Errors name the method and the host,
// never a path, query, header or body.
//
// What it leaves out: retries and caching, which depend on what is called.
package outbound
