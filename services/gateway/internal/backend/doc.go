// Package backend sends one request to one MCP server, with the credential that
// the caller is entitled to.
//
//	Request ─▶ credential (cached, or from the broker) ─▶ headers ─▶ transport of the backend ─▶ response, body unread
//	                 ▲                                                        │ 401
//	                 └──── report it, get another, try once more ─────────────┘
//
// The credential's headers go to the backend's configured origin and nowhere
// else: redirects are not followed, and a credential for another origin is an
// error. Whatever the client sent as its own credential stays here. A backend
// that refuses (401, 403) or redirects is an error of ours with a reason, never
// a status that the client could take for the gateway's.
//
// [Explain] says of such an error what a client, and its user, should be told.
//
// What it leaves out: the meaning of requests and responses.
package backend
