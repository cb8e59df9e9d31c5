package era

import (
	"encoding/base64"
	"net/http"
	"strings"
)

// Headers of MCP's Streamable HTTP transport, in canonical form.
const (
	HeaderVersion     = "Mcp-Protocol-Version"
	HeaderSession     = "Mcp-Session-Id"
	HeaderMethod      = "Mcp-Method"
	HeaderName        = "Mcp-Name"
	HeaderLastEventID = "Last-Event-Id"
	// HeaderParamPrefix begins the headers that repeat arguments of a tool (MCP
	// 2026-07-28, Streamable HTTP, Custom Headers).
	HeaderParamPrefix = "Mcp-Param-"
)

// Ambiguous returns the name of a header of the transport that one reader takes
// for something else than the next: one that is sent more than once, or a
// protocol version that is a list. It is empty when there is none. Which era a
// request belongs to must not depend on who looks.
func Ambiguous(h http.Header) string {
	for name, values := range h {
		switch {
		case !strings.HasPrefix(name, "Mcp-") && name != HeaderLastEventID:
		case len(values) > 1, name == HeaderVersion && strings.ContainsAny(values[0], ", \t"):
			return name
		}
	}
	return ""
}

// Values of Mcp-Name and Mcp-Param-* that HTTP cannot carry are wrapped (MCP
// 2026-07-28, Streamable HTTP, Value Encoding).
const (
	wrapPrefix = "=?base64?"
	wrapSuffix = "?="
)

// EncodeHeader returns value as a header may carry it.
func EncodeHeader(value string) string {
	if !needsWrap(value) {
		return value
	}
	return wrapPrefix + base64.StdEncoding.EncodeToString([]byte(value)) + wrapSuffix
}

// HeaderIs reports whether a header's value stands for want, wrapped or not. A
// value that looks wrapped stands for what is in it, and for nothing else.
func HeaderIs(header, want string) bool {
	if header == want {
		return !needsWrap(want)
	}
	inner, ok := strings.CutPrefix(header, wrapPrefix)
	if !ok {
		return false
	}
	if inner, ok = strings.CutSuffix(inner, wrapSuffix); !ok {
		return false
	}
	decoded, err := base64.StdEncoding.DecodeString(inner)
	return err == nil && string(decoded) == want
}

func needsWrap(s string) bool {
	if s == "" {
		return false
	}
	if first, last := s[0], s[len(s)-1]; first == ' ' || first == '\t' || last == ' ' || last == '\t' {
		return true
	}
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return true
		}
	}
	return strings.HasPrefix(s, wrapPrefix) && strings.HasSuffix(s, wrapSuffix)
}
