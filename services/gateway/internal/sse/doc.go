// Package sse reads and writes Server-Sent Events (WHATWG HTML, section 9.2).
//
// A [Reader] cuts a stream into events as they come in. Each [Event] has its raw
// bytes, so that a reader that only looks passes them on unchanged: the raw
// bytes of all events, joined, are the stream (but for an event that the end of
// the stream cuts off, which the standard drops). Comments and empty events are
// events too, for they keep connections alive.
//
//	io.Reader ─▶ Reader.Next ─▶ Event{ID, Name, Data, Raw} ─▶ Writer ─▶ http.ResponseWriter
//
// One event is bounded, so that a stream never needs more memory than that.
//
// What it leaves out: reconnecting, and the meaning of data.
package sse
