// Package sse reads and writes Server-Sent Events (WHATWG HTML, section 9.2).
//
// A [Reader] cuts a stream into events as they come in, and a [Writer] writes
// events anew: a client reads nothing of a foreign stream but what was understood
// here. Comments and empty events are events too, for they keep connections alive.
// An event that the end of the stream cuts off is none, as the standard says.
//
//	io.Reader ─▶ Reader.Next ─▶ Event{ID, Name, Data, Retry} ─▶ Writer ─▶ http.ResponseWriter
//
// One event is bounded, so that a stream never needs more memory than that.
//
// What it leaves out: reconnecting, and the meaning of data.
package sse
