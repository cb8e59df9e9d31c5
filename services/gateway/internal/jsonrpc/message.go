package jsonrpc

import (
	"errors"
	"strings"
)

// Members of _meta that MCP 2026-07-28 requires of every request.
const (
	MetaProtocolVersion    = "io.modelcontextprotocol/protocolVersion"
	MetaClientCapabilities = "io.modelcontextprotocol/clientCapabilities"
)

// ErrInvalid is what is JSON and no JSON-RPC message: errors.Is finds it.
var ErrInvalid = errors.New("not a JSON-RPC message")

type invalidError struct{ problem string }

func (e *invalidError) Error() string { return "not a JSON-RPC message: " + e.problem }
func (e *invalidError) Unwrap() error { return ErrInvalid }

func invalid(problem string) error { return &invalidError{problem} }

// Message says where the parts of a message are. All spans are places in Raw.
type Message struct {
	// Raw is the message itself. It is kept, not copied.
	Raw []byte
	// Method is empty for responses.
	Method string
	// ID is a string, a number, or null; zero for notifications.
	ID Span
	// Params is an object or an array.
	Params Span
	// Result and Error: a response has one of them.
	Result, Error Span

	// Members of the parameters: what the method is about (tools/call,
	// prompts/get: name; resources/read: uri). Strings, or zero.
	Name, URI Span
	// Meta is the object _meta of the parameters.
	Meta Span
	// ProgressToken of Meta: a string or a number.
	ProgressToken Span
	// ProtocolVersion and ClientCapabilities of Meta (MCP 2026-07-28).
	ProtocolVersion, ClientCapabilities Span
}

// IsRequest reports whether the message asks for an answer.
func (m *Message) IsRequest() bool { return m.Method != "" && !m.ID.IsZero() }

// IsNotification reports whether the message has a method and no id.
func (m *Message) IsNotification() bool { return m.Method != "" && m.ID.IsZero() }

// IsResponse reports whether the message is an answer.
func (m *Message) IsResponse() bool { return m.Method == "" }

// RawID returns the id as JSON; nil for notifications.
func (m *Message) RawID() []byte { return m.ID.Of(m.Raw) }

// Text returns the string at span, "" when there is none.
func (m *Message) Text(span Span) string {
	s, _ := Text(m.Raw, span)
	return s
}

// Target returns the name that the header Mcp-Name repeats (MCP 2026-07-28):
// params.name of tools/call and prompts/get, params.uri of resources/read. ok
// is false for every other method; the text is empty when the member is missing.
func (m *Message) Target() (target string, ok bool) {
	switch m.Method {
	case "tools/call", "prompts/get":
		return m.Text(m.Name), true
	case "resources/read":
		return m.Text(m.URI), true
	}
	return "", false
}

// Parse reads one message. An error is a *SyntaxError (JSON-RPC's -32700), or
// errors.Is ErrInvalid (-32600), then with the id as far as it was seen. A batch
// is an ErrInvalid.
func Parse(raw []byte) (Message, error) {
	m := Message{Raw: raw}
	s := scanner{data: raw}
	if s.peek() != '{' {
		if _, err := Whole(raw); err != nil {
			return m, err
		}
		return m, invalid("an object was expected")
	}
	var top topLevel
	// A message that is invalid must still be JSON to the end to be called so.
	problem := error(nil)
	err := s.object(0, func(key []byte, value Span) error {
		if problem == nil {
			problem = top.visit(&m, key, value)
		}
		return nil
	})
	if err != nil {
		return Message{Raw: raw}, err
	}
	if err := s.end(); err != nil {
		return Message{Raw: raw}, err
	}
	if problem == nil {
		problem = top.check(&m)
	}
	if problem == nil {
		problem = m.readParams()
	}
	return m, problem
}

// topLevel is what is seen of the members that are not kept.
type topLevel struct{ version, method Span }

func (t *topLevel) visit(m *Message, key []byte, value Span) error {
	name := unescapedKey(key)
	var into *Span
	switch name {
	case "jsonrpc":
		into = &t.version
	case "method":
		into = &t.method
	case "id":
		into = &m.ID
	case "params":
		into = &m.Params
	case "result":
		into = &m.Result
	case "error":
		into = &m.Error
	default:
		return ambiguous(name, "jsonrpc", "method", "id", "params", "result", "error")
	}
	return once(into, name, value)
}

// check applies JSON-RPC 2.0, sections 4 and 5.
func (t *topLevel) check(m *Message) error {
	if text, ok := Text(m.Raw, t.version); !ok || text != "2.0" {
		return invalid(`"jsonrpc" must be "2.0"`)
	}
	switch m.ID.Kind(m.Raw) {
	case None, String, Number, Null:
	default:
		m.ID = Span{}
		return invalid(`"id" must be a string or a number`)
	}
	if t.method.IsZero() {
		switch {
		case m.Result.IsZero() == m.Error.IsZero():
			return invalid(`a "method" is missing, or one of "result" and "error"`)
		case m.ID.IsZero():
			return invalid(`an answer needs an "id"`)
		case !m.Params.IsZero():
			return invalid(`an answer has no "params"`)
		}
		return nil
	}
	if !m.Result.IsZero() || !m.Error.IsZero() {
		return invalid(`a request has no "result" and no "error"`)
	}
	if m.ID.Kind(m.Raw) == Null { // MCP: the id of a request must not be null
		return invalid(`"id" must not be null`)
	}
	method := rawText(m.Raw, t.method)
	if len(method) == 0 {
		return invalid(`"method" must be a string and not empty`)
	}
	m.Method = methodName(method)
	switch m.Params.Kind(m.Raw) {
	case None, Object, Array:
		return nil
	}
	return invalid(`"params" must be an object or an array`)
}

func (m *Message) readParams() error {
	if m.Params.Kind(m.Raw) != Object {
		return nil
	}
	s := scanner{data: m.Raw[:m.Params.End], pos: m.Params.Start}
	err := s.object(0, func(key []byte, value Span) error {
		switch name := unescapedKey(key); name {
		case "name":
			return once(&m.Name, name, value)
		case "uri":
			return once(&m.URI, name, value)
		case "_meta":
			return once(&m.Meta, name, value)
		default:
			if !m.usesNames() {
				return nil // the parameters of others are their own affair
			}
			return ambiguous(name, "name", "uri", "_meta")
		}
	})
	if err != nil || m.Meta.Kind(m.Raw) != Object {
		return err
	}
	s = scanner{data: m.Raw[:m.Meta.End], pos: m.Meta.Start}
	return s.object(0, func(key []byte, value Span) error {
		switch name := unescapedKey(key); name {
		case "progressToken":
			return once(&m.ProgressToken, name, value)
		case MetaProtocolVersion:
			return once(&m.ProtocolVersion, name, value)
		case MetaClientCapabilities:
			return once(&m.ClientCapabilities, name, value)
		default:
			return ambiguous(name, "progressToken", MetaProtocolVersion, MetaClientCapabilities)
		}
	})
}

// usesNames reports whether a gateway routes or counts by a member of params.
func (m *Message) usesNames() bool {
	switch m.Method {
	case "tools/call", "prompts/get", "resources/read", "resources/subscribe", "resources/unsubscribe":
		return true
	}
	return false
}

func once(into *Span, name string, value Span) error {
	if !into.IsZero() {
		return invalid(`the member "` + name + `" occurs twice`)
	}
	*into = value
	return nil
}

// ambiguous refuses a key that a reader which ignores case would take for one
// of names.
func ambiguous(key string, names ...string) error {
	for _, name := range names {
		if strings.EqualFold(key, name) {
			return invalid(`a member differs from "` + name + `" in upper and lower case only`)
		}
	}
	return nil
}

// unescapedKey allocates for unknown keys only: the switch on the bytes of a
// known one returns a constant.
func unescapedKey(key []byte) string {
	switch string(key) {
	case "jsonrpc":
		return "jsonrpc"
	case "method":
		return "method"
	case "id":
		return "id"
	case "params":
		return "params"
	case "result":
		return "result"
	case "error":
		return "error"
	case "name":
		return "name"
	case "uri":
		return "uri"
	case "_meta":
		return "_meta"
	case "arguments":
		return "arguments"
	case "progressToken":
		return "progressToken"
	case MetaProtocolVersion:
		return MetaProtocolVersion
	case MetaClientCapabilities:
		return MetaClientCapabilities
	}
	return unescape(key)
}

func rawText(raw []byte, span Span) []byte {
	if span.Kind(raw) != String {
		return nil
	}
	text := raw[span.Start+1 : span.End-1]
	for _, c := range text {
		if c == '\\' {
			return []byte(unescape(text))
		}
	}
	return text
}

// methodName returns the constant of a method that is called often.
func methodName(method []byte) string {
	switch string(method) {
	case "tools/call":
		return "tools/call"
	case "tools/list":
		return "tools/list"
	case "resources/read":
		return "resources/read"
	case "resources/list":
		return "resources/list"
	case "prompts/get":
		return "prompts/get"
	case "prompts/list":
		return "prompts/list"
	case "initialize":
		return "initialize"
	case "notifications/initialized":
		return "notifications/initialized"
	case "ping":
		return "ping"
	case "server/discover":
		return "server/discover"
	}
	return string(method)
}
