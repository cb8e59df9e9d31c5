// Package mcpclient talks to one backend on behalf of one client.
//
// A [Peer] says how: which protocol version, with which session, and what the
// backend offers. It comes from [Client.Initialize] (session era) or
// [Client.Discover] (stateless era); [Client.Reach] and [Client.Join] find out
// which of both the backend speaks, preferring the era of the client that is
// served. Then [Client.Post] sends a message and hands back the HTTP response
// unread, and [Client.Ask] sends a request of ours and reads its answer, whether
// it comes as JSON or as a stream of events.
//
//	Join / Reach ─▶ Peer ─▶ Post ─▶ *http.Response (streamed by the caller)
//	                   └──▶ Ask  ─▶ jsonrpc.Message (bounded, for lists)
//
// Errors: [ErrSessionLost] when the backend no longer knows the session, an
// [*RPCError] when it answered with a JSON-RPC error, and otherwise a
// *fault.Error whose public text names the backend.
//
// What it leaves out: credentials (the Backends given to New attach them), and
// keeping Peers, which differs between clients with and without sessions.
package mcpclient
