package app

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/gateway/internal/gatewaytest"
)

// replicas are two gateways behind a load balancer that sends each request to the
// first one that is ready.
type replicas struct {
	url    string
	token  string
	admins [2]string
	public [2]string
	stops  [2]context.CancelFunc
	done   [2]chan error
}

func startReplicas(t *testing.T, backend http.Handler, args ...string) *replicas {
	t.Helper()
	issuer, broker := gatewaytest.NewIssuer(t), gatewaytest.NewBroker(t)
	server := httptest.NewServer(backend)
	t.Cleanup(server.Close)
	broker.Set("repos", gatewaytest.Backend{Origin: server.URL})
	broker.Set("status", gatewaytest.Backend{Static: true})
	p := &replicas{}
	balancer := httptest.NewServer(&httputil.ReverseProxy{
		FlushInterval: -1,
		Rewrite: func(r *httputil.ProxyRequest) {
			target := p.public[1]
			if p.ready(0) {
				target = p.public[0]
			}
			r.SetURL(&url.URL{Scheme: "http", Host: target})
			r.Out.Host = r.In.Host
		},
	})
	t.Cleanup(balancer.Close)
	p.url = balancer.URL
	p.token = issuer.Token("alice", "session-1", p.url+"/mcp", nil)

	dir := t.TempDir()
	write(t, filepath.Join(dir, "resources.yaml"), fmt.Sprintf(resources, issuer.URL, p.url+"/mcp", server.URL))
	write(t, filepath.Join(dir, "secrets", "gateway", "session"), base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))+"\n")
	t.Setenv(secret.DirEnv, filepath.Join(dir, "secrets"))
	files := broker.Files("gateway")
	for i := range p.public {
		p.public[i], p.admins[i], p.done[i] = freeAddress(t), freeAddress(t), make(chan error, 1)
		flags := parse(t, append([]string{
			"--config", filepath.Join(dir, "resources.yaml"), "--public-address", p.public[i], "--admin-address", p.admins[i],
			"--broker-address", broker.Address(), "--jwks-url", issuer.JWKSURL, "--session-key", "gateway/session", "--log-level", "error",
			"--tls-cert", files.Cert, "--tls-key", files.Key, "--tls-ca", files.CA,
		}, args...)...)
		ctx, cancel := context.WithCancel(context.Background())
		p.stops[i] = cancel
		t.Cleanup(cancel)
		go func() { p.done[i] <- Serve(ctx, flags) }()
		soon(t, "a gateway is ready", func() bool { return p.ready(i) })
	}
	return p
}

func (p *replicas) ready(i int) bool {
	resp, err := http.Get("http://" + p.admins[i] + "/readyz")
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// send makes a request with the token, at the load balancer or at one replica.
func (p *replicas) send(t *testing.T, method, to, session, body string) (*http.Response, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, to+"/mcp", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, text/event-stream")
	r.Header.Set("Authorization", "Bearer "+p.token)
	r.Host = strings.TrimPrefix(p.url, "http://")
	if session != "" {
		r.Header.Set("Mcp-Session-Id", session)
	}
	return http.DefaultClient.Do(r)
}

func (p *replicas) must(t *testing.T, method, to, session, body string) *http.Response {
	t.Helper()
	resp, err := p.send(t, method, to, session, body)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s: %d %s", body, resp.StatusCode, text)
	}
	return resp
}

func soon(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("did not happen: %s", what)
		}
	}
}

const (
	initialize = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}`
	listTools  = `{"jsonrpc":"2.0","id":2,"method":"tools/list"}`
	slowCall   = `{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"repos_slow","arguments":{}}}`
)

// slowServer is an MCP server whose tool "slow" says that it has begun, and ends
// when it is told to.
func slowServer(began chan<- struct{}, finish <-chan struct{}) http.Handler {
	inner := backendServer()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		if !bytes.Contains(body, []byte(`"slow"`)) {
			inner.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		began <- struct{}{}
		<-finish
		_, _ = io.WriteString(w, "data: {\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{\"content\":[]}}\n\n")
	})
}

func TestAReplicaThatStopsHandsItsClientsOver(t *testing.T) {
	began, finish := make(chan struct{}, 1), make(chan struct{})
	p := startReplicas(t, slowServer(began, finish), "--drain-delay", "3s", "--drain-timeout", "15s")
	release := sync.OnceFunc(func() { close(finish) })
	t.Cleanup(release) // before the backend is closed
	first := "http://" + p.public[0]
	session := p.must(t, http.MethodPost, p.url, "", initialize).Header.Get("Mcp-Session-Id")
	stream := p.must(t, http.MethodGet, p.url, session, "")
	call := p.must(t, http.MethodPost, p.url, session, slowCall)
	<-began

	p.stops[0]()
	soon(t, "the load balancer is told", func() bool {
		_, body := get(t, "http://"+p.admins[0]+"/readyz", "")
		return strings.Contains(body, "draining")
	})
	// Until it has noticed, clients that still come are served.
	p.must(t, http.MethodPost, first, session, listTools)
	late := p.must(t, http.MethodGet, first, session, "")
	for name, resp := range map[string]*http.Response{"a stream": stream, "a stream that came late": late} {
		if _, err := io.ReadAll(resp.Body); err != nil { // blocks for as long as the stream lives
			t.Errorf("%s broke instead of ending: %v", name, err)
		}
	}
	soon(t, "new requests are refused", func() bool {
		resp, err := p.send(t, http.MethodPost, first, session, listTools)
		if err == nil {
			resp.Body.Close()
		}
		return err != nil
	})

	// The other replica takes over what ended; what runs goes on to its end.
	p.must(t, http.MethodGet, p.url, session, "")
	if body, _ := io.ReadAll(p.must(t, http.MethodPost, p.url, session, listTools).Body); !bytes.Contains(body, []byte("repos_whoami")) {
		t.Errorf("the session at the other replica: %s", body)
	}
	release()
	answer, err := bufio.NewReader(call.Body).ReadString('}')
	if rest, restErr := io.ReadAll(call.Body); err != nil || restErr != nil {
		t.Errorf("the call that ran: %s%s %v %v", answer, rest, err, restErr)
	}
	select {
	case err := <-p.done[0]:
		if err != nil {
			t.Errorf("stop: %s", fault.Detail(err))
		}
	case <-time.After(patience):
		t.Error("it did not stop")
	}
}

func TestACallThatDoesNotEndDoesNotKeepAReplica(t *testing.T) {
	began, finish := make(chan struct{}, 1), make(chan struct{})
	p := startReplicas(t, slowServer(began, finish), "--drain-timeout", "200ms")
	t.Cleanup(func() { close(finish) }) // before the backend is closed
	session := p.must(t, http.MethodPost, p.url, "", initialize).Header.Get("Mcp-Session-Id")
	call := p.must(t, http.MethodPost, p.url, session, slowCall)
	<-began
	p.stops[0]()
	if answer, err := io.ReadAll(call.Body); err == nil && bytes.Contains(answer, []byte(`"result"`)) && !bytes.Contains(answer, []byte("isError")) {
		t.Errorf("a call that was cut off looks whole: %s", answer)
	}
	select {
	case err := <-p.done[0]:
		if err != nil {
			t.Errorf("stop: %s", fault.Detail(err))
		}
	case <-time.After(patience):
		t.Error("it did not stop")
	}
}

func TestAConfigurationThatTheBrokerHasNotReadYetIsWaitedFor(t *testing.T) {
	g := start(t, backendServer())
	g.broker.Configs(func(string) bool { return false })
	token := g.issuer.Token("alice", "session-1", "http://"+g.public+"/mcp", nil)
	call := func() (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+g.public+"/mcp/repos", strings.NewReader(listTools))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Accept", "application/json, text/event-stream")
		r.Header.Set("Authorization", "Bearer "+token)
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
	if status, body := call(); status != http.StatusServiceUnavailable || !strings.Contains(body, "token broker has an older configuration") {
		t.Errorf("%d %s, want 503 and who is behind", status, body)
	}
	if status, _ := get(t, "http://"+g.admin+"/readyz", ""); status != http.StatusOK {
		t.Errorf("the gateway is not ready (%d), although nothing of its own is missing", status)
	}
	if _, metrics := get(t, "http://"+g.admin+"/metrics", ""); !strings.Contains(metrics, "chatelaine_gateway_config_known 0") {
		t.Error("no metric says that the configuration is not known")
	}
	g.broker.Configs(func(string) bool { return true })
	if status, body := call(); status != http.StatusBadRequest && status != http.StatusOK { // whatever the backend says
		t.Errorf("once the broker has it: %d %s", status, body)
	}
}
