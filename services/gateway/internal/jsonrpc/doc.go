// Package jsonrpc reads of a JSON-RPC 2.0 message what a gateway must know, and
// leaves the rest as the bytes that they are.
//
// [Parse] walks the raw message once. It checks that the whole of it is JSON
// (RFC 8259) within a depth of [MaxDepth], and notes where the members that
// matter stand: the id, the method, the parameters and a few of their members.
// A place is a [Span] of the raw bytes. [Splice] replaces spans, so that a
// message with another id or name is the old message, byte for byte, elsewhere:
//
//	bytes ─▶ Parse ─▶ Message (spans) ─▶ Splice ─▶ bytes
//
// Two readers of one message must not see two things. A member that this
// package interprets and that occurs twice, or that differs from such a member
// in upper and lower case only, makes the message invalid. Keys are compared
// after their escapes are resolved.
//
// [Members], [Elements] and [Find] walk into other parts of a message; [Batch]
// splits the batches of MCP 2025-03-26; [AppendError], [AppendToolError] and
// [AppendResult] write answers.
//
// What it leaves out: decoding of parameters and results, and checking them
// against a schema.
package jsonrpc
