package passthrough

import (
	"net/http"

	"chatelaine.dev/services/gateway/internal/aggregate/era"
	"chatelaine.dev/services/gateway/internal/jsonrpc"
)

// problem is why a request of the stateless era is refused.
type problem struct {
	code         int
	reason, text string
}

func mismatch(text string) *problem {
	return &problem{jsonrpc.CodeHeaderMismatch, "header_mismatch", text}
}

// checkStateless compares the headers with the body (MCP 2026-07-28, Streamable
// HTTP, Standard Request Headers). A gateway that counts and logs by one of them
// must not let them differ. Which versions, methods and Mcp-Param-* there are is
// the backend's to say.
func checkStateless(h http.Header, m *jsonrpc.Message) *problem {
	if m.Method == "" {
		return nil // an answer: its era is that of the session
	}
	if h.Get(headerMethod) != m.Method {
		return mismatch("the header Mcp-Method does not match the method")
	}
	if target, ok := m.Target(); ok {
		if target == "" {
			return &problem{jsonrpc.CodeInvalidParams, "no_target", "the parameters do not say what " + m.Method + " is about"}
		}
		if !era.HeaderIs(h.Get(headerName), target) {
			return mismatch("the header Mcp-Name does not match the parameters")
		}
	}
	if !m.IsRequest() {
		return nil
	}
	version := m.Text(m.ProtocolVersion)
	if version == "" || m.ClientCapabilities.Kind(m.Raw) != jsonrpc.Object {
		return &problem{
			jsonrpc.CodeInvalidParams, "no_meta",
			"_meta must have " + jsonrpc.MetaProtocolVersion + " and " + jsonrpc.MetaClientCapabilities,
		}
	}
	if version != h.Get(headerVersion) {
		return mismatch("the header MCP-Protocol-Version does not match _meta")
	}
	return nil
}
