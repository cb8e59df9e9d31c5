package app

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/services/gateway/internal/gatewaytest"
)

// edit replaces the resources in one step.
func (g *running) edit(t *testing.T, change func(string) string) {
	t.Helper()
	text, err := os.ReadFile(g.resources)
	if err != nil {
		t.Fatal(err)
	}
	write(t, g.resources+".new", change(string(text)))
	if err := os.Rename(g.resources+".new", g.resources); err != nil {
		t.Fatal(err)
	}
}

// addBackend makes another entry of the one that is called status.
func addBackend(name string) func(string) string {
	return func(text string) string {
		i := strings.Index(text, "---\napiVersion: chatelaine.dev/v1alpha1\nkind: MCPServerEntry\nmetadata: {name: status}")
		entry, _, _ := strings.Cut(text[i+4:], "---\n")
		return text + "---\n" + strings.Replace(entry, "{name: status}", "{name: "+name+"}", 1)
	}
}

func (g *running) await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not so: %s", what)
		}
	}
}

func (g *running) metric(t *testing.T, line string) func() bool {
	return func() bool {
		_, metrics := get(t, "http://"+g.admin+"/metrics", "")
		return strings.Contains(metrics, "\n"+line+"\n")
	}
}

func TestAnEditOfTheResourcesDropsNoStream(t *testing.T) {
	push := make(chan string)
	inner := backendServer()
	g := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			inner.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		flusher := http.NewResponseController(w)
		_ = flusher.Flush()
		for {
			select {
			case <-r.Context().Done():
				return
			case text := <-push:
				fmt.Fprintf(w, "data: {\"jsonrpc\":\"2.0\",\"method\":\"%s\"}\n\n", text)
				_ = flusher.Flush()
			}
		}
	}))
	g.broker.Set("news", gatewaytest.Backend{Static: true})
	var brokerHasIt atomic.Bool
	first := true
	var digest string
	g.broker.Configs(func(d string) bool {
		if first {
			first, digest = false, d
		}
		return d == digest || brokerHasIt.Load()
	})
	token := g.issuer.Token("alice", "session-1", "http://"+g.public+"/mcp", nil)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+g.public+"/mcp/repos", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	stream := bufio.NewScanner(resp.Body)
	read := func(want string) {
		t.Helper()
		push <- want
		for stream.Scan() {
			if strings.Contains(stream.Text(), want) {
				return
			}
		}
		t.Fatalf("the stream ended before %q: %v", want, stream.Err())
	}
	read("notifications/before")

	g.edit(t, addBackend("news"))
	g.await(t, "the edit is noticed, and the broker does not have it", g.metric(t, "chatelaine_config_current 0"))
	if status, _ := get(t, "http://"+g.public+"/mcp/news", token); status != http.StatusNotFound {
		t.Errorf("before the broker has it: %d", status)
	}
	if got := g.call(t, "/mcp/status", "whoami"); got != "" {
		t.Errorf("before the broker has it: %q", got)
	}
	brokerHasIt.Store(true)
	g.await(t, "the edit is in use", g.metric(t, "chatelaine_config_current 1"))
	if got := g.call(t, "/mcp/news", "whoami"); got != "" {
		t.Errorf("the new backend saw %q", got)
	}
	if got, want := g.call(t, "/mcp/repos", "whoami"), "Bearer "+gatewaytest.Token("alice", "repos", 1); got != want {
		t.Errorf("an old backend saw %q, want %q", got, want)
	}
	read("notifications/after") // on the stream that began before
	g.broker.EndSession("session-1")
	if stream.Scan(); stream.Scan() {
		for stream.Scan() {
		}
	}
	if err := stream.Err(); err != nil {
		t.Errorf("the old stream does not hear that its session ended: %v", err)
	}
}

func TestASetThatCannotBeUsedKeepsTheLastOneServing(t *testing.T) {
	g := start(t, backendServer())
	g.edit(t, func(text string) string { return text + "---\nkind: Nonsense\n" })
	g.await(t, "the bad set is noticed", g.metric(t, "chatelaine_config_current 0"))
	if got := g.call(t, "/mcp/status", "whoami"); got != "" {
		t.Errorf("the backend saw %q", got)
	}
	if status, body := get(t, "http://"+g.admin+"/readyz", ""); status != http.StatusOK {
		t.Errorf("a replica that serves is not ready: %d %s", status, body)
	}
	g.edit(t, func(text string) string { return addBackend("news")(strings.TrimSuffix(text, "---\nkind: Nonsense\n")) })
	g.broker.Set("news", gatewaytest.Backend{Static: true})
	g.await(t, "the corrected set is in use", g.metric(t, "chatelaine_config_current 1"))
	session, err := mcp.NewClient(&mcp.Implementation{Name: "client", Version: "1"}, nil).Connect(t.Context(), &mcp.StreamableClientTransport{
		Endpoint:   "http://" + g.public + "/mcp",
		HTTPClient: &http.Client{Transport: withToken(g.issuer.Token("alice", "session-1", "http://"+g.public+"/mcp", nil))},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	if result, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: "news_whoami"}); err != nil || result.IsError {
		t.Errorf("the new backend at /mcp: %v", err)
	}
}

// An alert looks at the watch's metric: it must speak of the resources that serve.
func TestARefusedEditDoesNotLookLikeALostWatch(t *testing.T) {
	g := start(t, backendServer())
	g.broker.Set("news", gatewaytest.Backend{Static: true})
	watched := g.metric(t, "chatelaine_gateway_session_watch_fresh 1")
	g.await(t, "sessions are watched", watched)
	stays := func(why string) {
		t.Helper()
		g.await(t, why, g.metric(t, "chatelaine_config_current 0"))
		if !watched() {
			t.Errorf("%s: the gateway says that nobody tells it of sessions", why)
		}
	}
	set, report := config.Load(filepath.Dir(g.resources))
	if err := report.Err(); err != nil {
		t.Fatal(err)
	}
	g.broker.Configs(func(digest string) bool { return digest == set.Digest() })
	g.edit(t, addBackend("news"))
	stays("the broker does not have the edit")
	g.broker.Configs(func(string) bool { return true })
	g.await(t, "the edit is in use", g.metric(t, "chatelaine_config_current 1"))
	g.edit(t, func(text string) string {
		return strings.Replace(text, "transport: streamable-http", "transport: streamable-http, caBundleRef: {configMapRef: {name: nowhere, key: ca}}", 1)
	})
	stays("a secret of the edit is not there")
}
