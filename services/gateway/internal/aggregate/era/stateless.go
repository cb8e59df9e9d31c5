package era

import (
	"net/http"

	"chatelaine.dev/services/gateway/internal/jsonrpc"
)

// Problem is why a request of the stateless era is refused.
type Problem struct {
	// Code is that of the JSON-RPC error.
	Code int
	// Reason is a word for logs.
	Reason string
	Text   string
}

func mismatch(text string) *Problem {
	return &Problem{jsonrpc.CodeHeaderMismatch, "header_mismatch", text}
}

func noMeta(text string) *Problem { return &Problem{jsonrpc.CodeInvalidParams, "no_meta", text} }

// CheckStateless compares the headers of a message with its body, and looks for what
// a request must repeat (MCP 2026-07-28, Streamable HTTP, Standard Request Headers).
// Whoever routes, counts and logs by one of them must not let them differ. Which
// versions and methods there are is not looked at. An answer has the era of its
// session.
func CheckStateless(h http.Header, m *jsonrpc.Message) *Problem {
	if m.Method == "" {
		return nil
	}
	if m.IsRequest() {
		if p := CheckVersion(h, m); p != nil {
			return p
		}
	}
	if p := checkTarget(h, m); p != nil || !m.IsRequest() {
		return p
	}
	if m.ClientCapabilities.Kind(m.Raw) != jsonrpc.Object {
		return noMeta("_meta must have the object \"" + MetaCapabilities + "\"")
	}
	return nil
}

// CheckVersion is the part of CheckStateless that tells which version a request has.
func CheckVersion(h http.Header, m *jsonrpc.Message) *Problem {
	version := h.Get(HeaderVersion)
	switch claimed := m.Text(m.ProtocolVersion); {
	case version == "":
		return mismatch("the header MCP-Protocol-Version is required")
	case claimed == "":
		return noMeta("_meta must have \"" + MetaVersion + "\"")
	case claimed != version:
		return mismatch("the header MCP-Protocol-Version differs from _meta")
	}
	return nil
}

// checkTarget: what proxies route by must be what the body says.
func checkTarget(h http.Header, m *jsonrpc.Message) *Problem {
	switch method := h.Get(HeaderMethod); method {
	case m.Method:
	case "":
		return mismatch("the header Mcp-Method is required")
	default:
		return mismatch("the header Mcp-Method differs from the method")
	}
	target, ok := m.Target()
	if !ok {
		return nil
	}
	switch name := h.Get(HeaderName); {
	case target == "":
		return &Problem{jsonrpc.CodeInvalidParams, "no_target", "the parameters do not say what " + m.Method + " is about"}
	case name == "":
		return mismatch("the header Mcp-Name is required")
	case !HeaderIs(name, target):
		return mismatch("the header Mcp-Name differs from the name")
	}
	return nil
}
