package era

import (
	"math"
	"strconv"

	"golang.org/x/net/http/httpguts"

	"chatelaine.dev/services/gateway/internal/jsonrpc"
)

// Param says that a header repeats an argument: the schema of the tool's input
// has x-mcp-header at the property that Path leads to.
type Param struct {
	Header string
	Path   []string
}

const (
	maxParams     = 64
	maxParamDepth = 8
	// maxSafeInteger is the largest whole number that every JSON reader has.
	maxSafeInteger = 1<<53 - 1
)

// Params returns the annotated arguments of a tool, which is the raw item of a
// list. Names that cannot be headers are left out.
func Params(tool []byte) []Param {
	whole, err := jsonrpc.Whole(tool)
	if err != nil {
		return nil
	}
	var params []Param
	collect(tool, jsonrpc.Find(tool, whole, "inputSchema"), nil, &params)
	return params
}

func collect(tool []byte, schema jsonrpc.Span, path []string, params *[]Param) {
	if len(path) >= maxParamDepth {
		return
	}
	_ = jsonrpc.Members(tool, jsonrpc.Find(tool, schema, "properties"), func(name string, property jsonrpc.Span) error {
		here := append(path[:len(path):len(path)], name)
		header, ok := jsonrpc.Text(tool, jsonrpc.Find(tool, property, "x-mcp-header"))
		if ok && httpguts.ValidHeaderFieldName(header) && len(*params) < maxParams {
			*params = append(*params, Param{Header: HeaderParamPrefix + header, Path: here})
		}
		collect(tool, property, here, params)
		return nil
	})
}

// Value returns what the header of a call must say; ok is false when the
// argument is missing, or nothing that a header repeats.
func (p *Param) Value(m *jsonrpc.Message) (value string, ok bool) {
	at := jsonrpc.Find(m.Raw, jsonrpc.Find(m.Raw, m.Params, "arguments"), p.Path...)
	switch at.Kind(m.Raw) {
	case jsonrpc.String:
		return EncodeHeader(m.Text(at)), true
	case jsonrpc.Bool:
		return string(at.Of(m.Raw)), true
	case jsonrpc.Number:
		n, err := strconv.ParseFloat(string(at.Of(m.Raw)), 64)
		if err != nil || n > maxSafeInteger || n < -maxSafeInteger || n != math.Trunc(n) {
			return "", false
		}
		return strconv.FormatInt(int64(n), 10), true
	}
	return "", false
}
