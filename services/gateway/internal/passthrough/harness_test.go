package passthrough_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"chatelaine.dev/internal/bearer"
	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/keyring"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/internal/telemetry"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/gateway/internal/accesslog"
	"chatelaine.dev/services/gateway/internal/backend"
	"chatelaine.dev/services/gateway/internal/credentials"
	"chatelaine.dev/services/gateway/internal/gatewaytest"
	"chatelaine.dev/services/gateway/internal/limits"
	"chatelaine.dev/services/gateway/internal/passthrough"
	"chatelaine.dev/services/gateway/internal/resource"
	"chatelaine.dev/services/gateway/internal/sessionid"
	"chatelaine.dev/services/gateway/internal/streams"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// gateway is the whole way from the client to the backends, but for flags.
type gateway struct {
	t        testing.TB
	url      string
	issuer   *gatewaytest.Issuer
	broker   *gatewaytest.Broker
	streams  *streams.Streams
	manager  *credentials.Manager
	log      *lines
	audience string
}

// options of a gateway; the zero value is good.
type options struct {
	timeout time.Duration
	maxBody int64
	// transport of the client, to count what it sends.
	maxUnwatched time.Duration
	maxStreams   int
	memory       *limits.Memory
}

// newGateway serves backends, given as name and handler.
func newGateway(t testing.TB, opts options, backends map[string]http.Handler) *gateway {
	t.Helper()
	g := &gateway{t: t, issuer: gatewaytest.NewIssuer(t), broker: gatewaytest.NewBroker(t), log: &lines{}}
	server := httptest.NewUnstartedServer(nil)
	g.url = "http://" + server.Listener.Addr().String()
	g.audience = g.url + "/mcp"
	d := &config.Deployment{
		Name: "test", Mode: config.ModeAuthServer, Issuer: &config.TokenIssuer{URL: g.issuer.URL},
		Audience: g.audience, Scopes: []string{"openid"},
	}
	for name, handler := range backends {
		b := httptest.NewServer(handler)
		t.Cleanup(b.Close)
		g.broker.Set(name, gatewaytest.Backend{Origin: b.URL})
		d.Backends = append(d.Backends, config.Backend{
			Name: name, RemoteURL: b.URL + "/mcp", Origin: b.URL, Resource: g.audience + "/" + name,
			Strategy: config.Strategy{Type: config.StrategyUpstreamInject},
		})
	}
	server.Config.Handler = g.handler(d, opts)
	server.Start()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	eventually(t, "the watch of sessions is complete", g.manager.Fresh)
	return g
}

func (g *gateway) handler(d *config.Deployment, opts options) http.Handler {
	g.t.Helper()
	must := func(err error) {
		g.t.Helper()
		if err != nil {
			g.t.Fatal(fault.Detail(err))
		}
	}
	tel := telemetry.Discard()
	var err error
	tel.Logger, err = telemetry.NewLogger(g.log, "json", slog.LevelInfo)
	must(err)
	g.manager, err = credentials.New(credentials.Config{
		Broker: brokerv1.NewCredentialServiceClient(g.broker.Conn()), ConfigDigest: strings.Repeat("a", 64),
		Sessions: true, TokenLifetime: time.Hour, MaxUnwatched: opts.maxUnwatched, Telemetry: tel,
	})
	must(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = g.manager.Run(ctx) }()
	g.t.Cleanup(func() { cancel(); <-done })

	client, err := backend.New(backend.Config{Backends: d.Backends, Credentials: g.manager, Timeout: opts.timeout, Telemetry: tel})
	must(err)
	verifier, err := bearer.New(bearer.Config{Issuer: g.issuer.URL, JWKSURL: g.issuer.JWKSURL, Client: g.issuer.Client, Type: bearer.TypeAccessToken})
	must(err)
	resources, err := resource.New(resource.Config{Deployment: d, Verifier: verifier, Sessions: g.manager})
	must(err)
	ring, err := keyring.New(secret.NewBytes(bytes.Repeat([]byte{7}, keyring.KeySize)))
	must(err)
	log, err := accesslog.New(tel)
	must(err)
	g.streams, err = streams.New(streams.Config{MaxPerCaller: opts.maxStreams, Telemetry: tel})
	must(err)
	mux := http.NewServeMux()
	resources.Handle(mux)
	for i := range d.Backends {
		b := &d.Backends[i]
		mux.Handle("/mcp/"+b.Name, log.Wrap(b.Name, resources.Protect(b.Name, passthrough.New(passthrough.Config{
			Backend: b, Backends: client, Sessions: sessionid.NewSealer(ring), Challenger: resources,
			Streams: g.streams, MaxBody: opts.maxBody, Memory: opts.memory,
		}))))
	}
	return tel.Middleware(telemetry.HTTPConfig{Server: "public", Public: true, AccessLevel: slog.LevelDebug})(mux)
}

func (g *gateway) token(subject string) string {
	return g.issuer.Token(subject, "session-of-"+subject, g.audience, nil)
}

// bearerTransport adds a token, and counts what it sends.
type bearerTransport struct {
	token string
	mu    sync.Mutex
	sent  []string
	ids   []string // session ids that came back
}

func (b *bearerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err == nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.sent = append(b.sent, r.Method)
		if id := resp.Header.Get("Mcp-Session-Id"); id != "" {
			b.ids = append(b.ids, id)
		}
	}
	return resp, err
}

// connect is a real client at a backend's endpoint.
func (g *gateway) connect(subject, name string, opts *mcp.ClientOptions) (*mcp.ClientSession, *bearerTransport) {
	g.t.Helper()
	transport := &bearerTransport{token: g.token(subject)}
	client := mcp.NewClient(&mcp.Implementation{Name: "client", Version: "1"}, opts)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	session, err := client.Connect(ctx, &mcp.StreamableClientTransport{
		Endpoint: g.url + "/mcp/" + name, HTTPClient: &http.Client{Transport: transport}, MaxRetries: -1,
	}, nil)
	if err != nil {
		g.t.Fatalf("connect: %v", err)
	}
	g.t.Cleanup(func() { _ = session.Close() })
	return session, transport
}

// answer is what do got.
type answer struct {
	status int
	header http.Header
	body   string
}

// do sends a raw request with a token of subject.
func (g *gateway) do(subject, method, path, body string, header map[string]string) answer {
	g.t.Helper()
	resp := g.open(g.t.Context(), subject, method, path, strings.NewReader(body), header)
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(content)}
}

// open sends a raw request and leaves the body to the caller.
func (g *gateway) open(ctx context.Context, subject, method, path string, body io.Reader, header map[string]string) *http.Response {
	g.t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, g.url+path, body)
	if err != nil {
		g.t.Fatal(err)
	}
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Accept", "application/json, text/event-stream")
	}
	if subject != "" {
		r.Header.Set("Authorization", "Bearer "+g.token(subject))
	}
	for name, value := range header {
		r.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		g.t.Fatal(err)
	}
	return resp
}

// lines collects the log.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("did not happen: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// mcpServer is a real MCP server with the tool "whoami", which tells the
// credential that it was called with, and "echo".
func mcpServer(opts *mcp.StreamableHTTPOptions, change func(*mcp.Server)) http.Handler {
	server := mcp.NewServer(&mcp.Implementation{Name: "backend", Version: "1"}, nil)
	type text struct {
		Text string `json:"text"`
	}
	mcp.AddTool(server, &mcp.Tool{Name: "whoami"}, func(_ context.Context, r *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, any, error) {
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: r.Extra.Header.Get("Authorization")}}}, nil, nil
	})
	mcp.AddTool(server, &mcp.Tool{Name: "echo"}, func(_ context.Context, _ *mcp.CallToolRequest, in text) (*mcp.CallToolResult, any, error) {
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: in.Text}}}, nil, nil
	})
	if change != nil {
		change(server)
	}
	return mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, opts)
}

func textOf(t testing.TB, result *mcp.CallToolResult) string {
	t.Helper()
	if len(result.Content) != 1 {
		t.Fatalf("content %v", result.Content)
	}
	text, ok := result.Content[0].(*mcp.TextContent)
	if !ok {
		t.Fatalf("content %T", result.Content[0])
	}
	return text.Text
}

// counted counts requests and remembers their headers.
type counted struct {
	next http.Handler
	mu   sync.Mutex
	seen []http.Header
	urls []url.URL
}

func (c *counted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.seen = append(c.seen, r.Header.Clone())
	c.urls = append(c.urls, *r.URL)
	c.mu.Unlock()
	c.next.ServeHTTP(w, r)
}

func (c *counted) headers() []http.Header {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen
}
