package aggregate_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

func TestABackendAsksNothingOfAClientThatCannotAnswer(t *testing.T) {
	t.Parallel()
	repos := newServer(t, "repos", serverOptions{}).asking()
	h := newHouse(t, 1, repos)
	for _, version := range eras() {
		c := h.connect(t, version, "alice", &mcp.ClientOptions{Capabilities: &mcp.ClientCapabilities{}})
		if res := callTool(t, c, "repos_ask", nil); !res.IsError {
			t.Errorf("a client of %s without elicitation got %q", version, textOf(t, res.Content))
		}
	}
}

func TestAnAnswerReachesTheOneWhoAskedAlone(t *testing.T) {
	t.Parallel()
	repos := newServer(t, "repos", serverOptions{}).asking()
	h := newHouse(t, 2, repos)
	open := func(user string) string {
		a := h.do(t, http.MethodPost, `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{"elicitation":{}},"clientInfo":{"name":"raw","version":"1"}}}`, asUser, user)
		return a.header.Get("Mcp-Session-Id")
	}
	id, second, bob := open("alice"), open("alice"), open("bob")
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.URL, strings.NewReader(strings.Replace(toolCall, "_get", "_ask", 1)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Mcp-Session-Id", id)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	question := nextData(t, bufio.NewReader(resp.Body))
	match := regexp.MustCompile(`"id":"([^"]+)"`).FindStringSubmatch(question)
	if match == nil || !strings.Contains(question, "elicitation/create") {
		t.Fatalf("the question is %s", question)
	}
	answer := `{"jsonrpc":"2.0","id":"` + match[1] + `","result":{"action":"decline"}}`
	repos.forget()
	for name, header := range map[string][]string{
		"another session of the person": {"Mcp-Session-Id", second},
		"another person":                {"Mcp-Session-Id", bob, asUser, "bob"},
	} {
		if a := h.do(t, http.MethodPost, answer, header...); a.status != http.StatusBadRequest {
			t.Errorf("an answer of %s: %d, want 400", name, a.status)
		}
	}
	if a := h.do(t, http.MethodPost, `{"jsonrpc":"2.0","id":1,"result":{}}`, "Mcp-Session-Id", id); a.status != http.StatusBadRequest {
		t.Errorf("an answer to nothing: %d, want 400", a.status)
	}
	if n := repos.total(); n != 0 {
		t.Errorf("%d answers reached the backend", n)
	}
	if a := h.do(t, http.MethodPost, answer, "Mcp-Session-Id", id); a.status != http.StatusAccepted {
		t.Errorf("the answer of the session: %d %s", a.status, a.body)
	}
	if repos.count(`"decline"`) != 1 {
		t.Error("the answer did not reach the backend")
	}
	repos.start(serverOptions{}) // who asked is gone; in a new session the same id may be another question
	if a := h.do(t, http.MethodPost, listing, "Mcp-Session-Id", id); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	repos.forget()
	if a := h.do(t, http.MethodPost, answer, "Mcp-Session-Id", id); a.status != http.StatusBadRequest || repos.total() != 0 {
		t.Errorf("an answer to a session of before: %d, want 400", a.status)
	}
}

// nextData returns the data of the next event that has some.
func nextData(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	for {
		line, err := r.ReadString('\n')
		if data, ok := strings.CutPrefix(line, "data:"); ok && strings.TrimSpace(data) != "" {
			return strings.TrimSpace(data)
		}
		if err != nil {
			t.Fatalf("the stream ended: %v", err)
		}
	}
}

func TestChangesAreAnnouncedOnTheStream(t *testing.T) {
	t.Parallel()
	subscribed := &mcp.ServerOptions{
		SubscribeHandler:   func(context.Context, *mcp.SubscribeRequest) error { return nil },
		UnsubscribeHandler: func(context.Context, *mcp.UnsubscribeRequest) error { return nil },
	}
	a := newServer(t, "a", serverOptions{}).echo("one").prompt("p")
	b := newServer(t, "b", serverOptions{mcp: subscribed}).echo("one").resource("b://x")
	h := newHouse(t, 2, a, b, newServer(t, "c", serverOptions{stateless: true, only: true}).echo("one"))
	tools, updates := make(chan struct{}, 10), make(chan string, 10)
	c := h.connect(t, eraSession, "alice", &mcp.ClientOptions{
		ToolListChangedHandler: func(context.Context, *mcp.ToolListChangedRequest) { tools <- struct{}{} },
		ResourceUpdatedHandler: func(_ context.Context, r *mcp.ResourceUpdatedNotificationRequest) { updates <- r.Params.URI },
	})
	caps := c.InitializeResult().Capabilities
	if !caps.Tools.ListChanged || !caps.Resources.Subscribe || !caps.Prompts.ListChanged {
		t.Errorf("the capabilities are %+v", caps)
	}
	for _, s := range []*server{a, b} {
		until(t, "the gateway listens to "+s.name, func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			for _, r := range s.requests {
				if r.method == http.MethodGet {
					return true
				}
			}
			return false
		})
		// The SDK's server holds notifications of a session without a stream back.
		s.echo("two")
		receive(t, tools, "the change of "+s.name)
	}
	if err := c.Subscribe(t.Context(), &mcp.SubscribeParams{URI: "b://x"}); err != nil {
		t.Fatal(err)
	}
	if err := b.mcp.ResourceUpdated(t.Context(), &mcp.ResourceUpdatedNotificationParams{URI: "b://x"}); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, updates, "the update"); got != "b://x" {
		t.Errorf("the update is of %q", got)
	}
	if err := c.Unsubscribe(t.Context(), &mcp.UnsubscribeParams{URI: "b://x"}); err != nil {
		t.Error(err)
	}
}

func receive[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatalf("timed out waiting for: %s", what)
		panic("not reached")
	}
}

func TestWhereNoBackendHasAStreamThereIsNone(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 1, newServer(t, "a", serverOptions{stateless: true}).echo("x"), newServer(t, "b", serverOptions{stateless: true, only: true}).echo("x"))
	id := h.open(t, "alice", eraSession)
	a := h.do(t, http.MethodGet, "", "Mcp-Session-Id", id)
	if a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") == "" {
		t.Errorf("GET: %d, want 405", a.status)
	}
	if a := h.do(t, http.MethodGet, "", "Mcp-Protocol-Version", eraStateless); a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") != "POST" {
		t.Errorf("GET of the stateless era: %d, want 405", a.status)
	}
}

func TestACallWhoseStreamBreaksGoesOn(t *testing.T) {
	t.Parallel()
	repos := newServer(t, "repos", serverOptions{events: true})
	proceed := make(chan struct{})
	mcp.AddTool(repos.mcp, &mcp.Tool{Name: "long"}, func(ctx context.Context, r *mcp.CallToolRequest, _ echoIn) (*mcp.CallToolResult, any, error) {
		if err := r.Session.NotifyProgress(ctx, &mcp.ProgressNotificationParams{ProgressToken: "t", Message: "begun"}); err != nil {
			return nil, nil, err
		}
		<-proceed
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: "the result"}}}, nil, nil
	})
	h := newHouse(t, 2, repos)
	id := h.open(t, "alice", eraSession)
	ctx, drop := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, strings.NewReader(strings.Replace(toolCall, "_get", "_long", 1)))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Mcp-Session-Id", id)
	r.Header.Set("Mcp-Protocol-Version", eraSession)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	last := ""
	for body := bufio.NewReader(resp.Body); ; {
		line, err := body.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if eventID, ok := strings.CutPrefix(line, "id:"); ok {
			last = strings.TrimSpace(eventID)
		}
		if strings.Contains(line, "begun") {
			break
		}
	}
	drop()
	_ = resp.Body.Close()
	if last == "" {
		t.Fatal("the event has no id")
	}
	close(proceed)
	if a := h.do(t, http.MethodGet, "", "Mcp-Session-Id", h.open(t, "alice", eraSession), "Last-Event-ID", last); a.status != http.StatusBadRequest {
		t.Errorf("another session resumes the stream: %d", a.status)
	}
	until(t, "the result is there", func() bool {
		a := h.do(t, http.MethodGet, "", "Mcp-Session-Id", id, "Last-Event-ID", last, "Mcp-Protocol-Version", eraSession)
		return a.status == http.StatusOK && strings.Contains(a.body, "the result") && strings.Contains(a.body, `"id":3`)
	})
}

func TestBatchesOfTheOldestVersionAreServedAndOfNoOther(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 1, newServer(t, "repos", serverOptions{}).echo("get"), newServer(t, "json", serverOptions{json: true}).echo("get"))
	id := h.open(t, "alice", "2025-03-26")
	batch := "[" + ping + "," + listing + "," + toolCall + "," + strings.NewReplacer("repos_", "json_", `"id":3`, `"id":4`).Replace(toolCall) +
		`,{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":9}},{"jsonrpc":"2.0","id":5,"method":"initialize","params":{}},{"id":6}]`
	a := h.do(t, http.MethodPost, batch, "Mcp-Session-Id", id)
	if a.status != http.StatusOK || a.header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("%d %v %s", a.status, a.header, a.body)
	}
	var got []string
	reader := bufio.NewReader(strings.NewReader(a.body + "\n"))
	for range 6 {
		got = append(got, nextData(t, reader))
	}
	for i, want := range []string{`{"jsonrpc":"2.0","id":1,"result":{}}`, `"repos_get"`, `repos:get:`, `json:get:`, `-32600`, `-32600`} {
		if !strings.Contains(got[i], want) {
			t.Errorf("answer %d is %s, want %s", i, got[i], want)
		}
	}
	if rest, _ := io.ReadAll(reader); strings.Contains(string(rest), "data:") {
		t.Errorf("more than the answers: %s", rest)
	}
	if a := h.do(t, http.MethodPost, `[{"jsonrpc":"2.0","method":"notifications/initialized"}]`, "Mcp-Session-Id", id); a.status != http.StatusAccepted {
		t.Errorf("a batch of notifications: %d", a.status)
	}
	later := h.open(t, "alice", "2025-06-18")
	for name, header := range map[string][]string{
		"a session of a later version":          {"Mcp-Session-Id", later},
		"a header of a later version":           {"Mcp-Session-Id", id, "Mcp-Protocol-Version", "2025-06-18"},
		"a header of a version without session": {"Mcp-Protocol-Version", eraStateless},
	} {
		if a := h.do(t, http.MethodPost, batch, header...); a.status != http.StatusBadRequest {
			t.Errorf("a batch in %s: %d, want 400", name, a.status)
		}
	}
}

func TestAnAnswerInABatchIsBounded(t *testing.T) {
	t.Parallel()
	large := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // fine for itself, too much with another
		var m struct {
			ID json.RawMessage `json:"id"`
		}
		_ = json.NewDecoder(r.Body).Decode(&m)
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":{"tools":[{"name":"get","inputSchema":{},"description":"%s"}]}}`, m.ID, strings.Repeat("x", 9<<20))
	})
	a, b := newServer(t, "a", serverOptions{}).echo("get"), newServer(t, "b", serverOptions{}).echo("get")
	h := newPatientHouse(t, patience, 1, a, b)
	id := h.open(t, "alice", "2025-03-26")
	a.use(large)
	b.use(large)
	got := h.do(t, http.MethodPost, "["+listing+","+ping+"]", "Mcp-Session-Id", id)
	if !strings.Contains(got.body, `"id":2,"error"`) || !strings.Contains(got.body, `"id":1,"result"`) {
		t.Errorf("%d, %d bytes: %s", got.status, len(got.body), got.body[:min(len(got.body), 300)])
	}
}

func TestTheStreamOfASessionThatWasEndedCloses(t *testing.T) {
	t.Parallel()
	repos := newServer(t, "repos", serverOptions{}).echo("get")
	h := newHouse(t, 2, repos)
	id := h.open(t, "alice", eraSession)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, h.URL, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/event-stream")
	r.Header.Set("Mcp-Session-Id", id)
	resp, err := http.DefaultClient.Do(r)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET: %v, %v", resp, err)
	}
	defer resp.Body.Close()
	if a := h.do(t, http.MethodDelete, "", "Mcp-Session-Id", id); a.status != http.StatusNoContent {
		t.Fatalf("DELETE: %d %s", a.status, a.body)
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Errorf("the stream did not close: %v", err)
	}
}

func TestABodyIsBounded(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 1, newServer(t, "repos", serverOptions{}).echo("get"))
	id := h.open(t, "alice", eraSession)
	large := strings.Replace(toolCall, "{}", `{"text":"`+strings.Repeat("x", 5<<20)+`"}`, 1)
	if a := h.do(t, http.MethodPost, large, "Mcp-Session-Id", id); a.status != http.StatusRequestEntityTooLarge {
		t.Errorf("five megabytes: %d, want 413", a.status)
	}
}
