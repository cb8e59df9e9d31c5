package aggregate_test

import (
	"bufio"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/gateway/internal/caller"
	"chatelaine.dev/services/gateway/internal/credentials"
)

// stuck answers nothing until the test is over.
func (s *server) stuck(t *testing.T) {
	t.Helper()
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	s.use(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-over:
		case <-r.Context().Done():
		}
	}))
}

func TestADeadAndASlowBackendCostTheirOwnToolsOnly(t *testing.T) {
	t.Parallel()
	for _, version := range eras() {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			good := newServer(t, "good", serverOptions{}).echo("get")
			dead := newServer(t, "dead", serverOptions{}).echo("get")
			slow := newServer(t, "slow", serverOptions{}).echo("get")
			dead.http.Close()
			slow.stuck(t)
			h := newHouse(t, 1, good, dead, slow)
			c := h.connect(t, version, "alice", nil)
			wantEqual(t, "tools", toolNames(t, c), []string{"good_get"})
			start := time.Now()
			wantEqual(t, "tools", toolNames(t, c), []string{"good_get"})
			if took := time.Since(start); took > time.Second {
				t.Errorf("the list waited %v for a backend that was slow just before", took)
			}
			if got := textOf(t, callTool(t, c, "good_get", nil).Content); got != "good:get:" {
				t.Errorf("the tool of the good backend answers %q", got)
			}
			for _, name := range []string{"dead", "slow"} {
				res := callTool(t, c, name+"_get", nil)
				if text := textOf(t, res.Content); !res.IsError || !strings.Contains(text, name) {
					t.Errorf("the tool of the %s backend: isError %v, %q", name, res.IsError, text)
				}
				_, err := c.GetPrompt(t.Context(), &mcp.GetPromptParams{Name: name + "_p"})
				rpc, ok := errors.AsType[*jsonrpc.Error](err)
				if !ok || !strings.Contains(rpc.Message, name) {
					t.Errorf("the prompt of the %s backend: %v", name, err)
				}
			}
			for _, want := range []string{"backend=dead", "backend=slow"} {
				if !strings.Contains(h.logs.String(), want) {
					t.Errorf("the log lacks %s", want)
				}
			}
		})
	}
}

func TestToolsDoNotVanishWhileABackendIsDown(t *testing.T) {
	t.Parallel()
	combinations(t, func(t *testing.T, version string, opts serverOptions) {
		small := opts
		small.mcp = &mcp.ServerOptions{PageSize: 1}
		good := newServer(t, "good", opts).echo("get")
		frail := newServer(t, "frail", small).echo("one").echo("two")
		h := newHouse(t, 1, good, frail)
		all := []string{"frail_one", "frail_two", "good_get"}
		alice := h.connect(t, version, "alice", nil)
		wantEqual(t, "alice's tools", toolNames(t, alice), all)
		frail.down()
		wantEqual(t, "alice's tools while a backend is down", toolNames(t, h.connect(t, version, "alice", nil)), all)
		wantEqual(t, "bob's tools, who has never seen that backend", toolNames(t, h.connect(t, version, "bob", nil)), []string{"good_get"})
		frail.start(small)
		wantEqual(t, "bob's tools when it is back", toolNames(t, h.connect(t, version, "bob", nil)), all)
	})
}

func TestWhatNeedsNoLoginIsRememberedForEverybody(t *testing.T) {
	t.Parallel()
	open := newServer(t, "open", serverOptions{}).echo("get")
	h := newHouse(t, 1, open)
	h.deployment.Backends[0].Strategy = config.Strategy{Type: config.StrategyUnauthenticated}
	wantEqual(t, "alice's tools", toolNames(t, h.connect(t, eraSession, "alice", nil)), []string{"open_get"})
	open.down()
	wantEqual(t, "bob's tools", toolNames(t, h.connect(t, eraSession, "bob", nil)), []string{"open_get"})
}

func TestAMissingConnectionIsSaidToWhoCanMakeIt(t *testing.T) {
	t.Parallel()
	for _, version := range eras() {
		for _, reason := range []string{credentials.ReasonConnectionRequired, credentials.ReasonReauthenticationRequired} {
			t.Run(version+" "+reason, func(t *testing.T) {
				t.Parallel()
				repos := newServer(t, "repos", serverOptions{}).echo("get").prompt("p")
				status := newServer(t, "status", serverOptions{}).echo("get")
				h := newHouse(t, 2, repos, status)
				missing := fault.New(fault.Precondition, "connect octohub").WithReason(reason, "provider", "octohub")
				h.credentials.set("repos/alice", missing)
				alice, bob := h.connect(t, version, "alice", nil), h.connect(t, version, "bob", nil)
				wantEqual(t, "alice's tools", toolNames(t, alice), []string{"status_get"})
				wantEqual(t, "bob's tools", toolNames(t, bob), []string{"repos_get", "status_get"})
				res := callTool(t, alice, "repos_get", nil)
				if text := textOf(t, res.Content); !res.IsError || !strings.Contains(text, "octohub") || !strings.Contains(text, "repos") {
					t.Errorf("the result is isError %v, %q", res.IsError, text)
				}
				_, err := alice.GetPrompt(t.Context(), &mcp.GetPromptParams{Name: "repos_p"})
				rpc, ok := errors.AsType[*jsonrpc.Error](err)
				if !ok || rpc.Code != -32011 || !strings.Contains(rpc.Message, "octohub") || !strings.Contains(string(rpc.Data), reason) {
					t.Errorf("the prompt: %v", err)
				}
				if got := textOf(t, callTool(t, alice, "status_get", nil).Content); got != "status:get:" {
					t.Errorf("the other backend answers %q", got)
				}
				// The connection is made: the backend joins without anything more.
				h.credentials.set("repos/alice", nil)
				if got := textOf(t, callTool(t, alice, "repos_get", nil).Content); got != "repos:get:" {
					t.Errorf("the tool answers %q", got)
				}
				wantEqual(t, "alice's tools", toolNames(t, alice), []string{"repos_get", "status_get"})
				// Bob's connection ends: his tools stay, their calls say why.
				h.credentials.set("repos/bob", missing)
				for range 2 {
					toolNames(t, bob)
				}
				if res := callTool(t, bob, "repos_get", nil); !res.IsError {
					t.Error("a call without a connection is no error")
				}
			})
		}
	}
}

func TestALoginThatEndedIsA401OfOurs(t *testing.T) {
	t.Parallel()
	repos := newServer(t, "repos", serverOptions{}).echo("get")
	h := newHouse(t, 1, repos)
	id := h.open(t, "alice", eraSession)
	h.credentials.set("repos", fault.New(fault.Unauthenticated, "the session has ended").WithReason(credentials.ReasonSessionEnded))
	for _, body := range []string{toolCall, listing} {
		if a := h.do(t, http.MethodPost, body, "Mcp-Session-Id", id); a.status != http.StatusUnauthorized {
			t.Errorf("%s: %d, want 401", body, a.status)
		}
	}
}

func TestABackendsRefusalIsNeverOurs(t *testing.T) {
	t.Parallel()
	repos := newServer(t, "repos", serverOptions{}).echo("get")
	h := newHouse(t, 1, repos)
	id := h.open(t, "alice", eraSession)
	for _, status := range []int{401, 403, 302, 400, 405, 429, 500, 503, 202, 204} {
		repos.use(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Set-Cookie", "a=b")
			w.Header().Set("WWW-Authenticate", "Bearer")
			w.WriteHeader(status)
			if status >= 300 {
				_, _ = w.Write([]byte("secret text of the backend"))
			}
		}))
		a := h.do(t, http.MethodPost, toolCall, "Mcp-Session-Id", id)
		if a.status != http.StatusOK || !strings.Contains(a.body, `"isError":true`) || !strings.Contains(a.body, "repos") {
			t.Errorf("a backend's %d: %d %s", status, a.status, a.body)
		}
		if strings.Contains(a.body, "secret text") || a.header.Get("Set-Cookie") != "" || a.header.Get("WWW-Authenticate") != "" {
			t.Errorf("a backend's %d shows through: %v %s", status, a.header, a.body)
		}
	}
	repos.use(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"jsonrpc":"2.0","id":3,"error":{"code":-32099,"message":"no","data":{"x":1}}}`))
	}))
	a := h.do(t, http.MethodPost, toolCall, "Mcp-Session-Id", id)
	if want := `{"jsonrpc":"2.0","id":3,"error":{"code":-32099,"message":"no","data":{"x":1}}}`; a.status != http.StatusOK || a.body != want {
		t.Errorf("a backend's JSON-RPC error: %d %s", a.status, a.body)
	}
}

func TestAnAnswerThatIsCutOffIsNotTakenForAnAnswer(t *testing.T) {
	t.Parallel()
	repos := newServer(t, "repos", serverOptions{}).echo("get")
	h := newHouse(t, 1, repos)
	id := h.open(t, "alice", eraSession)
	repos.use(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = w.Write([]byte("data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\"}\n\ndata: {\"jsonrpc\""))
	}))
	a := h.do(t, http.MethodPost, toolCall, "Mcp-Session-Id", id)
	if !strings.Contains(a.body, "notifications/message") || !strings.Contains(a.body, `"id":3`) || !strings.Contains(a.body, `"isError":true`) {
		t.Errorf("a stream that was cut off: %s", a.body)
	}

	repos.use(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte(`{"jsonrpc":"2.0","id":3,`))
	}))
	a = h.do(t, http.MethodPost, toolCall, "Mcp-Session-Id", id)
	if !strings.Contains(a.body, `"id":3`) || !strings.Contains(a.body, `"isError":true`) {
		t.Errorf("an answer that was cut off: %s", a.body)
	}
}

func TestABackendAnswersNothingButTheRequestThatItWasSent(t *testing.T) {
	t.Parallel()
	const forged = `{"jsonrpc":"2.0","id":99,"result":{"content":[],"forged":"\"method\""}}`
	const genuine = `{"jsonrpc":"2.0","id":3,"result":{"content":[],"genuine":true}}`
	const notification = `{"jsonrpc":"2.0","method":"notifications/message"}`
	stream := func(messages ...string) string { return "data: " + strings.Join(messages, "\n\ndata: ") + "\n\n" }
	for name, c := range map[string]struct {
		contentType, body, want string
	}{
		"a call's stream":                    {"text/event-stream", stream(forged, "no message", notification, genuine, genuine), "genuine"},
		"a stream without the answer":        {"text/event-stream", stream(notification, forged), `"isError":true`},
		"an answer in JSON":                  {"application/json", forged, `"isError":true`},
		"a line that only some take for one": {"text/event-stream", ": x\rdata: " + genuine + "\r\r", "genuine"},
	} {
		repos := newServer(t, "repos", serverOptions{}).echo("get")
		h := newHouse(t, 1, repos)
		id := h.open(t, "alice", eraSession)
		repos.use(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", c.contentType)
			_, _ = w.Write([]byte(c.body))
		}))
		a := h.do(t, http.MethodPost, toolCall, "Mcp-Session-Id", id)
		if strings.Contains(a.body, "forged") || strings.Contains(a.body, "no message") || strings.Contains(a.body, "\r") {
			t.Errorf("%s: what is not the answer has passed: %s", name, a.body)
		}
		if strings.Count(a.body, c.want) != 1 || !strings.Contains(a.body, `"id":3`) {
			t.Errorf("%s: got %s, want %s once", name, a.body, c.want)
		}
	}
}

func TestTheStreamOfASessionAnswersNoCall(t *testing.T) {
	t.Parallel()
	evil := newServer(t, "evil", serverOptions{}).echo("get")
	h := newHouse(t, 1, evil, newServer(t, "good", serverOptions{}).echo("get"))
	id := h.open(t, "alice", eraSession)
	evil.use(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = w.Write([]byte("data: {\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{\"content\":[]}}\n\n" +
			"data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\"}\n\n"))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, h.URL, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/event-stream")
	r.Header.Set("Mcp-Session-Id", id)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if first := nextData(t, bufio.NewReader(resp.Body)); !strings.Contains(first, "notifications/message") {
		t.Errorf("the stream of the session has %s", first)
	}
}

func TestNoClientReadsAnythingInAStreamThatTheGatewayDidNot(t *testing.T) {
	t.Parallel()
	const forged = `{"jsonrpc":"2.0","id":99,"result":{}}`
	const genuine = `{"jsonrpc":"2.0","id":3,"result":{"content":[]}}`
	const mark = "\xef\xbb\xbf"
	for name, body := range map[string]string{
		"two marks of byte order, of which some skip both": mark + mark + "data: " + forged + "\n\n",
		"a line separator in a string":                     `data: {"jsonrpc":"2.0","method":"notifications/message","params":{"data":"` + "\u2028\u2028data: " + strings.ReplaceAll(forged, `"`, "'") + "\u2028\u2028" + `"}}` + "\n\n",
		"a next line in a string":                          `data: {"jsonrpc":"2.0","method":"notifications/message","params":{"data":"` + "\u0085data: x" + `"}}` + "\n\n",
		"a comment":                                        ": \u2028\u2028data: " + forged + "\n\n",
		"an unknown field":                                 "Data: " + forged + "\nx: 1\n\n",
		"an event of another name":                         "event: endpoint\ndata: " + genuine + "\n\nevent: \u2028data: " + forged + "\ndata: " + genuine + "\n\n",
		"a wait for all streams":                           "retry: 99999999\n\nretry: 1x\n\n",
	} {
		repos := newServer(t, "repos", serverOptions{}).echo("get")
		h := newHouse(t, 1, repos)
		id := h.open(t, "alice", eraSession)
		repos.use(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = w.Write([]byte(body + "data: " + genuine + "\n\n"))
		}))
		a := h.do(t, http.MethodPost, toolCall, "Mcp-Session-Id", id)
		for line := range strings.FieldsFuncSeq(a.body, func(r rune) bool { return strings.ContainsRune("\r\n\u0085\u2028\u2029\ufeff", r) }) {
			text, ok := strings.CutPrefix(line, "data: ")
			if !ok && line != ": " || ok && !strings.HasPrefix(text, `{"jsonrpc":"2.0","method":"notifications/message"`) && text != genuine {
				t.Errorf("%s: a client may read %q", name, line)
			}
		}
		if strings.Count(a.body, genuine) != 1 {
			t.Errorf("%s: the answer is lost: %s", name, a.body)
		}
	}
}

func TestAStreamThatTheBackendClosesIsComeBackTo(t *testing.T) {
	t.Parallel()
	repos := newServer(t, "repos", serverOptions{}).echo("get")
	h := newHouse(t, 1, repos)
	old, id := h.open(t, "alice", "2025-06-18"), h.open(t, "alice", eraSession)
	repos.use(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		if r.Method == http.MethodGet {
			if r.Header.Get("Last-Event-Id") == "7" {
				_, _ = w.Write([]byte("data: {\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{\"content\":[]}}\n\n"))
			}
			return
		}
		_, _ = w.Write([]byte("id: 7\nretry: 500\ndata:\n\n"))
	}))
	a := h.do(t, http.MethodPost, toolCall, "Mcp-Session-Id", id)
	match := regexp.MustCompile(`^id: (\S+)\nretry: 500\ndata:$`).FindStringSubmatch(a.body)
	if match == nil {
		t.Fatalf("the client cannot come back: %q", a.body)
	}
	a = h.do(t, http.MethodGet, "", "Mcp-Session-Id", id, "Last-Event-ID", match[1])
	if !strings.Contains(a.body, `"id":3`) {
		t.Errorf("the rest of the stream is %q", a.body)
	}
	// Clients of before 2025-11-25 are not told to come back.
	if a := h.do(t, http.MethodPost, toolCall, "Mcp-Session-Id", old); !strings.Contains(a.body, `"isError":true`) {
		t.Errorf("a client that does not come back waits for ever: %q", a.body)
	}
}

func TestOldListsAreNotShownToACallerOfWhomTheBrokerSaysNothing(t *testing.T) {
	t.Parallel()
	repos, other := newServer(t, "repos", serverOptions{}).echo("get").resource("r://x"), newServer(t, "other", serverOptions{}).echo("get")
	h := newHouse(t, 1, repos, other)
	id := h.open(t, "alice", eraSession)
	if a := h.do(t, http.MethodPost, listing, "Mcp-Session-Id", id); !strings.Contains(a.body, "repos_get") {
		t.Fatalf("%d %s", a.status, a.body)
	}
	const read = `{"jsonrpc":"2.0","id":4,"method":"resources/read","params":{"uri":"r://x"}}`
	for _, reason := range []string{credentials.ReasonBrokerUnavailable, credentials.ReasonConfigUnknown} {
		gone := fault.New(fault.Unavailable, "the broker").WithReason(reason)
		h.credentials.set("repos", gone)
		h.credentials.set("other", gone)
		for name, request := range map[string]string{"a list": listing, "a call": toolCall, "a resource": read} {
			a := h.do(t, http.MethodPost, request, "Mcp-Session-Id", id)
			if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || !strings.Contains(a.body, reason) || strings.Contains(a.body, "repos_get") {
				t.Errorf("%s, %s: %d %s, want 503", reason, name, a.status, a.body)
			}
		}
		// As long as it says something of the caller, only a part is missing.
		h.credentials.set("other", nil)
		if a := h.do(t, http.MethodPost, listing, "Mcp-Session-Id", id); a.status != http.StatusOK || !strings.Contains(a.body, "repos_get") {
			t.Errorf("%s for one backend: %d %s", reason, a.status, a.body)
		}
	}
	h.credentials.set("repos", nil)
	if a := h.do(t, http.MethodPost, read, "Mcp-Session-Id", id); a.status != http.StatusOK || !strings.Contains(a.body, "repos:r://x") {
		t.Errorf("a resource afterwards: %d %s", a.status, a.body)
	}
}

func TestOldListsAreNotShownWithoutTheBrokersWordHoweverTheyComeToBeShown(t *testing.T) {
	t.Parallel()
	refused := func(t *testing.T, a answer) {
		t.Helper()
		if a.status != http.StatusServiceUnavailable || !strings.Contains(a.body, credentials.ReasonBrokerUnavailable) || strings.Contains(a.body, "repos_get") {
			t.Errorf("the list: %d %s, want 503", a.status, a.body)
		}
	}
	start := func(t *testing.T) (*house, *server, string) {
		t.Helper()
		repos := newServer(t, "repos", serverOptions{}).echo("get")
		h := newHouse(t, 1, repos)
		id := h.open(t, "alice", eraSession)
		if a := h.do(t, http.MethodPost, listing, "Mcp-Session-Id", id); !strings.Contains(a.body, "repos_get") {
			t.Fatalf("%d %s", a.status, a.body)
		}
		return h, repos, id
	}
	t.Run("the backend was slow a moment ago", func(t *testing.T) {
		t.Parallel()
		h, repos, id := start(t)
		repos.stuck(t)
		for range 2 { // in the end without waiting
			if a := h.do(t, http.MethodPost, listing, "Mcp-Session-Id", id); a.status != http.StatusOK || !strings.Contains(a.body, "repos_get") {
				t.Fatalf("while the backend is stuck: %d %s", a.status, a.body)
			}
		}
		h.credentials.set("repos", fault.New(fault.Unavailable, "the broker").WithReason(credentials.ReasonBrokerUnavailable))
		refused(t, h.do(t, http.MethodPost, listing, "Mcp-Session-Id", id))
		h.credentials.set("repos", fault.New(fault.Unauthenticated, "the session has ended").WithReason(credentials.ReasonSessionEnded))
		if a := h.do(t, http.MethodPost, listing, "Mcp-Session-Id", id); a.status != http.StatusUnauthorized {
			t.Errorf("once the session has ended: %d %s, want 401", a.status, a.body)
		}
	})
	t.Run("the broker is silent in a handshake", func(t *testing.T) {
		t.Parallel()
		h, _, _ := start(t)
		h.credentials.silence(true)
		refused(t, h.do(t, http.MethodPost, listing, "Mcp-Session-Id", h.open(t, "alice", eraSession)))
		h.credentials.silence(false)
	})
}

// A request that waits when its session ends, or when nobody can say whether it has,
// is told so: a client that reads "canceled" in a successful answer does not know that
// it may come back.
func TestARequestThatIsGivenUpIsToldWhy(t *testing.T) {
	t.Parallel()
	const initialize = `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"raw","version":"1"}}}`
	for name, want := range map[string]struct {
		cause  error
		status int
	}{
		"the broker is silent": {fault.New(fault.Unavailable, "not confirmed").WithReason(credentials.ReasonBrokerUnavailable), http.StatusServiceUnavailable},
		"the session ended":    {fault.New(fault.Unauthenticated, "the session has ended").WithReason("SESSION_ENDED"), http.StatusUnauthorized},
	} {
		for _, request := range []string{initialize, listing} {
			repos := newServer(t, "repos", serverOptions{}).echo("get")
			h := newHouse(t, 1, repos)
			id := h.open(t, "alice", eraSession)
			ctx, cancel := context.WithCancelCause(t.Context())
			repos.use(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				cancel(want.cause)
				<-r.Context().Done()
			}))
			who := caller.New(caller.Claims{Issuer: "https://issuer", Subject: "alice", SessionID: "login-alice", ClientID: "client"}, secret.New("token-alice"))
			r := httptest.NewRequestWithContext(caller.NewContext(ctx, who), http.MethodPost, h.URL, strings.NewReader(request))
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("Accept", "application/json, text/event-stream")
			if request == listing {
				r.Header.Set("Mcp-Session-Id", id)
			}
			w := httptest.NewRecorder()
			h.replicas[0].ServeHTTP(w, r)
			if w.Code != want.status {
				t.Errorf("%s: %s is answered with %d %s, want %d", name, request, w.Code, w.Body, want.status)
			}
		}
	}
}
