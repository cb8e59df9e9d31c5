// Package streams keeps the streams that would last for as long as the client
// likes: GET requests, and subscriptions/listen of the stateless era.
//
//	Open ─▶ room for this caller? ─▶ context ─▶ ends with the access token, or when Drain is called
//	         └─ no: EXHAUSTED                └─ closed by the stream's end
//
// Requests that end on their own get the server's drain time to do so. Streams are
// told to end at once when the server no longer takes requests, so that clients
// connect elsewhere while that time runs.
//
// A request that is answered by a stream is such a request for half a minute, and
// a stream after that; see [Streams.Answer]. It is never refused for the number of
// streams, but leaves room for fewer others.
//
// What it leaves out: the end of the caller's session, which package credentials
// knows, and callers without an identity, who are not bounded here.
package streams
