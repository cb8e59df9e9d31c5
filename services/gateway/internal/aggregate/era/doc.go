// Package era turns messages of one MCP era into those of the other.
//
// The session era (2025-03-26, 2025-06-18, 2025-11-25) agrees on version and
// capabilities once, in initialize. The stateless era (2026-07-28) repeats them
// in the _meta of every request, and its results say whether they are complete
// and for how long they may be cached. A client of one era reaches a backend of
// the other by requests and results that are spliced:
//
//	session client ──▶ [Stateless]: adds the reserved members of _meta ──▶ stateless backend
//	stateless client ─▶ [Session]: takes them out, sets an id of ours ──▶ session backend
//	session backend ──▶ [Complete]: the client's id, resultType, ttlMs … ─▶ stateless client
//
// Everything else of a message stays as it is, byte for byte. The results of
// stateless backends need no change: clients of the session era ignore members
// that they do not know.
//
// It also knows the versions, and the header Mcp-Name.
//
// What it leaves out: requests of servers to clients (elicitation, sampling,
// roots). Backends are told that a bridged client has no capabilities, so that
// they ask for nothing.
package era
