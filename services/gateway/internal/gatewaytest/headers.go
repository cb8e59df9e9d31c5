package gatewaytest

import "net/http"

// AmbiguousHeaders are headers of MCP's transport that one reader takes for
// something else than the next. No endpoint may serve a request with one.
func AmbiguousHeaders() []http.Header {
	return []http.Header{
		{"Mcp-Protocol-Version": {"2025-11-25", "2026-07-28"}},
		{"Mcp-Protocol-Version": {"2025-11-25, 2026-07-28"}},
		{"Mcp-Session-Id": {"a", "b"}},
		{"Mcp-Method": {"tools/call", "tools/list"}},
		{"Mcp-Param-X": {"1", "2"}},
		{"Last-Event-Id": {"1", "2"}},
	}
}
