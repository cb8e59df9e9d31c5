package catalog

// Kind is a kind of list.
type Kind struct {
	// Method that lists, e.g. "tools/list".
	Method string
	// Array is the member of the result that holds the items.
	Array string
	// Key is the member of an item that identifies it.
	Key string
	// Prefixed: the key gets the backend's name in front.
	Prefixed bool
}

// The kinds of lists (MCP 2026-07-28, Server Features).
var (
	Tools     = &Kind{Method: "tools/list", Array: "tools", Key: "name", Prefixed: true}
	Prompts   = &Kind{Method: "prompts/list", Array: "prompts", Key: "name", Prefixed: true}
	Resources = &Kind{Method: "resources/list", Array: "resources", Key: "uri"}
	Templates = &Kind{Method: "resources/templates/list", Array: "resourceTemplates", Key: "uriTemplate"}
)

// KindOf returns the kind that a method lists, or nil.
func KindOf(method string) *Kind {
	for _, k := range [...]*Kind{Tools, Prompts, Resources, Templates} {
		if k.Method == method {
			return k
		}
	}
	return nil
}
