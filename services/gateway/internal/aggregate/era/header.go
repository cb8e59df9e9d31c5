package era

import (
	"encoding/base64"
	"strings"
)

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
