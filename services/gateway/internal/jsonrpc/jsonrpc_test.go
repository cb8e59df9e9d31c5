package jsonrpc

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type seen struct {
	Method, ID, Params, Result, Error      string
	Name, URI, Meta, Token, Version, Capas string
}

func look(m *Message) seen {
	text := func(s Span) string { return string(s.Of(m.Raw)) }
	return seen{
		m.Method, text(m.ID), text(m.Params), text(m.Result), text(m.Error),
		text(m.Name), text(m.URI), text(m.Meta), text(m.ProgressToken), text(m.ProtocolVersion), text(m.ClientCapabilities),
	}
}

func TestParseFindsWhatTheGatewayRoutesBy(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, raw string
		want      seen
	}{
		{
			"tool call", `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","arguments":{"name":"inner"},"_meta":{"progressToken":"p"}}}`,
			seen{Method: "tools/call", ID: "7", Params: `{"name":"echo","arguments":{"name":"inner"},"_meta":{"progressToken":"p"}}`, Name: `"echo"`, Meta: `{"progressToken":"p"}`, Token: `"p"`},
		},
		{
			"escaped keys and method", ` { "jsonrpc" : "2.0" , "\u0069d" : "a\"b" , "m\u0065thod" : "resources\/read", "params":{"uri":"file:///x"} } `,
			seen{Method: "resources/read", ID: `"a\"b"`, Params: `{"uri":"file:///x"}`, URI: `"file:///x"`},
		},
		{
			"stateless", `{"params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}},"method":"server/discover","id":-1.5e3,"jsonrpc":"2.0"}`,
			seen{
				Method: "server/discover", ID: "-1.5e3", Version: `"2026-07-28"`, Capas: "{}",
				Params: `{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}`,
				Meta:   `{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}`,
			},
		},
		{"notification", `{"jsonrpc":"2.0","method":"notifications/initialized"}`, seen{Method: "notifications/initialized"}},
		{"result", `{"jsonrpc":"2.0","id":"x","result":{"a":[1,2,{"b":null}]}}`, seen{ID: `"x"`, Result: `{"a":[1,2,{"b":null}]}`}},
		{"error without id", `{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}`, seen{ID: "null", Error: `{"code":1,"message":""}`}},
		{"other method, own parameters", `{"jsonrpc":"2.0","id":1,"method":"x/y","params":{"Name":1,"URI":true}}`, seen{Method: "x/y", ID: "1", Params: `{"Name":1,"URI":true}`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m, err := Parse([]byte(tt.raw))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, look(&m)); diff != "" {
				t.Errorf("differs (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseRefusesMessagesThatTwoReadersCouldReadDifferently(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("[", MaxDepth+1) + strings.Repeat("]", MaxDepth+1)
	tests := map[string]struct {
		raw  string
		code int
	}{
		"empty":                 {``, CodeParse},
		"cut off":               {`{"jsonrpc":"2.0","id":1,"method":"a"`, CodeParse},
		"trailing":              {`{"jsonrpc":"2.0","id":1,"method":"a"}{}`, CodeParse},
		"zero byte at the end":  {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\"}\x00", CodeParse},
		"bad number":            {`{"jsonrpc":"2.0","id":01,"method":"a"}`, CodeParse},
		"bad escape":            {`{"jsonrpc":"2.0","id":1,"method":"\x"}`, CodeParse},
		"control character":     {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\nb\"}", CodeParse},
		"not UTF-8":             {"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}", CodeParse},
		"trailing comma":        {`{"jsonrpc":"2.0","id":1,"method":"a",}`, CodeParse},
		"too deep":              {`{"jsonrpc":"2.0","id":1,"method":"a","params":` + deep + `}`, CodeParse},
		"invalid, then no JSON": {`{"jsonrpc":"2.0","jsonrpc":"2.0",}`, CodeParse},
		"batch":                 {`[{"jsonrpc":"2.0","id":1,"method":"a"}]`, CodeInvalidRequest},
		"no object":             {`"text"`, CodeInvalidRequest},
		"wrong version":         {`{"jsonrpc":"1.0","id":1,"method":"a"}`, CodeInvalidRequest},
		"two methods":           {`{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}`, CodeInvalidRequest},
		"two methods, escaped":  {`{"jsonrpc":"2.0","id":1,"method":"a","\u006dethod":"b"}`, CodeInvalidRequest},
		"two ids":               {`{"jsonrpc":"2.0","id":1,"id":2,"method":"a"}`, CodeInvalidRequest},
		"case of method":        {`{"jsonrpc":"2.0","id":1,"method":"a","Method":"b"}`, CodeInvalidRequest},
		"case of name":          {`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","NAME":"b"}}`, CodeInvalidRequest},
		"two names":             {`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}`, CodeInvalidRequest},
		"two metas":             {`{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{},"_meta":{}}}`, CodeInvalidRequest},
		"two progress tokens":   {`{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"progressToken":1,"progressToken":2}}}`, CodeInvalidRequest},
		"id an object":          {`{"jsonrpc":"2.0","id":{},"method":"a"}`, CodeInvalidRequest},
		"id null":               {`{"jsonrpc":"2.0","id":null,"method":"a"}`, CodeInvalidRequest},
		"method empty":          {`{"jsonrpc":"2.0","id":1,"method":""}`, CodeInvalidRequest},
		"method no string":      {`{"jsonrpc":"2.0","id":1,"method":["a"]}`, CodeInvalidRequest},
		"params a string":       {`{"jsonrpc":"2.0","id":1,"method":"a","params":"x"}`, CodeInvalidRequest},
		"request with result":   {`{"jsonrpc":"2.0","id":1,"method":"a","result":{}}`, CodeInvalidRequest},
		"result and error":      {`{"jsonrpc":"2.0","id":1,"result":{},"error":{}}`, CodeInvalidRequest},
		"answer without id":     {`{"jsonrpc":"2.0","result":{}}`, CodeInvalidRequest},
		"nothing":               {`{"jsonrpc":"2.0","id":1}`, CodeInvalidRequest},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse([]byte(tt.raw))
			if err == nil {
				t.Fatal("no error")
			}
			if got := CodeOf(err); got != tt.code {
				t.Errorf("code %d (%v), want %d", got, err, tt.code)
			}
		})
	}
}

func TestSpliceChangesNothingButTheSpans(t *testing.T) {
	t.Parallel()
	raw := []byte(`{"jsonrpc":"2.0", "id":  "old" ,"method":"tools/call","params":{ "name":"repos_list", "arguments":{"z":1.50}}}`)
	m, err := Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	got := string(Splice(raw, Edit{m.ID, []byte("42")}, Edit{Span{}, []byte("never")}, Edit{m.Name, AppendString(nil, `li"st`)}))
	want := `{"jsonrpc":"2.0", "id":  42 ,"method":"tools/call","params":{ "name":"li\"st", "arguments":{"z":1.50}}}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestBatchIsSplitWithinItsBound(t *testing.T) {
	t.Parallel()
	raw := []byte(` [ {"a":1} , 2,"x"] `)
	if !IsBatch(raw) {
		t.Fatal("no batch")
	}
	spans, err := Batch(raw, 3)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range spans {
		got = append(got, string(s.Of(raw)))
	}
	if diff := cmp.Diff([]string{`{"a":1}`, "2", `"x"`}, got); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{`[]`, `[1,2,3,4]`} {
		if _, err := Batch([]byte(bad), 3); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: error %v, want ErrInvalid", bad, err)
		}
	}
}

func TestFindWalksIntoNestedMembers(t *testing.T) {
	t.Parallel()
	raw := []byte(`{"a":{"b\u0063":[{"x":1},{"x":2}]},"n":null}`)
	whole, err := Whole(raw)
	if err != nil {
		t.Fatal(err)
	}
	list := Find(raw, whole, "a", "bc")
	var got []string
	if err := Elements(raw, list, func(v Span) error {
		got = append(got, string(Find(raw, v, "x").Of(raw)))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"1", "2"}, got); diff != "" {
		t.Error(diff)
	}
	if !Find(raw, whole, "a", "missing").IsZero() || !Find(raw, whole, "n", "x").IsZero() {
		t.Error("found what is not there")
	}
}

func TestAnswersAreJSONWhateverTheTextHolds(t *testing.T) {
	t.Parallel()
	text := "a \"quoted\" \n\x00 \xff text <script>"
	for name, raw := range map[string][]byte{
		"error":      AppendError(nil, nil, CodeInternal, text, []byte(`{"backend":"x"}`)),
		"tool error": AppendToolError(nil, []byte(`"id"`), text, true),
		"result":     AppendResult(nil, []byte(`1`), []byte(`{}`)),
	} {
		if !json.Valid(raw) {
			t.Errorf("%s: not JSON: %s", name, raw)
		}
		if m, err := Parse(raw); err != nil || !m.IsResponse() {
			t.Errorf("%s: not a response: %v: %s", name, err, raw)
		}
	}
}

// FuzzParse checks the scanner against encoding/json, which nobody here wrote.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","_meta":{"progressToken":1}}}`,
		`[{"jsonrpc":"2.0"}]`, `{"a":"\ud800","b":[1e5,-0.1,true,false,null]}`, `{"a"`, "\xff", `"\u12`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		span, err := Whole(raw)
		if err == nil && !json.Valid(raw) {
			t.Fatalf("accepted what is not JSON: %q", raw)
		}
		m, perr := Parse(raw)
		if perr != nil {
			return
		}
		if err != nil {
			t.Fatalf("Parse accepted what Whole did not: %q", raw)
		}
		var all map[string]json.RawMessage
		if err := json.Unmarshal(span.Of(raw), &all); err != nil {
			t.Fatalf("encoding/json refuses %q: %v", raw, err)
		}
		if id := string(all["id"]); id != string(m.RawID()) {
			t.Fatalf("id %q, encoding/json reads %q", m.RawID(), id)
		}
		var method string
		if text, ok := all["method"]; ok && json.Unmarshal(text, &method) == nil && method != m.Method {
			t.Fatalf("method %q, encoding/json reads %q", m.Method, method)
		}
		if out := Splice(raw, Edit{m.ID, []byte("99")}); !json.Valid(out) {
			t.Fatalf("splicing broke %q: %q", raw, out)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	raw := []byte(`{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"search","arguments":{"query":"` +
		strings.Repeat("lorem ipsum ", 80) + `","limit":20},"_meta":{"progressToken":7}}}`)
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func TestEscapedLineEndsAreTheSameMessage(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`{"a":"plain – “text”"}`:           `{"a":"plain – “text”"}`,
		"{\"a\":\"x\u2028y\u2029\u0085\"}": `{"a":"x\u2028y\u2029\u0085"}`,
	} {
		got := EscapeLineEnds([]byte(in))
		if string(got) != want {
			t.Errorf("EscapeLineEnds(%q) = %q, want %q", in, got, want)
		}
		var before, after map[string]string
		if json.Unmarshal([]byte(in), &before) != nil || json.Unmarshal(got, &after) != nil || before["a"] != after["a"] {
			t.Errorf("%q says something else than before: %q", got, after)
		}
	}
}
