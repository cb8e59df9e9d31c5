package mcpclient

import "chatelaine.dev/services/gateway/internal/jsonrpc"

// Features are the capabilities of a server that the gateway passes on.
type Features uint16

// The features. Their values are part of sealed session ids: add at the end.
const (
	Tools Features = 1 << iota
	Resources
	Prompts
	Completions
	Logging
	// Subscribe: single resources can be watched.
	Subscribe
	// The lists announce their changes.
	ToolsChanged
	ResourcesChanged
	PromptsChanged
)

// Everything is assumed of a backend that could not be asked: an offer that
// turns out empty does less harm than tools that a client never asks for.
const Everything = Tools | Resources | Prompts | Completions

// Has reports whether f has all of want.
func (f Features) Has(want Features) bool { return f&want == want }

// featuresOf reads a ServerCapabilities object.
func featuresOf(raw []byte, capabilities jsonrpc.Span) Features {
	var f Features
	_ = jsonrpc.Members(raw, capabilities, func(key string, value jsonrpc.Span) error {
		if value.Kind(raw) != jsonrpc.Object {
			return nil
		}
		changed := isTrue(raw, jsonrpc.Find(raw, value, "listChanged"))
		switch key {
		case "tools":
			f |= Tools | when(changed, ToolsChanged)
		case "resources":
			f |= Resources | when(changed, ResourcesChanged) |
				when(isTrue(raw, jsonrpc.Find(raw, value, "subscribe")), Subscribe)
		case "prompts":
			f |= Prompts | when(changed, PromptsChanged)
		case "completions":
			f |= Completions
		case "logging":
			f |= Logging
		}
		return nil
	})
	return f
}

func when(condition bool, f Features) Features {
	if condition {
		return f
	}
	return 0
}

func isTrue(raw []byte, span jsonrpc.Span) bool {
	return span.Kind(raw) == jsonrpc.Bool && raw[span.Start] == 't'
}
