package vault

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
	"golang.org/x/oauth2"

	"chatelaine.dev/examples/journey"
	"chatelaine.dev/examples/stack"
	brokerv1 "chatelaine.dev/proto/broker/v1"
)

const (
	// maxUnwatched is the gateways' --max-unwatched, its default.
	maxUnwatched = 3 * time.Second
	// soon is how long a revocation may take to be seen while the gateway watches.
	soon = time.Second
)

// A stolen laptop's connections must be gone everywhere, not only at the replica that
// heard of it first, and also at one that hears nothing any more.
func TestADisconnectIsSeenAtASecondGateway(t *testing.T) {
	backend := startBackend(t)
	h := newHouse(t, houseConfig{backend: backend})
	h.write("secrets/gateway-session/key", base64.StdEncoding.EncodeToString([]byte(rand.Text() + "123456")[:32]))
	far := startCut(t, hostPort(h.brokers[1].ports.Broker))
	gateways := []*gateway{
		h.startGateway("near", hostPort(h.brokers[0].ports.Broker)),
		h.startGateway("far", far.address),
	}
	for _, kind := range []struct {
		name  string
		bound time.Duration
		cut   bool
	}{{"while it watches", soon, false}, {"when its stream is cut", maxUnwatched + time.Second, true}} {
		t.Run(kind.name, func(t *testing.T) {
			person := h.mustLogIn(time.Hour)
			callers := make([]*mcp.ClientSession, len(gateways))
			for i, g := range gateways {
				callers[i] = h.connect(g, person)
				_, err := journey.Call(t.Context(), callers[i], "whoami", nil)
				must(t, err)
			}
			if kind.cut {
				far.cut()
				defer far.mend()
			}
			_, err := h.brokers[0].connections.Disconnect(t.Context(), &brokerv1.DisconnectRequest{ConnectionId: person.connection[h.grace]})
			must(t, err)
			told := time.Now()
			last := lastCall(t, callers[1], told.Add(kind.bound+5*time.Second))
			t.Logf("disconnected, the second gateway's last successful call began %s later (bound %s)", max(0, last.Sub(told)).Round(time.Millisecond), kind.bound)
			if last.Sub(told) > kind.bound {
				t.Errorf("the second gateway went on for %s after the disconnect, want %s at most", last.Sub(told), kind.bound)
			}
		})
	}
}

// lastCall calls until it fails, and returns when the last call that succeeded began.
func lastCall(t *testing.T, session *mcp.ClientSession, until time.Time) (last time.Time) {
	t.Helper()
	for time.Now().Before(until) {
		begun := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err := journey.Call(ctx, session, "whoami", nil)
		cancel()
		if err != nil {
			t.Logf("the caller is told: %.200s", err)
			return last
		}
		last = begun
		time.Sleep(5 * time.Millisecond) // between two looks
	}
	t.Fatal("calls go on and on")
	return last
}

// startBackend is an MCP server that takes any bearer.
func startBackend(t *testing.T) (origin string) {
	t.Helper()
	server := mcp.NewServer(&mcp.Implementation{Name: "backend", Version: "1"}, nil)
	mcp.AddTool(server, &mcp.Tool{Name: "whoami"}, func(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, any, error) {
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: "somebody"}}}, nil, nil
	})
	handler := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, nil)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") == "" {
			http.Error(w, "no credential", http.StatusUnauthorized)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return "http://localhost:" + strconv.Itoa(portOf(s.Listener.Addr()))
}

// gateway is one replica.
type gateway struct {
	process
	url string
}

func (h *house) startGateway(name, broker string) *gateway {
	h.t.Helper()
	ports, err := stack.FreePorts(h.t.Context())
	must(h.t, err)
	g := &gateway{url: "http://" + hostPort(ports.Gateway), process: process{
		t: h.t, path: binary("gateway"), log: filepath.Join(h.dir, "gateway-"+name+".log"),
		env:   environment("CHATELAINE_SECRETS_DIR=" + h.secrets),
		ready: "http://" + hostPort(ports.GatewayAdmin) + "/readyz",
	}}
	g.args = append([]string{
		"serve", "--config", filepath.Join(h.dir, "resources.yaml"), "--jwks-url", h.issuer.URL, "--session-key", "gateway-session/key",
		"--broker-address", broker, "--public-address", hostPort(ports.Gateway), "--admin-address", hostPort(ports.GatewayAdmin),
		"--allowed-host", hostPort(ports.Gateway), "--max-unwatched", maxUnwatched.String(),
	}, h.tlsArgs("gateway")...)
	h.t.Cleanup(g.stop)
	g.start()
	return g
}

func (h *house) connect(g *gateway, p *person) *mcp.ClientSession {
	h.t.Helper()
	login := &journey.Login{
		Client: &journey.Client{Name: "Agent", Discovery: &journey.Discovery{MCPURL: g.url + "/mcp/" + graceAPI}, HTTP: http.DefaultClient},
		Token:  &oauth2.Token{AccessToken: p.token},
	}
	session, err := login.Connect(h.t.Context(), journey.ConnectOptions{ProtocolVersion: "2025-11-25"})
	must(h.t, err)
	h.t.Cleanup(func() { _ = session.Close() })
	return session
}

// cut is a way to a server that can be cut, and refuses everybody from then on.
type cut struct {
	t       *testing.T
	address string
	to      string

	mu     sync.Mutex
	listen net.Listener
	conns  map[net.Conn]bool
}

func startCut(t *testing.T, to string) *cut {
	t.Helper()
	ports, err := stack.FreePorts(t.Context()) // nobody else takes it while it is refused
	must(t, err)
	c := &cut{t: t, address: hostPort(ports.Broker), to: to}
	c.mend()
	t.Cleanup(c.cut)
	return c
}

// mend makes the way passable.
func (c *cut) mend() {
	ln, err := net.Listen("tcp", c.address)
	must(c.t, err)
	c.mu.Lock()
	c.listen, c.conns = ln, map[net.Conn]bool{}
	c.mu.Unlock()
	go func() {
		for {
			from, err := ln.Accept()
			if err != nil {
				return // cut
			}
			go c.pass(from)
		}
	}()
}

// cut breaks every connection and refuses new ones.
func (c *cut) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.listen.Close()
	for conn := range c.conns {
		_ = conn.Close()
	}
	c.conns = nil
}

func (c *cut) pass(from net.Conn) {
	to, err := net.Dial("tcp", c.to)
	if err != nil {
		_ = from.Close()
		return
	}
	c.mu.Lock()
	if c.conns == nil {
		_, _ = from.Close(), to.Close()
	} else {
		c.conns[from], c.conns[to] = true, true
	}
	c.mu.Unlock()
	go func() {
		_, _ = io.Copy(from, to)
		_ = from.Close()
	}()
	_, _ = io.Copy(to, from)
	_ = to.Close()
}
