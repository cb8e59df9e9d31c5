// Package discovery publishes what the authorization server is and can do: its
// metadata (RFC 8414, and the same document under OpenID Connect Discovery's name
// for clients that look only there) and its key set (RFC 7517).
//
// Each document is found under every path that clients try. For an issuer with a
// path, https://host/tenant, these are the inserted form of RFC 8414, section 3.1
// (/.well-known/oauth-authorization-server/tenant) and the appended one of OpenID
// Connect (/tenant/.well-known/openid-configuration), for both names.
//
// Only what works is in them. There is no id_token here, so there is no openid
// scope; the two members that OpenID Connect Discovery requires all the same are in
// that document alone, because its readers refuse it without them.
package discovery
