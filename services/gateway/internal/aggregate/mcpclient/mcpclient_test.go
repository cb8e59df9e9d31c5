package mcpclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/gateway/internal/aggregate/era"
	"chatelaine.dev/services/gateway/internal/backend"
	"chatelaine.dev/services/gateway/internal/caller"
	"chatelaine.dev/services/gateway/internal/jsonrpc"
	"chatelaine.dev/services/gateway/internal/sessionid"
)

// direct sends requests as they are: there are no credentials here.
type direct struct{ client *http.Client }

func (d direct) Do(ctx context.Context, _ *caller.Caller, b *config.Backend, r *backend.Request) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, r.Method, b.RemoteURL, bytes.NewReader(r.Body))
	if err != nil {
		return nil, err
	}
	req.Header = r.Header
	resp, err := d.client.Do(req)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "unreachable").WithReason(backend.ReasonUnavailable)
	}
	return resp, nil
}

// script answers by method: "status content-type body", with $ID for the id.
type script struct {
	mu      sync.Mutex
	answers map[string]string
	session string
	methods []string
	last    string // body
}

func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body bytes.Buffer
	_, _ = body.ReadFrom(r.Body)
	m, _ := jsonrpc.Parse(body.Bytes())
	method := m.Method
	if r.Method != http.MethodPost {
		method = r.Method
	}
	s.mu.Lock()
	s.methods = append(s.methods, method)
	s.last = body.String()
	s.mu.Unlock()
	answer, ok := s.answers[method]
	if !ok {
		answer = "404 text/plain not found"
	}
	parts := strings.SplitN(answer, " ", 3)
	var status int
	_, _ = fmt.Sscan(parts[0], &status)
	w.Header().Set("Content-Type", parts[1])
	if s.session != "" {
		w.Header().Set(era.HeaderSession, s.session)
	}
	w.WriteHeader(status)
	_, _ = w.Write([]byte(strings.ReplaceAll(parts[2], "$ID", string(m.RawID()))))
}

func serve(t *testing.T, s *script) (*Client, Target) {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return New(direct{server.Client()}, "v1.2.3", nil), Target{Caller: caller.AnonymousCaller(), Backend: &config.Backend{Name: "repos", RemoteURL: server.URL}}
}

const (
	initialized = `200 application/json {"jsonrpc":"2.0","id":$ID,"result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{"listChanged":true},"resources":{"subscribe":true},"logging":{}},"instructions":"hi"}}`
	discovered  = `200 application/json {"jsonrpc":"2.0","id":$ID,"result":{"supportedVersions":["2026-07-28"],"capabilities":{"prompts":{}}}}`
	accepted    = `202 text/plain `
	unknown     = `200 application/json {"jsonrpc":"2.0","id":$ID,"error":{"code":-32601,"message":"no such method"}}`
)

func TestTheEraOfABackendIsFoundOut(t *testing.T) {
	t.Parallel()
	streamed := "200 text/event-stream id: 1\ndata:\n\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\"}\n\nevent: message\ndata: " +
		strings.SplitN(initialized, " ", 3)[2] + "\n\n"
	tests := []struct {
		name    string
		answers map[string]string
		reach   bool // a client without a session
		version string
		methods []string
	}{
		{"session client, session backend", map[string]string{"initialize": initialized}, false, "2025-06-18", []string{"initialize"}},
		{"its answer is a stream", map[string]string{"initialize": streamed}, false, "2025-06-18", []string{"initialize"}},
		{"session client, stateless backend", map[string]string{"initialize": "400 text/plain no", "server/discover": discovered}, false, "2026-07-28", []string{"initialize", "server/discover"}},
		{"it says so in JSON-RPC", map[string]string{"initialize": unknown, "server/discover": discovered}, false, "2026-07-28", []string{"initialize", "server/discover"}},
		{"it says so with a null id", map[string]string{"initialize": `400 application/json {"jsonrpc":"2.0","id":null,"error":{"code":-32022,"message":"x"}}`, "server/discover": discovered}, false, "2026-07-28", []string{"initialize", "server/discover"}},
		{"too many requests are no era", map[string]string{"initialize": "429 text/plain no", "server/discover": discovered}, false, "", []string{"initialize"}},
		{"nor is a failure", map[string]string{"initialize": "503 text/plain no", "server/discover": discovered}, false, "", []string{"initialize"}},
		{"no MCP server at all", nil, false, "", []string{"initialize", "server/discover"}},

		{"stateless client, stateless backend", map[string]string{"server/discover": discovered}, true, "2026-07-28", []string{"server/discover"}},
		{"stateless client, session backend", map[string]string{"initialize": initialized, "notifications/initialized": accepted}, true, "2025-06-18", []string{"server/discover", "initialize", "notifications/initialized"}},
		{"it answers with an error", map[string]string{"server/discover": unknown, "initialize": initialized, "notifications/initialized": accepted}, true, "2025-06-18", []string{"server/discover", "initialize", "notifications/initialized"}},
		{"it knows discovery and nothing of the era", map[string]string{
			"server/discover": strings.Replace(discovered, "2026-07-28", "2025-11-25", 1), "initialize": initialized, "notifications/initialized": accepted,
		}, true, "2025-06-18", []string{"server/discover", "initialize", "notifications/initialized"}},
		{"it breaks on what it does not know", map[string]string{"server/discover": "500 text/plain oops", "initialize": initialized, "notifications/initialized": accepted}, true, "2025-06-18", []string{"server/discover", "initialize", "notifications/initialized"}},
		{"too many requests", map[string]string{"server/discover": "429 text/plain no", "initialize": initialized}, true, "", []string{"server/discover"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := &script{answers: tt.answers}
			c, to := serve(t, s)
			find := c.Join
			if tt.reach {
				find = c.Reach
			}
			peer, err := find(t.Context(), to, Hello{Version: "2025-11-25"})
			if !slices.Equal(s.methods, tt.methods) {
				t.Errorf("the backend was asked %v, want %v", s.methods, tt.methods)
			}
			if tt.version == "" {
				f, ok := fault.As(err)
				if !ok || f.Metadata["backend"] != "repos" {
					t.Errorf("the error is %v, want a fault that names the backend", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if peer.Version != tt.version {
				t.Errorf("the version is %s, want %s", peer.Version, tt.version)
			}
		})
	}
}

func TestWhatABackendOffersIsRead(t *testing.T) {
	t.Parallel()
	s := &script{answers: map[string]string{"initialize": initialized}, session: "abc"}
	c, to := serve(t, s)
	peer, err := c.Initialize(t.Context(), to, Hello{Version: "2025-11-25"})
	if err != nil {
		t.Fatal(err)
	}
	want := Peer{Version: "2025-06-18", SessionID: "abc", Origin: sessionid.OriginOf(to.Backend.Origin), Features: Tools | ToolsChanged | Resources | Subscribe | Logging, Instructions: "hi"}
	if *peer != want {
		t.Errorf("the peer is %+v, want %+v", *peer, want)
	}
	if want := `"clientInfo":{"name":"chatelaine-gateway","version":"v1.2.3"}`; !strings.Contains(s.last, want) {
		t.Errorf("the backend does not learn which gateway calls: %s", s.last)
	}
}

func TestAnAnswerThatMakesNoSenseIsRefused(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxSessionID+1)
	for name, s := range map[string]*script{
		"a version that we do not speak":    {answers: map[string]string{"initialize": strings.Replace(initialized, "2025-06-18", "2019-01-01", 1)}},
		"a stateless version":               {answers: map[string]string{"initialize": strings.Replace(initialized, "2025-06-18", "2026-07-28", 1)}},
		"a session id that is too long":     {answers: map[string]string{"initialize": initialized}, session: long},
		"a session id that is not visible":  {answers: map[string]string{"initialize": initialized}, session: "a\tb"},
		"the answer to another request":     {answers: map[string]string{"initialize": strings.Replace(initialized, "$ID", "7", 1)}},
		"a request":                         {answers: map[string]string{"initialize": `200 application/json {"jsonrpc":"2.0","id":$ID,"method":"ping"}`}},
		"no JSON":                           {answers: map[string]string{"initialize": "200 application/json <html>"}},
		"an answer that is too large":       {answers: map[string]string{"initialize": initialized + strings.Repeat(" ", 5000)}},
		"an event that is too large":        {answers: map[string]string{"initialize": "200 text/event-stream data: " + strings.Repeat("x", 5000) + "\n\n"}},
		"a stream without the answer":       {answers: map[string]string{"initialize": "200 text/event-stream data: {\"jsonrpc\":\"2.0\",\"method\":\"x\"}\n\n"}},
		"an answer that there should be":    {answers: map[string]string{"initialize": accepted}},
		"a stream that is cut within JSON":  {answers: map[string]string{"initialize": "200 text/event-stream data: {\"jsonrpc\""}},
		"a stream with something else":      {answers: map[string]string{"initialize": "200 text/event-stream data: hello\n\n"}},
		"an error page of a megabyte":       {answers: map[string]string{"initialize": "503 text/html " + strings.Repeat("x", 2<<20)}},
		"an object that is no answer (404)": {answers: map[string]string{"initialize": `503 application/json {"jsonrpc":"2.0","id":1,"result":{}}`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, to := serve(t, s)
			c.maxMessage = 4096
			peer, err := c.Initialize(t.Context(), to, Hello{Version: "2025-11-25"})
			f, ok := fault.As(err)
			if !ok || f.Kind != fault.Unavailable || !strings.Contains(f.Error(), "repos") {
				t.Errorf("Initialize() = %+v, %v; want an error that names the backend", peer, err)
			}
		})
	}
}

func TestABackendThatNeverAnswersIsLeft(t *testing.T) {
	t.Parallel()
	over := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		<-over
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(over) })
	c := New(direct{server.Client()}, "v1.2.3", nil)
	ctx, cancel := context.WithTimeout(t.Context(), 50_000_000)
	defer cancel()
	_, err := c.Initialize(ctx, Target{Caller: caller.AnonymousCaller(), Backend: &config.Backend{Name: "repos", RemoteURL: server.URL}}, Hello{})
	if fault.KindOf(err) != fault.Timeout {
		t.Errorf("the error is %v, want a timeout", err)
	}
}

func TestALostSessionIsToldFromAMissingPath(t *testing.T) {
	t.Parallel()
	c, to := serve(t, &script{})
	head := Head{Method: "tools/list"}
	if _, err := c.Ask(t.Context(), to, &Peer{Version: "2025-06-18", SessionID: "s"}, head, nil); !errors.Is(err, ErrSessionLost) {
		t.Errorf("404 to a session: %v", err)
	}
	_, err := c.Ask(t.Context(), to, &Peer{Version: "2025-06-18"}, head, nil)
	if f, ok := fault.As(err); !ok || f.Reason != ReasonStatus {
		t.Errorf("404 without a session: %v", err)
	}
}

func TestEndingASession(t *testing.T) {
	t.Parallel()
	for answer, fails := range map[string]bool{"204 text/plain ": false, "404 text/plain ": false, "405 text/plain ": false, "500 text/plain ": true} {
		c, to := serve(t, &script{answers: map[string]string{"DELETE": answer}})
		if err := c.End(t.Context(), to, &Peer{Version: "2025-06-18", SessionID: "s"}); (err != nil) != fails {
			t.Errorf("%s: %v", answer, err)
		}
	}
	s := &script{}
	c, to := serve(t, s)
	if err := c.End(t.Context(), to, &Peer{Version: "2025-06-18"}); err != nil || len(s.methods) != 0 {
		t.Errorf("without a session: %v, %v", err, s.methods)
	}
}
