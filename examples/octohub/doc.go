// Package octohub is the demo's code host: plain OAuth 2.0 in the manner of
// GitHub, and a small REST API behind it.
//
// There is no discovery, no ID token and no iss. A person signs in with a form
// and keeps a cookie session; an authorization request then asks whether the
// client may act for them. The token endpoint answers as a form unless JSON is
// asked for, lists scopes with commas, and reports errors with status 200. User
// tokens are opaque and expire; refresh tokens are used once, and using one again
// ends the whole grant. Tokens are stored as digests only.
//
// What it leaves out: git, everything of the API but /user and /user/repos,
// remembering what was approved (each request asks), and device flow.
package octohub
