package aggregate_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/keyring"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/internal/telemetry"
	"chatelaine.dev/services/gateway/internal/aggregate"
	"chatelaine.dev/services/gateway/internal/backend"
	"chatelaine.dev/services/gateway/internal/caller"
)

const patience = 20 * time.Second

// server is a real MCP server behind the gateway.
type server struct {
	name string
	mcp  *mcp.Server
	http *httptest.Server
	// handler is exchanged for restarts.
	handler atomic.Pointer[http.Handler]

	mu       sync.Mutex
	requests []recorded
}

type recorded struct {
	method string
	header http.Header
	body   string
}

type serverOptions struct {
	// stateless servers keep no sessions, but answer to initialize.
	stateless bool
	// only: initialize is refused, as by a server that speaks 2026-07-28 alone.
	only   bool
	cancel bool // a closed stream cancels
	json   bool
	events bool
	mcp    *mcp.ServerOptions
}

func newServer(t *testing.T, name string, opts serverOptions) *server {
	t.Helper()
	s := &server{name: name, mcp: mcp.NewServer(&mcp.Implementation{Name: name, Version: "1"}, opts.mcp)}
	s.start(opts)
	s.http = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(func() {
		s.http.CloseClientConnections()
		s.http.Close()
	})
	return s
}

// start puts a new handler in place, which knows no sessions.
func (s *server) start(opts serverOptions) {
	o := &mcp.StreamableHTTPOptions{
		Stateless: opts.stateless, JSONResponse: opts.json, DisableLocalhostProtection: true,
		Logger: slog.New(slog.DiscardHandler), PropagateRequestCancellation: opts.cancel,
	}
	if opts.events {
		o.EventStore = mcp.NewMemoryEventStore(nil)
	}
	var h http.Handler = mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return s.mcp }, o)
	if opts.only {
		h = statelessOnly(h)
	}
	s.handler.Store(&h)
}

// statelessOnly refuses what the SDK's server, which speaks both eras, would take.
func statelessOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Mcp-Protocol-Version") != eraStateless {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":null,"error":{"code":-32022,"message":"unsupported protocol version","data":{"supported":["2026-07-28"],"requested":""}}}`)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *server) use(h http.Handler) { s.handler.Store(&h) }

func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	s.mu.Lock()
	s.requests = append(s.requests, recorded{r.Method, r.Header.Clone(), string(body)})
	s.mu.Unlock()
	(*s.handler.Load()).ServeHTTP(w, r)
}

// count returns how many requests had text in their body.
func (s *server) count(text string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, r := range s.requests {
		if strings.Contains(r.body, text) {
			n++
		}
	}
	return n
}

func (s *server) last(text string) recorded {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range slices.Backward(s.requests) {
		if strings.Contains(r.body, text) {
			return r
		}
	}
	return recorded{}
}

func (s *server) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = nil
}

func (s *server) total() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, r := range s.requests {
		if r.method != http.MethodGet { // the merged stream comes and goes on its own
			n++
		}
	}
	return n
}

type echoIn struct {
	Text string `json:"text,omitempty"`
}

// echo adds a tool that says who answers.
func (s *server) echo(tool string) *server {
	mcp.AddTool(s.mcp, &mcp.Tool{Name: tool}, func(_ context.Context, _ *mcp.CallToolRequest, in echoIn) (*mcp.CallToolResult, any, error) {
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: s.name + ":" + tool + ":" + in.Text}}}, nil, nil
	})
	return s
}

func (s *server) prompt(name string) *server {
	s.mcp.AddPrompt(&mcp.Prompt{Name: name}, func(context.Context, *mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
		return &mcp.GetPromptResult{Messages: []*mcp.PromptMessage{{Role: "user", Content: &mcp.TextContent{Text: s.name + ":" + name}}}}, nil
	})
	return s
}

func (s *server) resource(uri string) *server {
	s.mcp.AddResource(&mcp.Resource{Name: "r", URI: uri}, func(_ context.Context, r *mcp.ReadResourceRequest) (*mcp.ReadResourceResult, error) {
		return &mcp.ReadResourceResult{Contents: []*mcp.ResourceContents{{URI: r.Params.URI, Text: s.name + ":" + uri}}}, nil
	})
	return s
}

func (s *server) template(uri string) *server {
	s.mcp.AddResourceTemplate(&mcp.ResourceTemplate{Name: "t", URITemplate: uri}, func(_ context.Context, r *mcp.ReadResourceRequest) (*mcp.ReadResourceResult, error) {
		return &mcp.ReadResourceResult{Contents: []*mcp.ResourceContents{{URI: r.Params.URI, Text: s.name + ":" + uri}}}, nil
	})
	return s
}

// house is a gateway of several replicas, without what checks tokens.
type house struct {
	URL         string
	credentials *credentialsOf
	broker      *broker
	deployment  *config.Deployment
	replicas    []http.Handler
	logs        *logBuffer
}

type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// asUser names the person of a request; the real gateway has a bearer token for that.
const asUser = "X-Test-User"

// A person may be one whom another issuer knows, without a session of ours, or
// nobody.
const (
	external  = "external:"
	anonymous = "anonymous"
)

func newHouse(t *testing.T, replicas int, servers ...*server) *house {
	t.Helper()
	return newPatientHouse(t, 2*time.Second, replicas, servers...)
}

// newPatientHouse waits for handshakes and lists of one backend for some time.
func newPatientHouse(t *testing.T, wait time.Duration, replicas int, servers ...*server) *house {
	t.Helper()
	h := &house{credentials: &credentialsOf{}, broker: &broker{}, deployment: &config.Deployment{Name: "test"}, logs: &logBuffer{}}
	for _, s := range servers {
		h.deployment.Backends = append(h.deployment.Backends, config.Backend{
			Name: s.name, RemoteURL: s.http.URL + "/mcp", Origin: s.http.URL, Transport: "streamable-http",
			Strategy: config.Strategy{Type: config.StrategyUpstreamInject, UpstreamInject: &config.UpstreamInjectStrategy{Provider: "p-" + s.name}},
		})
	}
	slices.SortFunc(h.deployment.Backends, func(a, b config.Backend) int { return strings.Compare(a.Name, b.Name) })
	tel := telemetry.Discard()
	tel.Logger = slog.New(slog.NewTextHandler(h.logs, nil))
	backends, err := backend.New(backend.Config{Backends: h.deployment.Backends, Credentials: h.credentials, Telemetry: tel})
	if err != nil {
		t.Fatal(err)
	}
	for range replicas {
		ring, err := keyring.New(secret.NewBytes(bytes.Repeat([]byte{7}, keyring.KeySize)))
		if err != nil {
			t.Fatal(err)
		}
		handler, err := aggregate.New(aggregate.Config{
			Deployment: h.deployment, Backends: backends, Credentials: h.credentials, Sessions: h.broker, Ring: ring, Telemetry: tel, Version: "test",
			HandshakeTimeout: wait, ListTimeout: wait,
		})
		if err != nil {
			t.Fatal(err)
		}
		h.replicas = append(h.replicas, handler)
	}
	var turn atomic.Int64
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user := r.Header.Get(asUser)
		if user == "" {
			user = "alice"
		}
		claims := caller.Claims{Issuer: "https://issuer", Subject: user, SessionID: "login-" + user, ClientID: "client"}
		if name, ok := strings.CutPrefix(user, external); ok {
			claims.Subject, claims.SessionID = name, ""
		}
		who := caller.New(claims, secret.New("token-"+user))
		if user == anonymous {
			who = caller.AnonymousCaller()
		}
		r = r.WithContext(caller.NewContext(r.Context(), who))
		h.replicas[int(turn.Add(1))%len(h.replicas)].ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		front.CloseClientConnections()
		front.Close()
	})
	h.URL = front.URL
	return h
}

// userTransport puts the person into each request.
type userTransport struct{ user string }

func (u userTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set(asUser, u.user)
	return http.DefaultTransport.RoundTrip(r)
}

const (
	eraSession   = "2025-11-25"
	eraStateless = "2026-07-28"
)

func eras() []string { return []string{eraSession, eraStateless} }

// connect is a real client of a version.
func (h *house) connect(t *testing.T, version, user string, opts *mcp.ClientOptions) *mcp.ClientSession {
	t.Helper()
	client := mcp.NewClient(&mcp.Implementation{Name: "agent", Version: "1"}, opts)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	session, err := client.Connect(ctx, &mcp.StreamableClientTransport{
		Endpoint: h.URL, HTTPClient: &http.Client{Transport: userTransport{user}}, MaxRetries: -1,
	}, &mcp.ClientSessionOptions{ProtocolVersion: version})
	if err != nil {
		t.Fatalf("connect: %v\n%s", err, h.logs)
	}
	t.Cleanup(func() { _ = session.Close() })
	if got := session.InitializeResult().ProtocolVersion; got != version {
		t.Fatalf("the client speaks %s, want %s", got, version)
	}
	return session
}

func textOf(t *testing.T, content []mcp.Content) string {
	t.Helper()
	if len(content) == 0 {
		t.Fatal("the result has no content")
	}
	text, ok := content[0].(*mcp.TextContent)
	if !ok {
		t.Fatalf("the result has a %T, want text", content[0])
	}
	return text.Text
}

func callTool(t *testing.T, s *mcp.ClientSession, name string, args any) *mcp.CallToolResult {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	res, err := s.CallTool(ctx, &mcp.CallToolParams{Name: name, Arguments: args})
	if err != nil {
		t.Fatalf("calling %s: %v", name, err)
	}
	return res
}

func toolNames(t *testing.T, s *mcp.ClientSession) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var names []string
	for tool, err := range s.Tools(ctx, nil) {
		if err != nil {
			t.Fatalf("listing tools: %v", err)
		}
		names = append(names, tool.Name)
	}
	slices.Sort(names)
	return names
}

func wantEqual[T comparable](t *testing.T, what string, got, want []T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting for: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// exchange is a raw HTTP request and its answer.
type answer struct {
	status int
	header http.Header
	body   string
}

func (h *house) do(t *testing.T, method, body string, header ...string) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, h.URL, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, text/event-stream")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, strings.TrimSpace(string(raw))}
}

// open returns the session id of a raw client of the session era.
func (h *house) open(t *testing.T, user, version string) string {
	t.Helper()
	a := h.do(t, http.MethodPost, fmt.Sprintf(`{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":%q,"capabilities":{},"clientInfo":{"name":"raw","version":"1"}}}`, version), asUser, user)
	id := a.header.Get("Mcp-Session-Id")
	if a.status != http.StatusOK || id == "" {
		t.Fatalf("initialize: %d %s", a.status, a.body)
	}
	return id
}
