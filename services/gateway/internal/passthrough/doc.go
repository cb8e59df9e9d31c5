// Package passthrough serves one backend at /mcp/{backend}, with its names and
// messages unchanged (MCP Streamable HTTP, 2025-03-26 to 2026-07-28).
//
//	client ─▶ headers, session id opened, message looked at ─▶ package backend ─▶ backend
//	client ◀─ session id sealed, body streamed unread       ◀─────────────────────┘
//
// Session era: the backend's Mcp-Session-Id is sealed into the one that the
// client gets, bound to the person and this endpoint; an id that does not open
// is 404, and so is one that the backend no longer knows, so that the client
// initialises again. Stateless era: headers must say what the body says, or the
// request is refused as the backend would have to (MCP 2026-07-28, Streamable
// HTTP, Standard Request Headers).
//
// What a backend cannot do is told in the terms of the protocol: a result with
// isError for tools/call when a person must connect a provider, a JSON-RPC error
// otherwise, with an HTTP status that speaks for us.
//
// What it leaves out: merging backends (package aggregate), and whatever a
// result means.
package passthrough
