package aggregate

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/internal/telemetry"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/gateway/internal/aggregate/mcpclient"
	"chatelaine.dev/services/gateway/internal/backend"
	"chatelaine.dev/services/gateway/internal/caller"
	"chatelaine.dev/services/gateway/internal/credentials"
	"chatelaine.dev/services/gateway/internal/jsonrpc"
	"chatelaine.dev/services/gateway/internal/limits"
	"chatelaine.dev/services/gateway/internal/sessionid"
	"chatelaine.dev/services/gateway/internal/sse"
)

// scripted answers with a result of its own to what is no handshake.
type scripted struct {
	canned

	result func(m *jsonrpc.Message) string
	events bool
}

func (s scripted) Do(ctx context.Context, c *caller.Caller, b *config.Backend, r *backend.Request) (*http.Response, error) {
	resp, err := s.canned.Do(ctx, c, b, r)
	m, parseErr := jsonrpc.Parse(r.Body)
	if err != nil || parseErr != nil || m.Method == "initialize" {
		return resp, err
	}
	body := jsonrpc.AppendResult(nil, m.RawID(), []byte(s.result(&m)))
	if s.events {
		resp.Header.Set("Content-Type", "text/event-stream")
		body = sse.Append(nil, sse.Event{Data: body})
	}
	resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader(string(body))), -1
	return resp, nil
}

// newScripted returns a handler of such backends, with a memory of its own.
func newScripted(t *testing.T, backends scripted) (*Handler, *caller.Caller, *limits.Memory) {
	t.Helper()
	bounds, err := limits.New(limits.Config{MemoryLimit: 200 << 20, Telemetry: telemetry.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	h, who := newHandler(t)
	h.memory = bounds.Memory
	h.client = mcpclient.New(backends, "v1.2.3", h.memory)
	h.sessions.client, h.reached.client = h.client, h.client
	return h, who, h.memory
}

// occupy takes all of a memory, for people of which nobody may take it alone.
func occupy(t *testing.T, m *limits.Memory) (release func()) {
	t.Helper()
	var leases []*limits.Lease
	for _, name := range []string{"x", "y", "z"} {
		l := &limits.Lease{}
		l.Begin(m, caller.New(caller.Claims{Issuer: "i", Subject: name}, secret.New(name)))
		for l.Take(limits.Free) == nil {
		}
		leases = append(leases, l)
	}
	return func() {
		for _, l := range leases {
			l.Release()
		}
	}
}

const (
	smallCall = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"repos_get","arguments":{}}}`
	toolsList = `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`
)

// Without a bound, large messages end the process, for everybody.
func TestLargeMessagesAreRefusedWhileThereIsNoRoomForThem(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("x", 256<<10)
	content := `{"content":[{"type":"text","text":"` + large + `"}]}`
	tool := func(m *jsonrpc.Message) string {
		if m.Method == "tools/list" {
			return `{"tools":[{"name":"get","description":"` + large + `","inputSchema":{}}]}`
		}
		return content
	}
	short := func(*jsonrpc.Message) string { return `{"content":[]}` }
	largeCall := strings.Replace(smallCall, "{}", `{"text":"`+large+`"}`, 1)
	for name, tt := range map[string]struct {
		backends scripted
		call     string
		status   int    // while there is no room
		says     string // the same
	}{
		"an answer":   {scripted{result: tool}, smallCall, http.StatusServiceUnavailable, limits.ReasonBusy},
		"an event":    {scripted{result: tool, events: true}, smallCall, http.StatusOK, `"isError":true`},
		"a list":      {scripted{result: tool}, toolsList, http.StatusServiceUnavailable, limits.ReasonBusy},
		"list events": {scripted{result: tool, events: true}, toolsList, http.StatusServiceUnavailable, limits.ReasonBusy},
		"a body":      {scripted{result: short}, largeCall, http.StatusServiceUnavailable, limits.ReasonBusy},
		"a small one": {scripted{result: short}, smallCall, http.StatusOK, `"content":[]`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, who, memory := newScripted(t, tt.backends)
			id := post(h, who, initializeBody).Header().Get("Mcp-Session-Id")
			release := occupy(t, memory)
			w := post(h, who, tt.call, "Mcp-Session-Id", id)
			if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.says) || w.Body.Len() > 1<<10 {
				t.Errorf("without room: %d, %d bytes: %s", w.Code, w.Body.Len(), w.Body.String()[:min(w.Body.Len(), 300)])
			}
			if (w.Header().Get("Retry-After") != "") != (tt.status == http.StatusServiceUnavailable) {
				t.Errorf("without room: Retry-After %q", w.Header().Get("Retry-After"))
			}
			release()
			for range 2 {
				if w := post(h, who, tt.call, "Mcp-Session-Id", id); w.Code != http.StatusOK || strings.Contains(w.Body.String(), "isError") {
					t.Errorf("with room again: %d, %d bytes", w.Code, w.Body.Len())
				}
			}
			if left := memory.Used(); left != 0 {
				t.Errorf("%d bytes are not given back", left)
			}
		})
	}
}

// What is kept of an event's id lasts as long as the stream does.
func TestAnEventIDThatIsTooLongIsNotKept(t *testing.T) {
	t.Parallel()
	h, who := newHandler(t)
	rec := httptest.NewRecorder()
	out := sse.NewWriter(rec)
	kept := 0
	s := &stream{handler: h, request: &request{who: who}, out: out, eventID: func(_ *stream, id []byte) []byte {
		kept += len(id)
		return id
	}}
	for _, id := range []string{strings.Repeat("x", maxEventID), strings.Repeat("y", maxEventID+1)} {
		ev := sse.Event{ID: []byte(id), HasID: true, Data: []byte(`{"jsonrpc":"2.0","method":"notifications/x"}`), HasData: true}
		if err := s.pass(&ev); err != nil {
			t.Fatal(err)
		}
	}
	if body := rec.Body.String(); kept != maxEventID || strings.Contains(body, "yy") || strings.Count(body, "notifications/x") != 2 {
		t.Errorf("%d bytes of ids are kept; the client got %d bytes", kept, len(body))
	}
}

// told ends each answer as soon as it is told of it.
type told struct{ ended, done atomic.Int32 }

func (s *told) Answer(_ context.Context, _ *caller.Caller, endpoint string, end func(error)) func() {
	s.ended.Add(1)
	end(fault.New(fault.Unavailable, "the gateway is stopping; "+endpoint).WithReason("STOP"))
	return func() { s.done.Add(1) }
}

func TestAnAnswerThatIsAStreamCanBeEnded(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	h, who := newHandler(t)
	entry := config.Backend{Name: "repos", RemoteURL: server.URL, Origin: server.URL}
	backends, err := backend.New(backend.Config{Backends: []config.Backend{entry}, Credentials: noCredentials{}, Telemetry: telemetry.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	id := post(h, who, initializeBody).Header().Get("Mcp-Session-Id")
	streams := &told{}
	h.client, h.streams = mcpclient.New(backends, "v1.2.3", nil), streams
	w := post(h, who, smallCall, "Mcp-Session-Id", id)
	if !strings.Contains(w.Body.String(), "the gateway is stopping; aggregate") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if streams.ended.Load() != 1 || streams.done.Load() != 1 {
		t.Errorf("told of %d, and of the end of %d", streams.ended.Load(), streams.done.Load())
	}
}

type noCredentials struct{}

func (noCredentials) Get(context.Context, *caller.Caller, string) (*credentials.Credential, error) {
	return &credentials.Credential{}, nil
}

func (noCredentials) Rejected(context.Context, *caller.Caller, string, *credentials.Credential) (bool, error) {
	return false, nil
}

// Streams of what servers say unasked are many, and last.
func TestAnEventThatNobodyAskedForIsBounded(t *testing.T) {
	t.Parallel()
	h, who := newHandler(t)
	for size, want := range map[int]bool{maxUnasked - 1<<10: true, maxUnasked + 1<<10: false} {
		rec := httptest.NewRecorder()
		out := sse.NewWriter(rec)
		l := &listener{handler: h, request: &request{who: who}, out: out, open: make(chan struct{}), positions: map[string]string{}}
		close(l.open)
		data := `{"jsonrpc":"2.0","method":"notifications/x","params":{"x":"` + strings.Repeat("x", size-100) + `"}}`
		body := io.NopCloser(strings.NewReader(string(sse.Append(nil, sse.Event{Data: []byte(data)}))))
		_, err := l.copy(t.Context(), &h.deployment.Backends[0], &mcpclient.Peer{}, &http.Response{Body: body}, "")
		if got := strings.Contains(rec.Body.String(), "xxx"); got != want {
			t.Errorf("an event of %d bytes passes: %v, %v", size, got, err)
		}
	}
}

func TestAMessageIsReadInUTF8Alone(t *testing.T) {
	t.Parallel()
	h, who := newHandler(t)
	for contentType, want := range map[string]int{
		"application/json; charset=utf-8": http.StatusOK,
		"application/json; charset=utf-7": http.StatusUnsupportedMediaType,
	} {
		if w := post(h, who, initializeBody, "Content-Type", contentType); w.Code != want {
			t.Errorf("%q: %d, want %d", contentType, w.Code, want)
		}
	}
}

func TestOnePersonOpensSessionsAtABoundedRate(t *testing.T) {
	t.Parallel()
	bounds, err := limits.New(limits.Config{Telemetry: telemetry.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	h, who := newHandler(t)
	h.newSessions = bounds.Sessions
	id, opened := "", 0
	for ; opened < 1000; opened++ {
		w := post(h, who, initializeBody)
		if w.Code == http.StatusTooManyRequests {
			if w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), `"id":0,"error"`) {
				t.Errorf("refused with %v %s", w.Header(), w.Body)
			}
			break
		}
		id = w.Header().Get("Mcp-Session-Id")
	}
	if opened < 60 || opened == 1000 {
		t.Errorf("%d sessions were opened", opened)
	}
	if w := post(h, who, smallCall, "Mcp-Session-Id", id); w.Code != http.StatusOK {
		t.Errorf("a call in a session that is open: %d %s", w.Code, w.Body)
	}
	bob := caller.New(caller.Claims{Issuer: "i", Subject: "bob", SessionID: "s2"}, secret.New("t"))
	if w := post(h, bob, initializeBody); w.Code != http.StatusOK {
		t.Errorf("another person: %d %s", w.Code, w.Body)
	}
}

// heard notes with which session id each backend is called.
type heard struct {
	canned

	with map[string]string
}

func (s heard) Do(ctx context.Context, c *caller.Caller, b *config.Backend, r *backend.Request) (*http.Response, error) {
	resp, err := s.canned.Do(ctx, c, b, r)
	m, _ := jsonrpc.Parse(r.Body)
	if m.Method == "tools/call" {
		s.with[b.Name] = r.Header.Get("Mcp-Session-Id")
	}
	if err == nil && m.Method == "initialize" {
		resp.Header.Set("Mcp-Session-Id", b.Name+"@"+b.Origin)
	}
	return resp, err
}

// blobs keeps one person's.
type blobs struct{ kept *brokerv1.GetBlobResponse }

func (s *blobs) GetBlob(context.Context, *brokerv1.GetBlobRequest, ...grpc.CallOption) (*brokerv1.GetBlobResponse, error) {
	if s.kept == nil {
		return nil, fault.New(fault.NotFound, "").GRPCStatus().Err()
	}
	return s.kept, nil
}

func (s *blobs) PutBlob(_ context.Context, in *brokerv1.PutBlobRequest, _ ...grpc.CallOption) (*brokerv1.PutBlobResponse, error) {
	s.kept = &brokerv1.GetBlobResponse{Sealed: in.GetSealed(), Version: in.GetExpectedVersion() + 1}
	return &brokerv1.PutBlobResponse{Version: s.kept.GetVersion()}, nil
}

// A backend's session id is its secret: what a changed configuration has under the
// same name elsewhere must not get it.
func TestASessionIsNotTakenToAnotherOrigin(t *testing.T) {
	t.Parallel()
	stored := &blobs{}
	at := func(origin string) (*Handler, *caller.Caller, heard) {
		h, who := newHandler(t)
		backends := heard{with: map[string]string{}}
		for i := range h.deployment.Backends {
			b := &h.deployment.Backends[i]
			if b.Name == "repos" {
				b.Origin = origin
			}
			h.store.origins[b.Name] = sessionid.OriginOf(b.Origin)
		}
		h.store.blobs = stored
		h.client = mcpclient.New(backends, "v1.2.3", nil)
		h.sessions.client = h.client
		return h, who, backends
	}
	otherCall := strings.Replace(smallCall, "repos", "payroll", 1)
	calls := func(h *Handler, who *caller.Caller, id string) {
		t.Helper()
		for _, call := range []string{smallCall, otherCall} {
			if w := post(h, who, call, "Mcp-Session-Id", id); w.Code != http.StatusOK || strings.Contains(w.Body.String(), "rror") {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		}
	}
	before, who, heardBefore := at("https://one")
	id := post(before, who, initializeBody).Header().Get("Mcp-Session-Id")
	calls(before, who, id)
	for _, origin := range []string{"https://two", "https://three", "https://one"} { // from the id, from the blob, and back
		after, _, heardAfter := at(origin)
		calls(after, who, id)
		if heardAfter.with["repos"] != "repos@"+origin || heardAfter.with["payroll"] != heardBefore.with["payroll"] {
			t.Errorf("at %s: %v; before %v", origin, heardAfter.with, heardBefore.with)
		}
	}
}

func TestASessionIDOfTheVersionBeforeIsGood(t *testing.T) {
	t.Parallel()
	h, who := newHandler(t)
	s := newSession(who, mcpclient.Hello{Version: "2025-11-25"}, map[string]*mcpclient.Peer{"repos": {Version: "2025-11-25", SessionID: "abc"}})
	if _, err := h.sessions.seal(who, s); err != nil {
		t.Fatal(err)
	}
	var x extra
	if err := json.Unmarshal(s.sealed.Extra, &x); err != nil {
		t.Fatal(err)
	}
	x.Origins = nil
	s.sealed.Extra, _ = json.Marshal(&x)
	got, ok := h.sessions.fromSealed(s.sealed)
	if !ok || got.base["repos"] == nil || got.base["repos"].SessionID != "abc" {
		t.Errorf("%v", got)
	}
}
