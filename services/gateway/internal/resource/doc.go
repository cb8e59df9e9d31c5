// Package resource is the OAuth protected resource that MCP clients meet
// (RFC 9728, RFC 6750; MCP 2025-11-25 and 2026-07-28, Authorization).
//
// The aggregated endpoint and each backend's endpoint are resources of their
// own. Each has a metadata document that names itself, and a [Server.Protect]
// that lets only requests through that may use it:
//
//	Host ─▶ Origin ─▶ CORS, preflight ─▶ bearer token (offline) ─▶ session still alive? ─▶ handler
//	 403      403          204              401, 403, 503                401
//
// The handler finds the caller in the context (package caller); the context ends
// when the caller's session does. A token for the aggregated endpoint opens every
// backend's, a backend's token that backend alone.
//
// What it leaves out: DPoP and mutual-TLS binding of tokens (RFC 9449, RFC 8705),
// signed metadata (RFC 9728, section 2.1), and tokens in query or form
// parameters (RFC 6750, sections 2.2 and 2.3), which MCP forbids.
package resource
