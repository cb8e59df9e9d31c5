package aggregate_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// What clients other than the SDK's see: the statuses, headers and bodies of
// both eras, in testdata/wire.golden.
func TestTheWireIsWhatTheProtocolSays(t *testing.T) {
	t.Parallel()
	shown := &mcp.ServerOptions{Instructions: "Ask for issues.", Capabilities: &mcp.ServerCapabilities{}}
	legacy := newServer(t, "legacy", serverOptions{json: true, mcp: shown}).echo("get").resource("l://x")
	modern := newServer(t, "modern", serverOptions{stateless: true, only: true, json: true, mcp: shown}).echo("get").resource("m://x").prompt("p")
	h := newHouse(t, 1, legacy, modern)
	session := h.open(t, "alice", eraSession)

	meta := func(version, rest string) string {
		return `"_meta":{"io.modelcontextprotocol/protocolVersion":"` + version + `"` + rest + `}`
	}
	full := meta(eraStateless, `,"io.modelcontextprotocol/clientCapabilities":{}`)
	request := func(method, params string) string {
		return `{"jsonrpc":"2.0","id":1,"method":"` + method + `","params":{` + params + `}}`
	}
	modernHeaders := func(method string, more ...string) []string {
		return append([]string{"Mcp-Protocol-Version", eraStateless, "Mcp-Method", method}, more...)
	}
	inSession := []string{"Mcp-Session-Id", session}
	initialize := func(version string) string {
		return request("initialize", `"protocolVersion":"`+version+`","capabilities":{},"clientInfo":{"name":"c","version":"1"}`)
	}
	steps := []struct {
		name, method, body string
		header             []string
	}{
		{"initialize with the oldest version", "POST", initialize("2025-03-26"), nil},
		{"initialize with a version that nobody knows", "POST", initialize("2031-01-01"), nil},
		{"initialize with the stateless version", "POST", initialize(eraStateless), nil},
		{"initialize without a version", "POST", request("initialize", ""), nil},
		{"ping", "POST", ping, inSession},
		{"ping without a session", "POST", ping, nil},
		{"a header version that nobody knows", "POST", ping, append([]string{"Mcp-Protocol-Version", "2024-01-01"}, inSession...)},
		{"an unknown method", "POST", request("tools/steal", ""), inSession},
		{"an unknown tool", "POST", request("tools/call", `"name":"nobody_get"`), inSession},
		{"a tool without a name", "POST", request("tools/call", ""), inSession},
		{"an unknown resource", "POST", request("resources/read", `"uri":"nobody://x"`), inSession},
		{"a completion of nothing", "POST", request("completion/complete", `"ref":{"type":"ref/odd"}`), inSession},
		{"tools", "POST", listing, inSession},
		{"a cursor that is not ours", "POST", request("tools/list", `"cursor":"AAAA"`), inSession},
		{"a call of a session backend", "POST", request("tools/call", `"name":"legacy_get","arguments":{}`), inSession},
		{"a call of a stateless backend", "POST", request("tools/call", `"name":"modern_get","arguments":{}`), inSession},
		{"reading from a stateless backend", "POST", request("resources/read", `"uri":"m://x"`), inSession},
		{"a notification", "POST", `{"jsonrpc":"2.0","method":"notifications/initialized"}`, inSession},
		{"a notification that nobody knows", "POST", `{"jsonrpc":"2.0","method":"notifications/odd"}`, inSession},
		{"no JSON", "POST", `{"jsonrpc"`, inSession},
		{"no JSON-RPC", "POST", `{"id":7}`, inSession},
		{"a null id", "POST", `{"jsonrpc":"2.0","id":null,"method":"ping"}`, inSession},
		{"a name in two cases", "POST", request("tools/call", `"name":"legacy_get","NAME":"modern_get"`), inSession},
		{"a batch", "POST", `[` + ping + `]`, inSession},
		{"another content type", "POST", ping, append([]string{"Content-Type", "text/plain"}, inSession...)},
		{"a client that takes JSON alone", "POST", ping, append([]string{"Accept", "application/json"}, inSession...)},
		{"another HTTP method", "PUT", ping, inSession},

		{"stateless: discover", "POST", request("server/discover", full), modernHeaders("server/discover")},
		{"stateless: tools", "POST", request("tools/list", full), modernHeaders("tools/list")},
		{"stateless: prompts", "POST", request("prompts/list", full), modernHeaders("prompts/list")},
		{"stateless: resources", "POST", request("resources/list", full), modernHeaders("resources/list")},
		{"stateless: a call of a session backend", "POST", request("tools/call", `"name":"legacy_get","arguments":{},`+full), modernHeaders("tools/call", "Mcp-Name", "legacy_get")},
		{"stateless: a call of a stateless backend", "POST", request("tools/call", `"name":"modern_get","arguments":{},`+full), modernHeaders("tools/call", "Mcp-Name", "modern_get")},
		{"stateless: a wrapped name in the header", "POST", request("tools/call", `"name":"modern_get","arguments":{},`+full), modernHeaders("tools/call", "Mcp-Name", "=?base64?bW9kZXJuX2dldA==?=")},
		{"stateless: reading from a session backend", "POST", request("resources/read", `"uri":"l://x",`+full), modernHeaders("resources/read", "Mcp-Name", "l://x")},
		{"stateless: a tool that the backend does not have", "POST", request("tools/call", `"name":"legacy_no","arguments":{},`+full), modernHeaders("tools/call", "Mcp-Name", "legacy_no")},
		{"stateless: an unknown tool", "POST", request("tools/call", `"name":"nobody_get",`+full), modernHeaders("tools/call", "Mcp-Name", "nobody_get")},
		{"stateless: listening", "POST", request("subscriptions/listen", `"notifications":{"toolsListChanged":true},`+full), modernHeaders("subscriptions/listen")},
		{"stateless: no version header", "POST", request("tools/list", full), []string{"Mcp-Method", "tools/list"}},
		{"stateless: no version in _meta", "POST", request("tools/list", ""), modernHeaders("tools/list")},
		{"stateless: two versions", "POST", request("tools/list", meta("2026-08-01", "")), modernHeaders("tools/list")},
		{"stateless: an unsupported version", "POST", request("server/discover", meta("2027-01-01", "")), []string{"Mcp-Protocol-Version", "2027-01-01", "Mcp-Method", "server/discover"}},
		{"stateless: no capabilities", "POST", request("tools/list", meta(eraStateless, "")), modernHeaders("tools/list")},
		{"stateless: info that is no object", "POST", request("tools/list", meta(eraStateless, `,"io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/clientInfo":1`)), modernHeaders("tools/list")},
		{"stateless: no method header", "POST", request("tools/list", full), []string{"Mcp-Protocol-Version", eraStateless}},
		{"stateless: another method header", "POST", request("tools/list", full), modernHeaders("tools/call")},
		{"stateless: no name header", "POST", request("tools/call", `"name":"modern_get",`+full), modernHeaders("tools/call")},
		{"stateless: another name header", "POST", request("tools/call", `"name":"modern_get",`+full), modernHeaders("tools/call", "Mcp-Name", "legacy_get")},
		{"stateless: an unknown method", "POST", request("tools/steal", full), modernHeaders("tools/steal")},
		{"stateless: a method of the other era", "POST", request("ping", full), modernHeaders("ping")},
		{"stateless: initialize", "POST", request("initialize", full), modernHeaders("initialize")},
		{"stateless: a notification", "POST", `{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}`, []string{"Mcp-Protocol-Version", eraStateless}},
		{"stateless: GET", "GET", "", []string{"Mcp-Protocol-Version", eraStateless}},
		{"stateless: DELETE", "DELETE", "", []string{"Mcp-Protocol-Version", eraStateless}},
	}
	var got strings.Builder
	for _, step := range steps {
		a := h.do(t, step.method, step.body, step.header...)
		fmt.Fprintf(&got, "== %s\n> %s %s\n< %d %s\n", step.name, step.method, step.body, a.status, a.header.Get("Content-Type"))
		if a.header.Get("Mcp-Session-Id") != "" {
			got.WriteString("< Mcp-Session-Id: (sealed)\n")
		}
		for line := range strings.Lines(a.body) {
			got.WriteString("< " + strings.TrimRight(line, "\n") + "\n")
		}
		got.WriteString("\n")
	}
	golden(t, "wire.golden", got.String())
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := string(raw)
	if got == want {
		return
	}
	gotLines, wantLines := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(gotLines), len(wantLines)) {
		g, w := at(gotLines, i), at(wantLines, i)
		if g != w {
			t.Fatalf("%s, line %d:\n got %s\nwant %s\nafter a change that is meant: go test -update", path, i+1, g, w)
		}
	}
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(end)"
}
