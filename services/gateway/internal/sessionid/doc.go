// Package sessionid makes the MCP session ids that the gateway hands out.
//
// The gateway keeps no table of sessions: a session id is the session, sealed
// (AEAD) with a key that all replicas share, so that any of them serves any
// request. Inside are the session ids of the backends, which clients never see.
// The caller's identity and the endpoint are associated data: another person's
// id, or one of another endpoint, does not open.
//
//	Session ─▶ Seal(caller, endpoint) ─▶ visible ASCII, at most 2 KiB ─▶ Open ─▶ Session
//
// Everything that does not open is one error, fault.NotFound with reason
// "session_unknown": the transport's answer to it is 404, upon which clients
// initialise again (MCP 2025-11-25, Streamable HTTP, Session Management).
//
// [Sealer.SealValue] and [Sealer.OpenValue] do the same for other values that
// leave the gateway and come back: event ids, request ids, request states.
//
// What it leaves out: sessions that do not fit into 2 KiB, and whether the
// backends still know theirs.
package sessionid
