package era

import (
	"cmp"
	"slices"

	"chatelaine.dev/services/gateway/internal/jsonrpc"
)

// Members of _meta that the protocol reserves (MCP 2026-07-28, Overview, _meta).
const (
	MetaVersion      = jsonrpc.MetaProtocolVersion
	MetaCapabilities = jsonrpc.MetaClientCapabilities
	MetaClientInfo   = "io.modelcontextprotocol/clientInfo"
	MetaLogLevel     = "io.modelcontextprotocol/logLevel"
	MetaServerInfo   = "io.modelcontextprotocol/serverInfo"
)

func reserved(key string) bool {
	switch key {
	case MetaVersion, MetaCapabilities, MetaClientInfo, MetaLogLevel:
		return true
	}
	return false
}

// Meta returns the reserved members of a request's _meta, without braces: the
// version, no capabilities, and the client's info, which is JSON, or nil.
func Meta(clientInfo []byte) []byte {
	b := []byte(`"` + MetaVersion + `":"` + V20260728 + `","` + MetaCapabilities + `":{}`)
	if len(clientInfo) == 0 {
		return b
	}
	b = append(b, `,"`+MetaClientInfo+`":`...)
	return append(b, clientInfo...)
}

// Stateless returns a request of the session era as the stateless era has it,
// with edits of the caller's. clientInfo is JSON, or nil.
func Stateless(m *jsonrpc.Message, clientInfo []byte, edits ...jsonrpc.Edit) []byte {
	add := Meta(clientInfo)
	switch {
	case m.Params.IsZero():
		end := lastByte(m.Raw)
		with := append([]byte(`,"params":{"_meta":{`), add...)
		edits = append(edits, jsonrpc.Edit{Span: jsonrpc.Span{Start: end, End: end + 1}, With: append(with, "}}}"...)})
	case !m.Meta.IsZero():
		edits = append(edits, jsonrpc.Edit{Span: m.Meta, With: metaWithout(m, add)})
	default:
		with := append([]byte(`{"_meta":{`), add...)
		with = append(with, '}')
		if !isEmptyObject(m.Raw, m.Params) {
			with = append(with, ',')
		}
		edits = append(edits, jsonrpc.Edit{Span: firstByte(m.Params), With: with})
	}
	return splice(m.Raw, edits)
}

// Session returns a request of the stateless era as the session era has it,
// with another id (nil: the same) and edits of the caller's.
func Session(m *jsonrpc.Message, id []byte, edits ...jsonrpc.Edit) []byte {
	if id != nil {
		edits = append(edits, jsonrpc.Edit{Span: m.ID, With: id})
	}
	if m.Meta.Kind(m.Raw) == jsonrpc.Object {
		edits = append(edits, jsonrpc.Edit{Span: m.Meta, With: metaWithout(m, nil)})
	}
	return splice(m.Raw, edits)
}

// metaWithout returns the object _meta without the reserved members, and with
// the members add, which have no braces.
func metaWithout(m *jsonrpc.Message, add []byte) []byte {
	out := append([]byte{'{'}, add...)
	_ = jsonrpc.Members(m.Raw, m.Meta, func(key string, value jsonrpc.Span) error {
		if reserved(key) {
			return nil
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(jsonrpc.AppendString(out, key), ':')
		out = append(out, value.Of(m.Raw)...)
		return nil
	})
	return append(out, '}')
}

// Complete returns a response of a session-era backend as the stateless era has
// it: with the client's id, and with a result that says that it is complete.
// With cacheable it also says that nobody may keep it.
func Complete(m *jsonrpc.Message, id []byte, cacheable bool) []byte {
	edits := []jsonrpc.Edit{{Span: m.ID, With: id}}
	if m.Result.Kind(m.Raw) == jsonrpc.Object {
		head := completeHead(m, &edits, cacheable)
		edits = append(edits, jsonrpc.Edit{Span: firstByte(m.Result), With: head})
	}
	return splice(m.Raw, edits)
}

// completeHead returns how the result begins, and edits what of it is there.
func completeHead(m *jsonrpc.Message, edits *[]jsonrpc.Edit, cacheable bool) []byte {
	members := []struct{ key, value string }{{"resultType", `"complete"`}, {"ttlMs", "0"}, {"cacheScope", `"private"`}}
	if !cacheable {
		members = members[:1]
	}
	there := make(map[string]bool, len(members))
	count := 0
	_ = jsonrpc.Members(m.Raw, m.Result, func(key string, value jsonrpc.Span) error {
		count++
		for _, member := range members {
			if key == member.key {
				there[key] = true
				*edits = append(*edits, jsonrpc.Edit{Span: value, With: []byte(member.value)})
			}
		}
		return nil
	})
	head := []byte{'{'}
	for _, member := range members {
		if there[member.key] {
			continue
		}
		if len(head) > 1 {
			head = append(head, ',')
		}
		head = append(head, `"`+member.key+`":`+member.value...)
	}
	if len(head) > 1 && count > 0 {
		head = append(head, ',')
	}
	return head
}

// splice puts the edits in order.
func splice(raw []byte, edits []jsonrpc.Edit) []byte {
	slices.SortFunc(edits, func(a, b jsonrpc.Edit) int { return cmp.Compare(a.Span.Start, b.Span.Start) })
	return jsonrpc.Splice(raw, edits...)
}

func firstByte(span jsonrpc.Span) jsonrpc.Span {
	return jsonrpc.Span{Start: span.Start, End: span.Start + 1}
}

// lastByte returns the place of the brace that ends a message.
func lastByte(raw []byte) int {
	end := len(raw) - 1
	for end > 0 && raw[end] != '}' {
		end--
	}
	return end
}

func isEmptyObject(raw []byte, obj jsonrpc.Span) bool {
	for _, c := range raw[obj.Start+1 : obj.End-1] {
		if c != ' ' && c != '\t' && c != '\n' && c != '\r' {
			return false
		}
	}
	return true
}
