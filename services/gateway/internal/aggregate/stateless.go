package aggregate

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"

	"chatelaine.dev/services/gateway/internal/aggregate/era"
	"chatelaine.dev/services/gateway/internal/jsonrpc"
)

// problem is a request that is refused with a JSON-RPC error of ours.
type problem struct {
	code int
	text string
	data []byte
	// status in the stateless era; in the session era it is 200.
	status int
}

// Error implements error.
func (p *problem) Error() string { return p.text }

func newProblem(code int, text string) *problem {
	return &problem{code: code, text: text, status: statusOf(code)}
}

// statusOf returns the HTTP status of a JSON-RPC error in the stateless era (MCP
// 2026-07-28, Streamable HTTP, Protocol Errors).
func statusOf(code int) int {
	switch code {
	case jsonrpc.CodeMethodNotFound:
		return http.StatusNotFound
	case jsonrpc.CodeParse, jsonrpc.CodeInvalidRequest, jsonrpc.CodeInvalidParams,
		jsonrpc.CodeHeaderMismatch, codeMissingCapability, jsonrpc.CodeUnsupportedVersion:
		return http.StatusBadRequest
	}
	return http.StatusOK
}

// codeMissingCapability: the request needs a capability that the client did not
// declare (MCP 2026-07-28).
const codeMissingCapability = -32021

// checkStateless checks what the stateless era asks of every request: known
// method, headers that repeat the body, and the reserved members of _meta.
func checkStateless(header http.Header, m *jsonrpc.Message) *problem {
	claimed := m.Text(m.ProtocolVersion)
	if era.IsStateless(header.Get(era.HeaderVersion)) && !statelessMethod(m.Method) {
		return newProblem(jsonrpc.CodeMethodNotFound, "there is no method "+quoted(m.Method))
	}
	if p := era.CheckVersion(header, m); p != nil {
		return newProblem(p.Code, p.Text)
	}
	switch {
	case !era.IsStateless(claimed):
		return nil
	case claimed != era.V20260728:
		p := newProblem(jsonrpc.CodeUnsupportedVersion, "unsupported protocol version")
		p.data, _ = json.Marshal(map[string]any{"supported": era.Versions(), "requested": claimed})
		return p
	}
	if p := era.CheckStateless(header, m); p != nil {
		return newProblem(p.Code, p.Text)
	}
	info := jsonrpc.Find(m.Raw, m.Meta, era.MetaClientInfo)
	if !info.IsZero() && info.Kind(m.Raw) != jsonrpc.Object {
		return newProblem(jsonrpc.CodeInvalidParams, quoted(era.MetaClientInfo)+" must be an object")
	}
	return nil
}

func statelessMethod(method string) bool {
	return slices.Contains([]string{
		"tools/call", "tools/list", "resources/read", "resources/list", "resources/templates/list",
		"prompts/get", "prompts/list", "completion/complete", "server/discover", "subscriptions/listen",
	}, method)
}

// quoted shows a client's text in a message, within bounds.
func quoted(text string) string {
	const most = 100
	if len(text) > most {
		text = text[:most] + "…"
	}
	return strconv.Quote(text)
}
