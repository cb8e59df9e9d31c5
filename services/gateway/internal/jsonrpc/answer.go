package jsonrpc

import (
	"errors"
	"strconv"
)

// Error codes of JSON-RPC 2.0, section 5.1, and of MCP.
const (
	CodeParse          = -32700
	CodeInvalidRequest = -32600
	CodeMethodNotFound = -32601
	CodeInvalidParams  = -32602
	CodeInternal       = -32603

	// CodeHeaderMismatch: headers and body disagree (MCP 2026-07-28).
	CodeHeaderMismatch = -32020
	// CodeUnsupportedVersion: the protocol version is not supported (MCP 2026-07-28).
	CodeUnsupportedVersion = -32022

	// CodeUnavailable: the gateway cannot reach the backend or what its
	// credential comes from. It is ours, from JSON-RPC's range for servers.
	CodeUnavailable = -32010
	// CodeConnectionRequired: a provider must be connected, or connected again.
	CodeConnectionRequired = -32011
	// CodeSessionUnknown: the MCP session is not known; initialise again.
	CodeSessionUnknown = -32001
)

// CodeOf returns the error code for what Parse returned.
func CodeOf(err error) int {
	if _, ok := errors.AsType[*SyntaxError](err); ok {
		return CodeParse
	}
	return CodeInvalidRequest
}

// AppendError appends an error response. A nil id becomes null; data is JSON,
// or nil for none.
func AppendError(dst, id []byte, code int, message string, data []byte) []byte {
	dst = appendHead(dst, id)
	dst = append(dst, `,"error":{"code":`...)
	dst = strconv.AppendInt(dst, int64(code), 10)
	dst = append(dst, `,"message":`...)
	dst = AppendString(dst, message)
	if len(data) > 0 {
		dst = append(dst, `,"data":`...)
		dst = append(dst, data...)
	}
	return append(dst, "}}"...)
}

// AppendResult appends a response with a result, which is JSON.
func AppendResult(dst, id, result []byte) []byte {
	dst = appendHead(dst, id)
	dst = append(dst, `,"result":`...)
	dst = append(dst, result...)
	return append(dst, '}')
}

// AppendToolError appends the response of a tools/call that failed for a reason
// that the model, or its user, can do something about. With complete, it says
// that the result is complete, as MCP 2026-07-28 requires of results.
func AppendToolError(dst, id []byte, text string, complete bool) []byte {
	dst = appendHead(dst, id)
	dst = append(dst, `,"result":{`...)
	if complete {
		dst = append(dst, `"resultType":"complete",`...)
	}
	dst = append(dst, `"content":[{"type":"text","text":`...)
	dst = AppendString(dst, text)
	return append(dst, `}],"isError":true}}`...)
}

func appendHead(dst, id []byte) []byte {
	dst = append(dst, `{"jsonrpc":"2.0","id":`...)
	if len(id) == 0 {
		return append(dst, "null"...)
	}
	return append(dst, id...)
}
