package passthrough_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"chatelaine.dev/internal/bearer"
	"chatelaine.dev/services/gateway/internal/gatewaytest"
)

const (
	initialize = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}`
	listTools  = `{"jsonrpc":"2.0","id":2,"method":"tools/list"}`
	whoami     = `{"jsonrpc":"2.0","id":"call-1","method":"tools/call","params":{"name":"whoami","arguments":{}}}`
)

func TestRealClientReachesRealServerAsThePerson(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]*mcp.StreamableHTTPOptions{
		"sessions, event streams": {},
		"sessions, JSON":          {JSONResponse: true},
		"stateless":               {Stateless: true},
		"stateless, JSON":         {Stateless: true, JSONResponse: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			backend := &counted{next: mcpServer(opts, nil)}
			g := newGateway(t, options{}, map[string]http.Handler{"repos": backend})
			for _, subject := range []string{"alice", "bob"} {
				session, transport := g.connect(subject, "repos", nil)
				for range 3 {
					result, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: "whoami"})
					if err != nil {
						t.Fatal(err)
					}
					if got, want := textOf(t, result), "Bearer "+gatewaytest.Token(subject, "repos", 1); got != want {
						t.Errorf("the backend saw %q, want %q", got, want)
					}
				}
				if err := session.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
				for _, id := range transport.ids {
					if len(id) > 2048 || len(id) < 60 {
						t.Errorf("session id %q is not a sealed one", id)
					}
				}
			}
			if n := g.broker.Gets("repos"); n != 2 {
				t.Errorf("the broker was asked %d times, want once for each person", n)
			}
			for _, h := range backend.headers() {
				if id := h.Get("Mcp-Session-Id"); len(id) > 60 {
					t.Errorf("the backend was shown our session id %q", id)
				}
			}
		})
	}
}

func TestServerToClientMessagesArriveOnTheStream(t *testing.T) {
	t.Parallel()
	change := make(chan *mcp.Server, 1)
	g := newGateway(t, options{}, map[string]http.Handler{"repos": mcpServer(nil, func(s *mcp.Server) { change <- s })})
	changed := make(chan struct{}, 8)
	g.connect("alice", "repos", &mcp.ClientOptions{
		ToolListChangedHandler: func(context.Context, *mcp.ToolListChangedRequest) { changed <- struct{}{} },
	})
	server := <-change
	mcp.AddTool(server, &mcp.Tool{Name: "new"}, func(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, any, error) {
		return &mcp.CallToolResult{}, nil, nil
	})
	<-changed
}

func TestElicitationGoesThereAndBack(t *testing.T) {
	t.Parallel()
	g := newGateway(t, options{}, map[string]http.Handler{"repos": mcpServer(nil, func(s *mcp.Server) {
		mcp.AddTool(s, &mcp.Tool{Name: "ask"}, func(ctx context.Context, r *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, any, error) {
			answer, err := r.Session.Elicit(ctx, &mcp.ElicitParams{Message: "sure?"})
			if err != nil {
				return nil, nil, err
			}
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: answer.Action}}}, nil, nil
		})
	})})
	session, _ := g.connect("alice", "repos", &mcp.ClientOptions{
		ElicitationHandler: func(context.Context, *mcp.ElicitRequest) (*mcp.ElicitResult, error) {
			return &mcp.ElicitResult{Action: "decline"}, nil
		},
	})
	result, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: "ask"})
	if err != nil {
		t.Fatal(err)
	}
	if got := textOf(t, result); got != "decline" {
		t.Errorf("the tool got %q", got)
	}
}

// start initialises a session with raw requests and returns its id.
func (g *gateway) start(subject string) string {
	g.t.Helper()
	a := g.do(subject, http.MethodPost, "/mcp/repos", initialize, nil)
	id := a.header.Get("Mcp-Session-Id")
	if a.status != http.StatusOK || id == "" {
		g.t.Fatalf("initialize: %d %q: %s", a.status, id, a.body)
	}
	session := map[string]string{"Mcp-Session-Id": id}
	if a := g.do(subject, http.MethodPost, "/mcp/repos", `{"jsonrpc":"2.0","method":"notifications/initialized"}`, session); a.status != http.StatusAccepted {
		g.t.Fatalf("initialized: %d: %s", a.status, a.body)
	}
	return id
}

func TestSessionOfAnotherPersonIsNotFound(t *testing.T) {
	t.Parallel()
	server := mcpServer(nil, nil)
	g := newGateway(t, options{}, map[string]http.Handler{"repos": server, "status": mcpServer(nil, nil)})
	ofBob := map[string]string{"Mcp-Session-Id": g.start("bob")}
	for _, method := range []string{http.MethodPost, http.MethodGet, http.MethodDelete} {
		if a := g.do("alice", method, "/mcp/repos", listTools, ofBob); a.status != http.StatusNotFound {
			t.Errorf("%s with bob's session: %d, want 404: %s", method, a.status, a.body)
		}
	}
	if a := g.do("bob", http.MethodPost, "/mcp/status", listTools, ofBob); a.status != http.StatusNotFound {
		t.Errorf("at another backend: %d, want 404", a.status)
	}
	if a := g.do("bob", http.MethodPost, "/mcp/repos", listTools, map[string]string{"Mcp-Session-Id": "invented"}); a.status != http.StatusNotFound || !strings.Contains(a.body, "initialize again") {
		t.Errorf("an invented id: %d %s, want 404 and what to do", a.status, a.body)
	}
	if a := g.do("bob", http.MethodPost, "/mcp/repos", listTools, ofBob); a.status != http.StatusOK {
		t.Errorf("bob himself: %d, want 200: %s", a.status, a.body)
	}
}

func TestEndedBackendSessionIsNotFound(t *testing.T) {
	t.Parallel()
	g := newGateway(t, options{}, map[string]http.Handler{"repos": mcpServer(nil, nil)})
	session := map[string]string{"Mcp-Session-Id": g.start("alice")}
	if a := g.do("alice", http.MethodDelete, "/mcp/repos", "", session); a.status != http.StatusNoContent {
		t.Fatalf("DELETE: %d: %s", a.status, a.body)
	}
	if a := g.do("alice", http.MethodPost, "/mcp/repos", listTools, session); a.status != http.StatusNotFound {
		t.Errorf("after DELETE: %d, want 404: %s", a.status, a.body)
	}
}

func TestEventLeavesAsSoonAsItArrives(t *testing.T) {
	t.Parallel()
	next := make(chan string)
	g := newGateway(t, options{}, map[string]http.Handler{"repos": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		http.NewResponseController(w).Flush()
		for event := range next {
			fmt.Fprintf(w, "data: %s\n\n", event)
			http.NewResponseController(w).Flush()
		}
	})})
	resp := g.open(t.Context(), "alice", http.MethodPost, "/mcp/repos", strings.NewReader(listTools), nil)
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for i := range 5 {
		// The next event is sent only once this one is here: a buffer in between
		// would be a deadlock.
		next <- fmt.Sprint(i)
		if !lines.Scan() || lines.Text() != fmt.Sprintf("data: %d", i) || !lines.Scan() {
			t.Fatalf("event %d: %q %v", i, lines.Text(), lines.Err())
		}
	}
	close(next)
	if lines.Scan() || lines.Err() != nil {
		t.Errorf("the end of the stream: %q %v", lines.Text(), lines.Err())
	}
}

func TestEndOfTheSessionClosesItsStreamsAndRefusesItsTokens(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{})
	g := newGateway(t, options{}, map[string]http.Handler{"repos": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(gone)
	})})
	resp := g.open(t.Context(), "alice", http.MethodGet, "/mcp/repos", nil, nil)
	defer resp.Body.Close()
	g.broker.EndSession("session-of-alice")
	if _, err := io.ReadAll(resp.Body); err != nil { // blocks for as long as the stream lives
		t.Errorf("the stream broke instead of ending: %v", err)
	}
	<-gone
	a := g.do("alice", http.MethodPost, "/mcp/repos", listTools, nil)
	if a.status != http.StatusUnauthorized || !strings.Contains(a.header.Get("WWW-Authenticate"), `error="invalid_token"`) {
		t.Errorf("afterwards: %d %s", a.status, a.header.Get("WWW-Authenticate"))
	}
	if n := g.broker.Gets("repos"); n != 1 {
		t.Errorf("the broker was asked %d times", n)
	}
}

func TestSilentBrokerIsAskedAgain(t *testing.T) {
	t.Parallel()
	g := newGateway(t, options{maxUnwatched: 500e6}, map[string]http.Handler{"repos": mcpServer(&mcp.StreamableHTTPOptions{Stateless: true}, nil)})
	call := func() int { return g.do("alice", http.MethodPost, "/mcp/repos", whoami, nil).status }
	if status := call(); status != http.StatusOK {
		t.Fatal(status)
	}
	before := g.broker.Gets("repos")
	g.broker.Mute()
	eventually(t, "the broker is asked although the credential is cached", func() bool {
		return call() == http.StatusOK && g.broker.Gets("repos") > before
	})
}

func TestDrainEndsStreamsAndLetsCallsFinish(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	g := newGateway(t, options{}, map[string]http.Handler{"repos": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		http.NewResponseController(w).Flush()
		if r.Method == http.MethodGet {
			<-r.Context().Done()
			return
		}
		<-release
		io.WriteString(w, "data: done\n\n")
	})})
	stream := g.open(t.Context(), "alice", http.MethodGet, "/mcp/repos", nil, nil)
	defer stream.Body.Close()
	call := g.open(t.Context(), "alice", http.MethodPost, "/mcp/repos", strings.NewReader(whoami), nil)
	defer call.Body.Close()
	g.streams.Drain()
	if rest, err := io.ReadAll(stream.Body); err != nil || len(rest) > 0 {
		t.Errorf("the stream: %q %v", rest, err)
	}
	close(release)
	if rest, err := io.ReadAll(call.Body); err != nil || string(rest) != "data: done\n\n" {
		t.Errorf("the call: %q %v", rest, err)
	}
}

func TestClientThatGoesAwayCancelsTheBackend(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{})
	g := newGateway(t, options{}, map[string]http.Handler{"repos": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(gone)
	})})
	ctx, cancel := context.WithCancel(t.Context())
	resp := g.open(ctx, "alice", http.MethodPost, "/mcp/repos", strings.NewReader(whoami), nil)
	cancel()
	<-gone
	resp.Body.Close()
}

// endless answers with a stream that ends with the request.
func endless(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

func TestNoStreamOutlivesTheTokenThatItWasOpenedWith(t *testing.T) {
	t.Parallel()
	g := newGateway(t, options{}, map[string]http.Handler{"repos": http.HandlerFunc(endless)})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for method, header := range map[string]map[string]string{
		http.MethodGet:  {},
		http.MethodPost: statelessHeader("subscriptions/listen", ""),
	} {
		// Good for two seconds more, within the leeway of the clocks.
		header["Authorization"] = "Bearer " + g.issuer.Token("alice", "session-of-alice", g.audience, gatewaytest.Claims{
			"exp": time.Now().Add(2*time.Second - bearer.DefaultLeeway).Unix(),
		})
		resp := g.open(ctx, "", method, "/mcp/repos", strings.NewReader(stateless("subscriptions/listen", `"notifications":{},`)), header)
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %d", method, resp.StatusCode)
		}
		if _, err := io.ReadAll(resp.Body); err != nil { // blocks for as long as the stream lives
			t.Errorf("%s: the stream broke instead of ending: %v", method, err)
		}
		resp.Body.Close()
	}
}

func TestAnAnswerThatIsAStreamEndsWithItsToken(t *testing.T) {
	t.Parallel()
	g := newGateway(t, options{}, map[string]http.Handler{"repos": http.HandlerFunc(endless)})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	resp := g.open(ctx, "", http.MethodPost, "/mcp/repos", strings.NewReader(whoami), map[string]string{
		"Authorization": "Bearer " + g.issuer.Token("alice", "session-of-alice", g.audience, gatewaytest.Claims{
			"exp": time.Now().Add(3*time.Second - bearer.DefaultLeeway).Unix(),
		}),
	})
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%d", resp.StatusCode)
	}
	if _, err := io.ReadAll(resp.Body); err != nil { // blocks for as long as the stream lives
		t.Errorf("the stream broke instead of ending: %v", err)
	}
	eventually(t, "the line says why", func() bool { return strings.Contains(g.log.String(), "TOKEN_EXPIRED") })
}

func TestStreamsOfOneCallerAreBounded(t *testing.T) {
	t.Parallel()
	g := newGateway(t, options{maxStreams: 1}, map[string]http.Handler{"repos": http.HandlerFunc(endless)})
	open := func(subject, method string, header map[string]string) int {
		resp := g.open(t.Context(), subject, method, "/mcp/repos", strings.NewReader(stateless("subscriptions/listen", `"notifications":{},`)), header)
		t.Cleanup(func() { resp.Body.Close() })
		return resp.StatusCode
	}
	for _, subject := range []string{"alice", "bob"} {
		if status := open(subject, http.MethodGet, nil); status != http.StatusOK {
			t.Errorf("the first of %s: %d", subject, status)
		}
	}
	if status := open("alice", http.MethodGet, nil); status != http.StatusTooManyRequests {
		t.Errorf("a second one: %d, want 429", status)
	}
	if status := open("alice", http.MethodPost, statelessHeader("subscriptions/listen", "")); status != http.StatusTooManyRequests {
		t.Errorf("a subscription beside it: %d, want 429", status)
	}
}
