package era

import (
	"encoding/json"
	"testing"

	"chatelaine.dev/services/gateway/internal/jsonrpc"
)

func parse(t *testing.T, raw string) *jsonrpc.Message {
	t.Helper()
	m, err := jsonrpc.Parse([]byte(raw))
	if err != nil {
		t.Fatalf("Parse(%s): %v", raw, err)
	}
	return &m
}

const reservedMeta = `"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}`

func TestAStatelessBackendUnderstandsASessionClient(t *testing.T) {
	t.Parallel()
	info := `{"name":"c","version":"1"}`
	withInfo := reservedMeta + `,"io.modelcontextprotocol/clientInfo":` + info
	tests := []struct{ name, in, info, want string }{
		{
			"no params", `{"jsonrpc":"2.0","id":1,"method":"tools/list"}  `, info,
			`{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{` + withInfo + `}}}  `,
		},
		{
			"empty params", `{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{ }}`, "",
			`{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{` + reservedMeta + `} }}`,
		},
		{
			"params", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a_b","arguments":{"x": 1.0}}}`, "",
			`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":{` + reservedMeta + `},"name":"a_b","arguments":{"x": 1.0}}}`,
		},
		{
			"a progress token stays", `{"params":{"name":"n","_meta":{"progressToken":7,"io.modelcontextprotocol/clientInfo":{"name":"other"}}},"jsonrpc":"2.0","id":1,"method":"tools/call"}`, info,
			`{"params":{"name":"n","_meta":{` + withInfo + `,"progressToken":7}},"jsonrpc":"2.0","id":1,"method":"tools/call"}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := string(Stateless(parse(t, tt.in), []byte(tt.info)))
			if got != tt.want {
				t.Errorf("Stateless():\n got %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestASessionBackendUnderstandsAStatelessClient(t *testing.T) {
	t.Parallel()
	m := parse(t, `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"repos_get","arguments":{"id":1},"_meta":{`+reservedMeta+
		`,"io.modelcontextprotocol/logLevel":"debug","progressToken":"p","x\"y":{"a":1}}}}`)
	got := string(Session(m, []byte(`"g1"`), jsonrpc.Edit{Span: m.Name, With: []byte(`"get"`)}))
	want := `{"jsonrpc":"2.0","id":"g1","method":"tools/call","params":{"name":"get","arguments":{"id":1},"_meta":{"progressToken":"p","x\"y":{"a":1}}}}`
	if got != want {
		t.Errorf("Session():\n got %s\nwant %s", got, want)
	}
}

func TestAStatelessClientIsToldWhatItMayKeep(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, in  string
		cacheable bool
		want      string
	}{
		{
			"a tool's result", `{"jsonrpc":"2.0","id":"g1","result":{"content":[]}}`, false,
			`{"jsonrpc":"2.0","id":5,"result":{"resultType":"complete","content":[]}}`,
		},
		{
			"a resource", `{"jsonrpc":"2.0","id":"g1","result":{"contents":[]}}`, true,
			`{"jsonrpc":"2.0","id":5,"result":{"resultType":"complete","ttlMs":0,"cacheScope":"private","contents":[]}}`,
		},
		{
			"never what a session backend says of caches", `{"result":{"ttlMs":90,"contents":[],"cacheScope":"public"},"jsonrpc":"2.0","id":"g1"}`, true,
			`{"result":{"resultType":"complete","ttlMs":0,"contents":[],"cacheScope":"private"},"jsonrpc":"2.0","id":5}`,
		},
		{"an empty result", `{"jsonrpc":"2.0","id":"g1","result":{}}`, false, `{"jsonrpc":"2.0","id":5,"result":{"resultType":"complete"}}`},
		{
			"all there", `{"jsonrpc":"2.0","id":"g1","result":{"resultType":"odd","ttlMs":1,"cacheScope":"x"}}`, true,
			`{"jsonrpc":"2.0","id":5,"result":{"resultType":"complete","ttlMs":0,"cacheScope":"private"}}`,
		},
		{"an error", `{"jsonrpc":"2.0","id":"g1","error":{"code":-1,"message":"m"}}`, true, `{"jsonrpc":"2.0","id":5,"error":{"code":-1,"message":"m"}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := string(Complete(parse(t, tt.in), []byte("5"), tt.cacheable)); got != tt.want {
				t.Errorf("Complete():\n got %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestANameThatHTTPCannotCarryIsFoundAgain(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"get", "", "naïve", " leading", "trailing\t", "a\nb", "=?base64?eA==?="} {
		header := EncodeHeader(name)
		for i := range len(header) {
			if header[i] < 0x20 || header[i] > 0x7e {
				t.Errorf("EncodeHeader(%q) = %q has byte %#x", name, header, header[i])
			}
		}
		if !HeaderIs(header, name) {
			t.Errorf("HeaderIs(%q, %q) = false", header, name)
		}
		if HeaderIs(header, name+"x") {
			t.Errorf("HeaderIs(%q, %q) = true", header, name+"x")
		}
	}
	for _, name := range []string{"=?base64?eA==?=", " x", "wetter/Ä"} {
		if HeaderIs(name, name) {
			t.Errorf("HeaderIs takes %q for itself: another reader takes it for something else", name)
		}
	}
	if HeaderIs("=?base64?!!?=", "x") {
		t.Error("HeaderIs takes what is no base64")
	}
}

func TestVersionsAreAgreedOnAsTheProtocolSays(t *testing.T) {
	t.Parallel()
	for asked, want := range map[string]string{
		"2025-03-26": "2025-03-26", "2025-06-18": "2025-06-18", "2025-11-25": "2025-11-25",
		"2024-11-05": "2025-11-25", "2026-07-28": "2025-11-25", "": "2025-11-25", "soon": "2025-11-25",
	} {
		if got := Negotiate(asked); got != want {
			t.Errorf("Negotiate(%q) = %q, want %q", asked, got, want)
		}
	}
}

func TestArgumentsAreRepeatedAsTheSchemaSays(t *testing.T) {
	t.Parallel()
	tool := `{"name":"t","inputSchema":{"properties":{"a":{"x-mcp-header":"A"},"o":{"properties":{"n":{"x-mcp-header":"N"}}},"bad":{"x-mcp-header":"no space"},"not":{"x-mcp-header":1},"plain":{}}}}`
	params := Params([]byte(tool))
	if len(params) != 2 || params[0].Header != "Mcp-Param-A" || params[1].Header != "Mcp-Param-N" {
		t.Fatalf("Params() = %+v", params)
	}
	for arguments, want := range map[string][2]string{
		`{"a":"x","o":{"n":1}}`:           {"x", "1"},
		`{"a":true,"o":{"n":-1.0e2}}`:     {"true", "-100"},
		`{"a":" x","o":{"n":1.5}}`:        {"=?base64?IHg=?=", ""},
		`{"a":null,"o":{"n":1e300}}`:      {"", ""},
		`{"a":[],"o":7}`:                  {"", ""},
		`{"o":{"n":9007199254740993000}}`: {"", ""},
		`null`:                            {"", ""},
	} {
		m := parse(t, `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments":`+arguments+`}}`)
		for i := range params {
			if got, ok := params[i].Value(m); got != want[i] || ok != (want[i] != "") {
				t.Errorf("%s of %s: %q, %v; want %q", params[i].Header, arguments, got, ok, want[i])
			}
		}
	}
	if Params([]byte(`{`)) != nil || Params([]byte(`[]`)) != nil {
		t.Error("no tool has annotations")
	}
}

// Whatever is parsed stays a message of the same method, with valid JSON.
func FuzzRewrite(f *testing.F) {
	f.Add(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"n","_meta":{"progressToken":1}}}`)
	f.Add(`{"jsonrpc":"2.0","id":"a","method":"tools/list","params":[]}`)
	f.Add(`{"jsonrpc":"2.0","id":1,"result":{"ttlMs":1,"x":{}}}`)
	f.Add(` {"jsonrpc":"2.0","method":"m","params":{"_meta":null}} `)
	f.Fuzz(func(t *testing.T, raw string) {
		m, err := jsonrpc.Parse([]byte(raw))
		if err != nil {
			return
		}
		var out []byte
		switch {
		case m.IsResponse():
			out = Complete(&m, []byte("5"), true)
		case m.IsRequest() && m.Params.Kind(m.Raw) != jsonrpc.Array:
			out = Session(&m, []byte("5"))
			back := Stateless(&m, []byte(`{"name":"c"}`))
			if !json.Valid(back) {
				t.Errorf("Stateless(%q) = %q is not JSON", raw, back)
			}
			if again, err := jsonrpc.Parse(back); err == nil && again.Text(again.ProtocolVersion) != V20260728 {
				t.Errorf("Stateless(%q) = %q has no version", raw, back)
			}
		default:
			return
		}
		if !json.Valid(out) {
			t.Fatalf("rewriting %q gives %q, which is not JSON", raw, out)
		}
		again, err := jsonrpc.Parse(out)
		if err != nil {
			t.Fatalf("rewriting %q gives %q: %v", raw, out, err)
		}
		if again.Method != m.Method || string(again.RawID()) != "5" {
			t.Errorf("rewriting %q gives %q: another method or id", raw, out)
		}
	})
}
