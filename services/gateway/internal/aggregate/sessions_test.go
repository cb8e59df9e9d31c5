package aggregate_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"chatelaine.dev/services/gateway/internal/gatewaytest"
)

// whoami adds a tool that answers with the backend's session id.
func (s *server) whoami() *server {
	mcp.AddTool(s.mcp, &mcp.Tool{Name: "session"}, func(_ context.Context, r *mcp.CallToolRequest, _ echoIn) (*mcp.CallToolResult, any, error) {
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: r.Session.ID()}}}, nil, nil
	})
	return s
}

func (s *server) down() {
	s.use(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "down", http.StatusBadGateway) }))
}

const (
	ping     = `{"jsonrpc":"2.0","id":1,"method":"ping"}`
	listing  = `{"jsonrpc":"2.0","id":2,"method":"tools/list"}`
	toolCall = `{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"repos_get","arguments":{}}}`
)

func TestASessionIsOneSessionOnAllReplicas(t *testing.T) {
	t.Parallel()
	repos := newServer(t, "repos", serverOptions{}).whoami()
	h := newHouse(t, 2, repos)
	c := h.connect(t, eraSession, "alice", nil)
	first := textOf(t, callTool(t, c, "repos_session", nil).Content)
	for range 5 {
		if again := textOf(t, callTool(t, c, "repos_session", nil).Content); again != first || first == "" {
			t.Fatalf("the backend's session is %q, then %q", first, again)
		}
	}
	other := h.connect(t, eraSession, "alice", nil)
	if textOf(t, callTool(t, other, "repos_session", nil).Content) == first {
		t.Error("two sessions of a client share one at the backend")
	}
}

func TestASessionOpensForItsPersonAlone(t *testing.T) {
	t.Parallel()
	repos := newServer(t, "repos", serverOptions{}).echo("get")
	h := newHouse(t, 2, repos)
	id := h.open(t, "alice", eraSession)
	for name, header := range map[string][]string{
		"of another person": {"Mcp-Session-Id", id, asUser, "bob"},
		"changed":           {"Mcp-Session-Id", id[:len(id)-2] + "AA"},
		"invented":          {"Mcp-Session-Id", "12345678"},
		"too long":          {"Mcp-Session-Id", strings.Repeat("A", 5000)},
	} {
		for range 2 { // every replica
			for _, method := range []string{http.MethodPost, http.MethodGet, http.MethodDelete} {
				if a := h.do(t, method, toolCall, header...); a.status != http.StatusNotFound {
					t.Errorf("%s with a session id that is %s: %d, want 404", method, name, a.status)
				}
			}
		}
	}
	if repos.count("tools/call") != 0 {
		t.Error("a call reached the backend")
	}
	if a := h.do(t, http.MethodPost, toolCall); a.status != http.StatusBadRequest {
		t.Errorf("without a session id: %d, want 400", a.status)
	}
	for range 2 {
		if a := h.do(t, http.MethodPost, toolCall, "Mcp-Session-Id", id); a.status != http.StatusOK {
			t.Errorf("the session's own person: %d %s", a.status, a.body)
		}
	}
}

func TestASessionThatWasEndedStaysEnded(t *testing.T) {
	t.Parallel()
	repos := newServer(t, "repos", serverOptions{}).echo("get")
	status := newServer(t, "status", serverOptions{stateless: true}).echo("get")
	h := newHouse(t, 3, repos, status)
	id := h.open(t, "alice", eraSession)
	for range 3 { // now every replica knows the session
		if a := h.do(t, http.MethodPost, toolCall, "Mcp-Session-Id", id); a.status != http.StatusOK {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	if a := h.do(t, http.MethodDelete, "", "Mcp-Session-Id", id); a.status != http.StatusNoContent {
		t.Fatalf("DELETE: %d %s", a.status, a.body)
	}
	opened := repos.count(`"initialize"`)
	for range 3 {
		for _, body := range []string{ping, listing, toolCall} {
			if a := h.do(t, http.MethodPost, body, "Mcp-Session-Id", id); a.status != http.StatusNotFound {
				t.Errorf("%s: %d after the end of the session, want 404", body, a.status)
			}
		}
		if a := h.do(t, http.MethodDelete, "", "Mcp-Session-Id", id); a.status != http.StatusNotFound {
			t.Errorf("DELETE again: %d, want 404", a.status)
		}
		if a := h.do(t, http.MethodGet, "", "Mcp-Session-Id", id); a.status != http.StatusNotFound {
			t.Errorf("GET: %d, want 404", a.status)
		}
	}
	if repos.count(`"initialize"`) != opened {
		t.Error("the backend was initialised again for a session that has ended")
	}
	for range repos.mcp.Sessions() {
		t.Error("the backend still has the session")
	}
}

func TestABackendThatWasDownJoinsTheSessionOnce(t *testing.T) {
	t.Parallel()
	repos := newServer(t, "repos", serverOptions{}).whoami()
	status := newServer(t, "status", serverOptions{}).whoami()
	repos.down()
	h := newHouse(t, 3, repos, status)
	c := h.connect(t, eraSession, "alice", nil)
	wantEqual(t, "tools while repos is down", toolNames(t, c), []string{"status_session"})
	if c.InitializeResult().Capabilities.Resources == nil {
		t.Error("a backend that is down seems to have nothing to offer, for as long as the session lives")
	}
	repos.start(serverOptions{})

	var wg sync.WaitGroup
	ids := make([]string, 9)
	for i := range ids {
		wg.Go(func() { ids[i] = textOf(t, callTool(t, c, "repos_session", nil).Content) })
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] || id == "" {
			t.Fatalf("the replicas have the sessions %v at the backend", ids)
		}
	}
	until(t, "the sessions of the losers are ended", func() bool {
		n := 0
		for range repos.mcp.Sessions() {
			n++
		}
		return n == 1
	})
	wantEqual(t, "tools", toolNames(t, c), []string{"repos_session", "status_session"})
}

func TestABackendThatForgotItsSessionsGetsANewOne(t *testing.T) {
	t.Parallel()
	for _, version := range eras() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			repos := newServer(t, "repos", serverOptions{}).whoami().echo("get")
			h := newHouse(t, 2, repos)
			c := h.connect(t, version, "alice", nil)
			wantEqual(t, "tools", toolNames(t, c), []string{"repos_get", "repos_session"})
			before := textOf(t, callTool(t, c, "repos_session", nil).Content)
			callTool(t, c, "repos_session", nil)

			repos.start(serverOptions{}) // a restart: it knows no session any more
			repos.forget()
			after := textOf(t, callTool(t, c, "repos_session", nil).Content)
			if after == before || after == "" {
				t.Fatalf("the backend's session was %q and is %q", before, after)
			}
			if version == eraSession { // all replicas have agreed
				for range 4 {
					if again := textOf(t, callTool(t, c, "repos_session", nil).Content); again != after {
						t.Errorf("the backend's session is %q and %q", after, again)
					}
				}
				if n := repos.count(`"initialize"`); n != 1 {
					t.Errorf("the backend was initialised %d times", n)
				}
			}
			repos.start(serverOptions{})
			wantEqual(t, "tools", toolNames(t, c), []string{"repos_get", "repos_session"})
		})
	}
}

func TestABackendThatKeepsNoSessionIsNotAskedForEver(t *testing.T) {
	t.Parallel()
	repos := newServer(t, "repos", serverOptions{}).echo("get")
	h := newHouse(t, 1, repos)
	c := h.connect(t, eraSession, "alice", nil)
	inner := *repos.handler.Load()
	repos.use(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Mcp-Session-Id") != "" {
			http.Error(w, "session not found", http.StatusNotFound)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	repos.forget()
	res, err := c.CallTool(t.Context(), &mcp.CallToolParams{Name: "repos_get", Arguments: map[string]any{}})
	if err != nil || !res.IsError {
		t.Errorf("the call has the result %+v, %v; want an error for the model", res, err)
	}
	if n := repos.count("tools/call"); n > 2 {
		t.Errorf("the call was made %d times", n)
	}
}

func TestASessionThatDoesNotFitIntoItsIDWorksAllTheSame(t *testing.T) {
	t.Parallel()
	long := serverOptions{mcp: &mcp.ServerOptions{GetSessionID: newLongID()}}
	h := newHouse(t, 2, newServer(t, "a", long).whoami(), newServer(t, "b", long).whoami(), newServer(t, "c", long).whoami())
	c := h.connect(t, eraSession, "alice", nil)
	if n := len(c.ID()); n > 2048 {
		t.Errorf("the session id has %d characters", n)
	}
	for range 2 {
		for _, b := range []string{"a", "b", "c"} {
			if got := textOf(t, callTool(t, c, b+"_session", nil).Content); len(got) != 900 {
				t.Errorf("the backend's session id is %q", got)
			}
		}
	}
	if err := c.Close(); err != nil {
		t.Errorf("ending the session: %v", err)
	}
	if a := h.do(t, http.MethodPost, ping, "Mcp-Session-Id", c.ID()); a.status != http.StatusNotFound {
		t.Errorf("after its end: %d", a.status)
	}

	h.broker.setDown(true)
	a := h.do(t, http.MethodPost, `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}`)
	if a.header.Get("Mcp-Session-Id") != "" || !strings.Contains(a.body, `"error"`) {
		t.Errorf("a session that cannot be kept was opened: %d %s", a.status, a.body)
	}
}

func newLongID() func() string {
	var mu sync.Mutex
	n := 0
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		n++
		return fmt.Sprintf("%0900d", n)
	}
}

func TestSessionsGoOnWhileTheBrokerIsDown(t *testing.T) {
	t.Parallel()
	repos := newServer(t, "repos", serverOptions{}).echo("get")
	late := newServer(t, "late", serverOptions{}).echo("get")
	late.down()
	h := newHouse(t, 2, repos, late)
	id := h.open(t, "alice", eraSession)
	h.broker.setDown(true)
	late.start(serverOptions{})
	for range 4 {
		a := h.do(t, http.MethodPost, toolCall, "Mcp-Session-Id", id)
		if a.status != http.StatusOK || !strings.Contains(a.body, "repos:get:") {
			t.Errorf("a call: %d %s", a.status, a.body)
		}
		a = h.do(t, http.MethodPost, strings.Replace(toolCall, "repos_", "late_", 1), "Mcp-Session-Id", id)
		if a.status != http.StatusOK || !strings.Contains(a.body, "late:get:") {
			t.Errorf("a call of a backend that joined late: %d %s", a.status, a.body)
		}
	}
	if a := h.do(t, http.MethodDelete, "", "Mcp-Session-Id", id); a.status != http.StatusServiceUnavailable {
		t.Errorf("a session that cannot be ended everywhere: DELETE gives %d, want 503", a.status)
	}
	h.broker.setDown(false)
	if a := h.do(t, http.MethodDelete, "", "Mcp-Session-Id", id); a.status != http.StatusNoContent {
		t.Errorf("DELETE: %d %s", a.status, a.body)
	}
}

func TestNothingOfASessionIsStoredInTheClear(t *testing.T) {
	t.Parallel()
	repos := newServer(t, "repos", serverOptions{}).whoami()
	repos.down()
	h := newHouse(t, 1, repos)
	c := h.connect(t, eraSession, "alice", nil)
	repos.start(serverOptions{})
	id := textOf(t, callTool(t, c, "repos_session", nil).Content)
	h.broker.mu.Lock()
	defer h.broker.mu.Unlock()
	if len(h.broker.blobs) != 1 {
		t.Fatalf("%d blobs are stored, want 1", len(h.broker.blobs))
	}
	for key, b := range h.broker.blobs {
		if strings.Contains(string(b.GetSealed()), id) || strings.Contains(string(b.GetSealed()), "repos") || strings.Contains(c.ID(), key) {
			t.Error("the broker can read the session")
		}
	}
}

func TestStatelessClientsShareNoBackendSession(t *testing.T) {
	t.Parallel()
	repos := newServer(t, "repos", serverOptions{}).whoami()
	h := newHouse(t, 1, repos)
	alice, bob := h.connect(t, eraStateless, "alice", nil), h.connect(t, eraStateless, "bob", nil)
	first := textOf(t, callTool(t, alice, "repos_session", nil).Content)
	if first == "" || textOf(t, callTool(t, alice, "repos_session", nil).Content) != first {
		t.Error("a person gets a new backend session with each call")
	}
	if textOf(t, callTool(t, bob, "repos_session", nil).Content) == first {
		t.Error("two people share one backend session")
	}
	var wg sync.WaitGroup
	for range 20 { // ids of two clients would collide in one backend session
		for _, c := range []*mcp.ClientSession{alice, h.connect(t, eraStateless, "alice", nil)} {
			wg.Go(func() {
				if got := textOf(t, callTool(t, c, "repos_session", nil).Content); got != first {
					t.Errorf("the call was made in session %q, want %q", got, first)
				}
			})
		}
	}
	wg.Wait()
}

func TestPeopleOfAnotherIssuerShareNothing(t *testing.T) {
	t.Parallel()
	repos := newServer(t, "repos", serverOptions{}).whoami()
	h := newHouse(t, 1, repos)
	session := func(user string) string {
		return textOf(t, callTool(t, h.connect(t, eraStateless, user, nil), "repos_session", nil).Content)
	}
	alice := session(external + "alice")
	if alice == "" || session(external+"alice") != alice {
		t.Error("a person gets a new backend session with each client")
	}
	for _, other := range []string{external + "bob", "alice"} { // the latter with a session of ours
		if session(other) == alice {
			t.Errorf("%s shares a backend session with somebody else", other)
		}
	}
	wantEqual(t, "alice's tools", toolNames(t, h.connect(t, eraStateless, external+"alice", nil)), []string{"repos_session"})
	repos.down()
	wantEqual(t, "alice's tools while the backend is down", toolNames(t, h.connect(t, eraStateless, external+"alice", nil)), []string{"repos_session"})
	wantEqual(t, "bob's, who has seen none", toolNames(t, h.connect(t, eraStateless, external+"bob", nil)), nil)
	if a := h.do(t, http.MethodPost, listing, asUser, external+"bob", "Mcp-Session-Id", h.open(t, external+"alice", eraSession)); a.status != http.StatusNotFound {
		t.Errorf("alice's session opens for bob: %d", a.status)
	}
}

func TestCallersWithoutAnIdentityShareNoBackendSession(t *testing.T) {
	t.Parallel()
	repos := newServer(t, "repos", serverOptions{}).whoami().resource("r://x")
	h := newHouse(t, 1, repos, newServer(t, "other", serverOptions{}).resource("o://x"))
	c := h.connect(t, eraStateless, anonymous, nil)
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := make(map[string]bool)
	for range 10 {
		wg.Go(func() {
			id := textOf(t, callTool(t, c, "repos_session", nil).Content)
			mu.Lock()
			defer mu.Unlock()
			if id == "" || seen[id] {
				t.Errorf("the session %q serves two requests, which may be two people's", id)
			}
			seen[id] = true
		})
	}
	wg.Wait()
	if _, err := c.ReadResource(t.Context(), &mcp.ReadResourceParams{URI: "r://x"}); err != nil { // whose owner is looked for
		t.Error(err)
	}
	until(t, "the sessions are ended at the backend", func() bool {
		repos.mu.Lock()
		defer repos.mu.Unlock()
		opened, ended := 0, 0
		for _, r := range repos.requests {
			if strings.Contains(r.body, `"initialize"`) {
				opened++
			}
			if r.method == http.MethodDelete {
				ended++
			}
		}
		return opened > 10 && ended == opened
	})
}

func TestNoHeaderMeansTwoThings(t *testing.T) {
	t.Parallel()
	repos := newServer(t, "repos", serverOptions{}).echo("get")
	h := newHouse(t, 1, repos)
	id := h.open(t, "alice", eraSession)
	repos.forget()
	ctx, cancel := context.WithTimeout(t.Context(), patience) // a GET that is served does not end
	defer cancel()
	for _, header := range gatewaytest.AmbiguousHeaders() {
		for _, method := range []string{http.MethodPost, http.MethodGet, http.MethodDelete} {
			r, err := http.NewRequestWithContext(ctx, method, h.URL, strings.NewReader(toolCall))
			if err != nil {
				t.Fatal(err)
			}
			r.Header = header.Clone()
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Accept", "application/json, text/event-stream")
			if header.Get("Mcp-Session-Id") == "" {
				r.Header.Set("Mcp-Session-Id", id)
			}
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), "more than one value") {
				t.Errorf("%s %v: %d %s, want 400", method, header, resp.StatusCode, body)
			}
		}
	}
	if n := repos.total(); n != 0 {
		t.Errorf("%d of them reached the backend", n)
	}
	if a := h.do(t, http.MethodPost, toolCall, "Mcp-Session-Id", id); a.status != http.StatusOK || !strings.Contains(a.body, "repos:get") {
		t.Errorf("the session afterwards: %d %s", a.status, a.body)
	}
}
