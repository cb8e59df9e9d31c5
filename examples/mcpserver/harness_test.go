package mcpserver_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"go.opentelemetry.io/otel/propagation"
	"golang.org/x/oauth2"

	"chatelaine.dev/examples/browse"
	"chatelaine.dev/examples/corp"
	"chatelaine.dev/examples/internal/faults"
	"chatelaine.dev/examples/internal/rules"
	"chatelaine.dev/examples/mcpserver/payroll"
	"chatelaine.dev/examples/mcpserver/repos"
	"chatelaine.dev/examples/mcpserver/status"
	"chatelaine.dev/examples/octohub"
	"chatelaine.dev/examples/people"
	"chatelaine.dev/internal/secret"
)

const (
	redirectURI  = "http://client.example/callback"
	clientSecret = "a client's secret"
)

// eras are the protocol versions that every server must speak.
func eras() []string { return []string{"2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"} }

// backend is one of the three servers with its switches.
type backend struct {
	url    string
	faults string
}

// world is both providers and the three servers, all real.
type world struct {
	corp, octohub           string
	octohubAdmin            string
	repos, payroll, status  backend
	outbound                *recordingTransport
	broken                  string // a URL where nobody listens
	corpTokens, octohubAuth *oauth2.Config
}

// recordingTransport keeps the headers of what the servers send.
type recordingTransport struct{ traceparents chan string }

func (t *recordingTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	h := http.Header{}
	propagation.TraceContext{}.Inject(r.Context(), propagation.HeaderCarrier(h))
	select {
	case t.traceparents <- h.Get("Traceparent"):
	default:
	}
	return http.DefaultTransport.RoundTrip(r)
}

func late(t *testing.T) (string, *http.Handler) {
	t.Helper()
	h := http.NotFoundHandler()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(w, r) }))
	t.Cleanup(func() {
		srv.CloseClientConnections()
		srv.Close()
	})
	return srv.URL, &h
}

func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	u, handler := late(t)
	*handler = h
	return u
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{outbound: &recordingTransport{make(chan string, 64)}}
	log := slog.New(slog.DiscardHandler)
	everybody, err := people.Default()
	if err != nil {
		t.Fatal(err)
	}
	resolver := &secret.Resolver{LookupEnv: func(string) (string, bool) { return clientSecret, true }}

	corpURL, corpHandler := late(t)
	served, err := corp.LoadRules("")
	if err != nil {
		t.Fatal(err)
	}
	if err := rules.SetRedirectURIs(served.Registrations(), "chatelaine", []string{redirectURI}); err != nil {
		t.Fatal(err)
	}
	served.Exchange = append(served.Exchange, corp.ExchangeRule{
		Client: "broker", SubjectClients: []string{"chatelaine"}, Audience: "other", Scopes: []string{"payroll:read"},
	})
	served.Exchange[0].Scopes = append(served.Exchange[0].Scopes, "payroll:nothing")
	if err := rules.ResolveSecrets(resolver, served.Registrations()); err != nil {
		t.Fatal(err)
	}
	idp, err := corp.New(corp.Config{Issuer: corpURL, Rules: served, People: everybody, Lifetimes: corp.DefaultLifetimes()}, log)
	if err != nil {
		t.Fatal(err)
	}
	*corpHandler = idp.Handler()
	w.corp = corpURL

	octohubURL, octohubHandler := late(t)
	clients, err := octohub.LoadRules("")
	if err != nil {
		t.Fatal(err)
	}
	if err := rules.SetRedirectURIs(clients.Registrations(), "chatelaine", []string{redirectURI}); err != nil {
		t.Fatal(err)
	}
	if err := rules.ResolveSecrets(resolver, clients.Registrations()); err != nil {
		t.Fatal(err)
	}
	host, err := octohub.New(octohub.Config{BaseURL: octohubURL, Rules: clients, People: everybody, Lifetimes: octohub.DefaultLifetimes()}, log)
	if err != nil {
		t.Fatal(err)
	}
	*octohubHandler = host.Handler()
	w.octohub, w.octohubAdmin = octohubURL, serve(t, host.Admin())

	w.startBackends(t, everybody, log)
	w.corpTokens = &oauth2.Config{
		ClientID: "chatelaine", ClientSecret: clientSecret, RedirectURL: redirectURI, Scopes: []string{"openid", "profile"},
		Endpoint: oauth2.Endpoint{AuthURL: corpURL + "/authorize", TokenURL: corpURL + "/oauth/token", AuthStyle: oauth2.AuthStyleInHeader},
	}
	w.octohubAuth = &oauth2.Config{
		ClientID: "chatelaine", ClientSecret: clientSecret, RedirectURL: redirectURI, Scopes: []string{"repo"},
		Endpoint: oauth2.Endpoint{AuthURL: octohubURL + "/login/oauth/authorize", TokenURL: octohubURL + "/login/oauth/access_token", AuthStyle: oauth2.AuthStyleInParams},
	}
	return w
}

func (w *world) startBackends(t *testing.T, everybody *people.Directory, log *slog.Logger) {
	t.Helper()
	client := &http.Client{Timeout: 5 * time.Second, Transport: w.outbound}
	propagator := propagation.TraceContext{}
	w.broken = "http://127.0.0.1:1"

	f := faults.NewBackend()
	h, err := repos.New(repos.Config{OctohubURL: w.octohub, Client: client, Faults: f, Propagator: propagator, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	w.repos = backend{serve(t, h), serve(t, faults.Guard(faults.Admin(f)))}

	f = faults.NewBackend()
	payrollURL, handler := late(t)
	h, err = payroll.New(payroll.Config{
		Issuer: w.corp, JWKSURL: w.corp + "/keys", PublicURL: payrollURL, People: everybody,
		Client: client, Faults: f, Propagator: propagator, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	*handler = h
	w.payroll = backend{payrollURL, serve(t, faults.Guard(faults.Admin(f)))}

	f = faults.NewBackend()
	w.status = backend{serve(t, status.New(status.Config{
		Probes: map[string]string{"corp": w.corp + "/healthz", "octohub": w.octohub + "/healthz", "gone": w.broken},
		Client: client, Faults: f, Propagator: propagator, Log: log,
	})), serve(t, faults.Guard(faults.Admin(f)))}
}

// token signs a person in at a provider.
func token(t *testing.T, cfg *oauth2.Config, name string) string {
	t.Helper()
	b, err := browse.New(browse.Options{Account: browse.Account{Username: name, Password: name + "-password"}})
	if err != nil {
		t.Fatal(err)
	}
	verifier := oauth2.GenerateVerifier()
	got, err := b.Walk(t.Context(), cfg.AuthCodeURL("st", oauth2.S256ChallengeOption(verifier)), redirectURI)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := cfg.Exchange(t.Context(), got.URL.Query().Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatal(err)
	}
	return tok.AccessToken
}

// exchange turns a corp token into one for the audience.
func (w *world) exchange(t *testing.T, subject, audience, scope string) string {
	t.Helper()
	form := url.Values{
		"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "subject_token": {subject},
		"subject_token_type":   {"urn:ietf:params:oauth:token-type:access_token"},
		"requested_token_type": {"urn:ietf:params:oauth:token-type:access_token"},
		"audience":             {audience}, "scope": {scope}, "client_id": {"broker"}, "client_secret": {clientSecret},
	}
	resp, err := http.PostForm(w.corp+"/oauth/token", form)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var out struct {
		AccessToken string `json:"access_token"`
		Error       string `json:"error"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil || out.AccessToken == "" {
		t.Fatalf("exchange: %v %s", err, out.Error)
	}
	return out.AccessToken
}

// withHeader sends each request with more headers.
type withHeader struct{ header http.Header }

func (h withHeader) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	maps.Copy(r.Header, h.header)
	if tp, ok := r.Context().Value(traceKey{}).(string); ok {
		r.Header.Set("Traceparent", tp)
	}
	return http.DefaultTransport.RoundTrip(r)
}

// traceKey is the context key of the traceparent that a call is to have.
type traceKey struct{}

// connect is the SDK's own client at a protocol version.
func connect(t *testing.T, endpoint, version string, header http.Header, opts *mcp.ClientOptions) (*mcp.ClientSession, error) {
	t.Helper()
	client := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, opts)
	session, err := client.Connect(t.Context(), &mcp.StreamableClientTransport{
		Endpoint: endpoint + "/mcp", HTTPClient: &http.Client{Transport: withHeader{header}}, MaxRetries: -1,
	}, &mcp.ClientSessionOptions{ProtocolVersion: version})
	if err == nil {
		t.Cleanup(func() { session.Close() })
		if got := session.InitializeResult().ProtocolVersion; got != version {
			t.Errorf("speaks %s, want %s", got, version)
		}
	}
	return session, err
}

func bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

// call calls a tool and decodes its structured result.
func call(ctx context.Context, t *testing.T, s *mcp.ClientSession, tool string, args any, out any) *mcp.CallToolResult {
	t.Helper()
	result, err := s.CallTool(ctx, &mcp.CallToolParams{Name: tool, Arguments: args})
	if err != nil {
		t.Fatalf("%s: %v", tool, err)
	}
	if out != nil && !result.IsError {
		text, err := json.Marshal(result.StructuredContent)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, out); err != nil {
			t.Fatalf("%s: %s: %v", tool, text, err)
		}
	}
	return result
}

func text(r *mcp.CallToolResult) string {
	var b strings.Builder
	for _, c := range r.Content {
		if tc, ok := c.(*mcp.TextContent); ok {
			b.WriteString(tc.Text)
		}
	}
	return b.String()
}

// raw sends one stateless request by hand.
func raw(t *testing.T, endpoint, method string, header http.Header) (int, http.Header, string) {
	t.Helper()
	body := `{"jsonrpc":"2.0","id":1,"method":"` + method + `","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}`
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, endpoint+"/mcp", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{
		"Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"},
		"Mcp-Protocol-Version": {"2026-07-28"}, "Mcp-Method": {method},
	}
	maps.Copy(req.Header, header)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(answer)
}

func (b backend) set(t *testing.T, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, b.faults+"/faults", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("PUT /faults: %d", resp.StatusCode)
	}
}
