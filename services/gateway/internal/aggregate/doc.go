// Package aggregate serves many MCP servers as one: the endpoint /mcp.
//
// It speaks both eras of the protocol to clients and to backends, in any
// combination, see package era:
//
//	POST ─▶ message ─┬─ initialize, server/discover ──▶ handshakes with all backends
//	                 ├─ tools/list, prompts/list … ───▶ one page of every backend, merged (package catalog)
//	                 ├─ tools/call, resources/read … ─▶ one request to one backend, the answer streamed back
//	                 └─ notifications, answers ───────▶ the session's backends
//	GET ──▶ the streams of the session's backends, merged        DELETE ─▶ the end of the session
//
// # Names
//
// The names of tools and prompts have the backend's name and "_" in front. URIs
// of resources stay as they are; package catalog says who owns which.
//
// # Sessions
//
// A session id is the session, sealed: the session ids, versions and features of
// the backends, and how the client introduced itself. What it cannot carry is
// a blob in the broker, sealed as well and written by compare-and-set: backends
// that join later or anew, the end of a session, and sessions whose id would be
// longer than 2 KiB. A blob is read when a session first shows up on a replica
// and every half minute after that, when a backend is missing or has lost its
// session, and for everything that is not a call of one backend. So a session
// that was ended on one replica may call backends that keep no sessions for half
// a minute more on another; it can list nothing. With the broker down, ids that
// carry their backends go on to work, and a backend that joins does so on one
// replica alone.
//
// Clients of the stateless era have no session. When a backend of theirs wants
// one, the replica keeps one for this person, login session, client and backend
// alone. Another replica opens another; each ends by the backend's own limit. A
// caller without an identity gets one for each request.
//
// # Failures
//
// A backend that is down, slow, or not connected yet is missing from handshakes
// and lists, with what it showed this person last time in its place; the others
// are not affected. After a timeout, lists do not wait for it for ten seconds. A
// tool call that cannot be made is answered with a result that is an error and
// says what to do, because models see results; other requests get a JSON-RPC
// error. 401 means that the caller's own token is no longer good, and nothing
// else; 503 that the broker does not answer, so that nobody knows what the caller
// may have: then old lists are not shown either.
//
// # Server to client
//
// Requests of session-era backends (elicitation, sampling, roots, ping) pass to
// clients of the session era under sealed ids, which lead the answers back; so do
// event ids, for resumption. A client's notifications/cancelled goes to all
// backends of its session, since ids are unique within it; at a stateless backend
// it ends the call when it reaches the replica that makes it.
//
// No backend can answer what another one was asked: of its answers only the one
// to the request on whose stream it comes passes, and its events are written
// anew. Progress is not checked like that: a backend that guesses the token of
// another one's call can report progress of it.
//
// # What it leaves out
//
// Requests of servers to clients of the other era, and changes announced to
// clients of the stateless era: the capabilities say so to both sides, and
// subscriptions/listen is acknowledged as empty. Log levels for backends that
// join later. Tasks and other extensions. Bearer tokens, CORS and Origin are
// checked in front of it.
package aggregate
