package app

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/gateway/internal/gatewaytest"
)

const patience = 20 * time.Second

// running is a gateway that was started with flags.
type running struct {
	public, admin string
	resources     string // the file
	issuer        *gatewaytest.Issuer
	broker        *gatewaytest.Broker
	done          chan error
	stop          context.CancelFunc
}

const resources = `
apiVersion: chatelaine.dev/v1alpha1
kind: VirtualMCPServer
metadata: {name: demo}
spec:
  groupRef: {name: demo}
  authServerConfig:
    issuer: %[1]s
    upstreamProviders:
      - name: corp
        type: oidc
        oidcConfig: {issuerUrl: "http://localhost:5556", clientId: chatelaine, clientSecretRef: {name: corp-idp, key: client-secret}, scopes: [openid]}
  incomingAuth:
    type: oidc
    oidcConfigRef: {name: demo, audience: "%[2]s"}
  outgoingAuth:
    source: inline
    backends:
      repos: {type: externalAuthConfigRef, externalAuthConfigRef: {name: as-user}}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPExternalAuthConfig
metadata: {name: as-user}
spec: {type: upstreamInject, upstreamInject: {providerName: corp}}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPServerEntry
metadata: {name: repos}
spec: {groupRef: {name: demo}, remoteUrl: "%[3]s/mcp", transport: streamable-http}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPServerEntry
metadata: {name: status}
spec: {groupRef: {name: demo}, remoteUrl: "%[3]s/mcp", transport: streamable-http}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPOIDCConfig
metadata: {name: demo}
spec: {type: inline, inline: {issuer: "%[1]s"}}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPGroup
metadata: {name: demo}
`

// start serves two backends, both the same server, until the test ends.
func start(t *testing.T, backend http.Handler, args ...string) *running {
	t.Helper()
	return startWith(t, resources, backend, args...)
}

func startWith(t *testing.T, resources string, backend http.Handler, args ...string) *running {
	t.Helper()
	server := httptest.NewServer(backend)
	t.Cleanup(server.Close)
	g := &running{
		public: freeAddress(t), admin: freeAddress(t), issuer: gatewaytest.NewIssuer(t), broker: gatewaytest.NewBroker(t),
		done: make(chan error, 1),
	}
	g.broker.Set("repos", gatewaytest.Backend{Origin: server.URL})
	g.broker.Set("status", gatewaytest.Backend{Static: true})
	dir := t.TempDir()
	g.resources = filepath.Join(dir, "resources.yaml")
	write(t, g.resources, fmt.Sprintf(resources, g.issuer.URL, "http://"+g.public+"/mcp", server.URL))
	write(t, filepath.Join(dir, "secrets", "gateway", "session"), base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))+"\n")
	t.Setenv(secret.DirEnv, filepath.Join(dir, "secrets"))
	files := g.broker.Files("gateway")
	flags := parse(t, append([]string{
		"--config", dir, "--public-address", g.public, "--admin-address", g.admin, "--broker-address", g.broker.Address(),
		"--jwks-url", g.issuer.JWKSURL, "--session-key", "gateway/session", "--log-level", "error",
		"--tls-cert", files.Cert, "--tls-key", files.Key, "--tls-ca", files.CA,
	}, args...)...)
	ctx, cancel := context.WithCancel(context.Background())
	g.stop = cancel
	go func() { g.done <- Serve(ctx, flags) }()
	t.Cleanup(cancel)
	deadline := time.Now().Add(patience)
	for {
		resp, err := http.Get("http://" + g.admin + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return g
			}
		}
		select {
		case err := <-g.done:
			t.Fatalf("did not start: %s", fault.Detail(err))
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatal("did not become ready")
		}
	}
}

func parse(t *testing.T, args ...string) *Flags {
	t.Helper()
	flags := &Flags{}
	parser, err := kong.New(flags, kong.Vars{"admin_address": Program().AdminAddress})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(args); err != nil {
		t.Fatal(err)
	}
	return flags
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func get(t *testing.T, url, token string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

type withToken string

func (token withToken) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+string(token))
	return http.DefaultTransport.RoundTrip(r)
}

func backendServer() http.Handler {
	server := mcp.NewServer(&mcp.Implementation{Name: "backend", Version: "1"}, nil)
	mcp.AddTool(server, &mcp.Tool{Name: "whoami"}, func(_ context.Context, r *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, any, error) {
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: r.Extra.Header.Get("Authorization")}}}, nil, nil
	})
	return mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, nil)
}

// call calls a tool with a real client.
func (g *running) call(t *testing.T, path, tool string) string {
	t.Helper()
	token := g.issuer.Token("alice", "session-1", "http://"+g.public+"/mcp", nil)
	client := mcp.NewClient(&mcp.Implementation{Name: "client", Version: "1"}, nil)
	session, err := client.Connect(t.Context(), &mcp.StreamableClientTransport{
		Endpoint: "http://" + g.public + path, HTTPClient: &http.Client{Transport: withToken(token)},
	}, nil)
	if err != nil {
		t.Fatalf("connect to %s: %v", path, err)
	}
	defer session.Close()
	result, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: tool})
	if err != nil {
		t.Fatalf("%s at %s: %v", tool, path, err)
	}
	text, ok := result.Content[0].(*mcp.TextContent)
	if !ok {
		t.Fatalf("content %T", result.Content[0])
	}
	return text.Text
}

func TestServedAsConfigured(t *testing.T) {
	g := start(t, backendServer())
	want := "Bearer " + gatewaytest.Token("alice", "repos", 1)
	if got := g.call(t, "/mcp/repos", "whoami"); got != want {
		t.Errorf("/mcp/repos: the backend saw %q, want %q", got, want)
	}
	if got := g.call(t, "/mcp/status", "whoami"); got != "" {
		t.Errorf("/mcp/status: the backend saw %q, want nothing", got)
	}
	if got := g.call(t, "/mcp", "repos_whoami"); got != want {
		t.Errorf("/mcp: the backend saw %q, want %q", got, want)
	}
	if status, _ := get(t, "http://"+g.public+"/mcp/repos", ""); status != http.StatusUnauthorized {
		t.Errorf("without a token: %d, want 401", status)
	}
	if status, body := get(t, "http://"+g.public+"/mcp/unknown", ""); status != http.StatusNotFound {
		t.Errorf("unknown backend: %d %s, want 404", status, body)
	}
	if status, body := get(t, "http://"+g.public+"/.well-known/oauth-protected-resource/mcp/repos", ""); status != http.StatusOK ||
		!strings.Contains(body, `"resource":"http://`+g.public+`/mcp/repos"`) {
		t.Errorf("metadata: %d %s", status, body)
	}
	_, metrics := get(t, "http://"+g.admin+"/metrics", "")
	for _, name := range []string{"gateway_credential_requests", "gateway_session_watch_fresh", "gateway_session_watch_age_seconds", "gateway_streams_open", "http_server_request_duration"} {
		if !strings.Contains(metrics, name) {
			t.Errorf("no metric %s", name)
		}
	}
	if strings.Contains(metrics, "session-1") || strings.Contains(metrics, "alice") {
		t.Error("the metrics name a person or a session")
	}
	if status, _ := get(t, "http://"+g.public+"/metrics", ""); status != http.StatusNotFound {
		t.Errorf("metrics on the public address: %d", status)
	}
}

// without returns resources in which the part from one line up to another is
// replaced.
func without(t *testing.T, from, to, by string) string {
	t.Helper()
	head, rest, ok := strings.Cut(resources, from)
	_, tail, found := strings.Cut(rest, to)
	if !ok || !found {
		t.Fatalf("no %q … %q", from, to)
	}
	return head + by + to + tail
}

func TestAnonymousDeploymentIsServed(t *testing.T) {
	anonymous := without(t, "  authServerConfig:", "---", "  incomingAuth: {type: anonymous}\n")
	anonymous = strings.Replace(anonymous, "spec: {type: upstreamInject, upstreamInject: {providerName: corp}}", "spec: {type: unauthenticated}", 1)
	g := startWith(t, anonymous+"# %[2]s", backendServer())
	client := mcp.NewClient(&mcp.Implementation{Name: "client", Version: "1"}, nil)
	session, err := client.Connect(t.Context(), &mcp.StreamableClientTransport{Endpoint: "http://" + g.public + "/mcp/status"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	if _, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: "whoami"}); err != nil {
		t.Error(err)
	}
}

func TestForeignIssuersTokensAreTaken(t *testing.T) {
	external := without(t, "  authServerConfig:", "  incomingAuth:", "")
	external = strings.Replace(external, "      repos: {type: externalAuthConfigRef, externalAuthConfigRef: {name: as-user}}\n", "", 1)
	external = strings.Replace(external, "    backends:\n", "", 1)
	external = strings.Replace(external, "spec: {type: upstreamInject, upstreamInject: {providerName: corp}}", "spec: {type: unauthenticated}", 1)
	g := startWith(t, external, backendServer())
	want := "Bearer " + gatewaytest.Token("alice", "repos", 1)
	if got := g.call(t, "/mcp/repos", "whoami"); got != want {
		t.Errorf("the backend saw %q, want %q", got, want)
	}
}

func TestStopEndsStreamsWithinItsBound(t *testing.T) {
	g := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+g.public+"/mcp/repos", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+g.issuer.Token("alice", "session-1", "http://"+g.public+"/mcp", nil))
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	g.stop()
	if _, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("the stream: %d %v", resp.StatusCode, err)
	}
	select {
	case err := <-g.done:
		if err != nil {
			t.Errorf("stop: %s", fault.Detail(err))
		}
	case <-time.After(patience):
		t.Error("did not stop")
	}
}

func TestStartIsRefusedWithAReason(t *testing.T) {
	broker := gatewaytest.NewBroker(t)
	files := broker.Files("gateway")
	dir := t.TempDir()
	good := filepath.Join(dir, "good.yaml")
	write(t, good, fmt.Sprintf(resources, "http://localhost:8080", "http://localhost:8000/mcp", "http://localhost:7001"))
	bad := filepath.Join(dir, "bad.yaml")
	write(t, bad, "kind: Nonsense\n")
	write(t, filepath.Join(dir, "secrets", "gateway", "session"), base64.StdEncoding.EncodeToString(make([]byte, 32)))
	write(t, filepath.Join(dir, "secrets", "gateway", "short"), base64.StdEncoding.EncodeToString(make([]byte, 16)))
	t.Setenv(secret.DirEnv, filepath.Join(dir, "secrets"))
	for name, tt := range map[string]struct {
		config, key string
		args        []string
		want        string
	}{
		"resources":       {bad, "gateway/session", nil, "resources"},
		"missing key":     {good, "gateway/none", nil, "gateway/none"},
		"short key":       {good, "gateway/short", nil, "16 bytes"},
		"unknown backend": {good, "gateway/session", []string{"--timeout-for", "nobody=1s"}, "nobody"},
		"no timeout":      {good, "gateway/session", []string{"--backend-timeout", "0s"}, "--backend-timeout"},
		"unreadable key":  {good, "gateway/session", []string{"--tls-key", dir}, "--tls-key"},
		"taken address":   {good, "gateway/session", []string{"--public-address", broker.Address()}, "--public-address"},
		"bad dial":        {good, "gateway/session", []string{"--dial", "x"}, "--dial"},
		"bad origin":      {good, "gateway/session", []string{"--allowed-origin", "app.example"}, "--allowed-origin"},
	} {
		args := append([]string{
			"--config", tt.config, "--public-address", "127.0.0.1:0", "--admin-address", "127.0.0.1:0", "--broker-address", "127.0.0.1:1",
			"--session-key", tt.key, "--log-level", "error", "--tls-cert", files.Cert, "--tls-key", files.Key, "--tls-ca", files.CA,
		}, tt.args...)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		err := Serve(ctx, parse(t, args...))
		cancel()
		if err == nil || !strings.Contains(fault.Detail(err), tt.want) || strings.Contains(fault.Terminal(err), "\n") {
			t.Errorf("%s: %s, want something about %q", name, fault.Detail(err), tt.want)
		}
	}
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "good.yaml"), fmt.Sprintf(resources, "http://localhost:8080", "http://localhost:8000/mcp", "http://localhost:7001"))
	for name, tt := range map[string]struct {
		args []string
		exit int
		want string
	}{
		"version":      {[]string{"version"}, 0, "gateway"},
		"valid":        {[]string{"validate", "--config", dir}, 0, ""},
		"not there":    {[]string{"validate", "--config", filepath.Join(dir, "none")}, 2, ""},
		"help":         {[]string{"serve", "--help"}, 0, "CHATELAINE_SESSION_KEY"},
		"flag missing": {[]string{"serve"}, 2, ""},
	} {
		var out, errs bytes.Buffer
		if exit := Program().Run(tt.args, &out, &errs); exit != tt.exit || !strings.Contains(out.String(), tt.want) {
			t.Errorf("%s: exit %d, want %d; %s%s", name, exit, tt.exit, out.String(), errs.String())
		}
	}
}

func TestTheBoundOfBodiesHoldsAtBothEndpoints(t *testing.T) {
	g := start(t, http.NotFoundHandler(), "--max-body-bytes", "6291456")
	token := g.issuer.Token("alice", "session-1", "http://"+g.public+"/mcp", nil)
	for _, path := range []string{"/mcp", "/mcp/repos"} {
		for size, tooLarge := range map[int]bool{5 << 20: false, 7 << 20: true} {
			body := `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"` +
				strings.Repeat("x", size) + `","version":"1"}}}`
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+g.public+path, strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+token)
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Accept", "application/json, text/event-stream")
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if got := resp.StatusCode == http.StatusRequestEntityTooLarge; err != nil || got != tooLarge {
				t.Errorf("%s, a message of %d MiB and a bound of 6: %d %s", path, size>>20, resp.StatusCode, answer)
			}
		}
	}
}

// A proxy that had begun to send would see the connection closed, and lose the answer.
func TestABodyThatSaysItIsTooLargeIsNotAskedFor(t *testing.T) {
	g := start(t, backendServer())
	token := g.issuer.Token("alice", "session-1", "http://"+g.public+"/mcp", nil)
	for _, path := range []string{"/mcp", "/mcp/repos"} {
		conn, err := (&net.Dialer{Timeout: patience}).DialContext(t.Context(), "tcp", g.public)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"+
			"Accept: application/json, text/event-stream\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", path, g.public, token, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(conn) // to the end: the gateway closes
		if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 413 ") || !strings.Contains(string(answer), "the message is too large") {
			t.Errorf("%s: %v, %s", path, err, answer)
		}
	}
}
