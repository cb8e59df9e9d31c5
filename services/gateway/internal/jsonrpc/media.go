package jsonrpc

import (
	"mime"
	"strings"
)

// IsMedia reports whether a Content-Type is that of messages: JSON in UTF-8 (RFC
// 8259, section 8.1). In another encoding a reader that goes by the header may see
// another message than one that does not.
func IsMedia(contentType string) bool {
	if contentType == "application/json" {
		return true
	}
	mediaType, params, err := mime.ParseMediaType(contentType)
	if err != nil || mediaType != "application/json" {
		return false
	}
	charset, ok := params["charset"]
	return !ok || strings.EqualFold(charset, "utf-8")
}
