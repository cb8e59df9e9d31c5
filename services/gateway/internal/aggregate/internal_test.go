package aggregate

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/keyring"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/internal/telemetry"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/gateway/internal/aggregate/mcpclient"
	"chatelaine.dev/services/gateway/internal/backend"
	"chatelaine.dev/services/gateway/internal/caller"
	"chatelaine.dev/services/gateway/internal/credentials"
	"chatelaine.dev/services/gateway/internal/jsonrpc"
	"chatelaine.dev/services/gateway/internal/sessionid"
)

// canned answers every request without a network.
type canned struct{}

func (canned) Get(context.Context, *caller.Caller, string) (*credentials.Credential, error) {
	return &credentials.Credential{}, nil
}

func (canned) Do(_ context.Context, _ *caller.Caller, b *config.Backend, r *backend.Request) (*http.Response, error) {
	m, err := jsonrpc.Parse(r.Body)
	if err != nil {
		return nil, err
	}
	result := `{"content":[{"type":"text","text":"` + b.Name + `"}]}`
	if m.Method == "initialize" {
		result = `{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"x","version":"1"}}`
	}
	body := jsonrpc.AppendResult(nil, m.RawID(), []byte(result))
	return &http.Response{
		StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(body)),
		Header: http.Header{"Content-Type": {"application/json"}, "Mcp-Session-Id": {"s-" + b.Name}},
	}, nil
}

// empty keeps nothing.
type empty struct{}

func (empty) GetBlob(context.Context, *brokerv1.GetBlobRequest, ...grpc.CallOption) (*brokerv1.GetBlobResponse, error) {
	return nil, fault.New(fault.NotFound, "").GRPCStatus().Err()
}

func (empty) PutBlob(context.Context, *brokerv1.PutBlobRequest, ...grpc.CallOption) (*brokerv1.PutBlobResponse, error) {
	return &brokerv1.PutBlobResponse{Version: 1}, nil
}

func newHandler(t testing.TB) (*Handler, *caller.Caller) {
	t.Helper()
	ring, err := keyring.New(secret.NewBytes(bytes.Repeat([]byte{7}, keyring.KeySize)))
	if err != nil {
		t.Fatal(err)
	}
	h, err := New(Config{
		Deployment: &config.Deployment{Backends: []config.Backend{{Name: "payroll"}, {Name: "repos"}}},
		Backends:   canned{}, Credentials: canned{}, Sessions: empty{}, Ring: ring, Telemetry: telemetry.Discard(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return h, caller.New(caller.Claims{Issuer: "i", Subject: "alice", SessionID: "s"}, secret.New("t"))
}

func post(h http.Handler, who *caller.Caller, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, "/mcp", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r.WithContext(caller.NewContext(r.Context(), who)))
	return w
}

const initializeBody = `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}`

func BenchmarkWarmCall(b *testing.B) {
	h, who := newHandler(b)
	id := post(h, who, initializeBody).Header().Get("Mcp-Session-Id")
	body := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"repos_get","arguments":{}}}`
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if w := post(h, who, body, "Mcp-Session-Id", id); w.Code != http.StatusOK {
				b.Errorf("%d %s", w.Code, w.Body)
			}
		}
	})
}

func TestARequestWithoutACallerIsNotServed(t *testing.T) {
	t.Parallel()
	h, _ := newHandler(t)
	r := httptest.NewRequest(http.MethodPost, "/mcp", strings.NewReader(initializeBody))
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, r); w.Code != http.StatusInternalServerError {
		t.Errorf("%d, want 500", w.Code)
	}
}

func TestASessionIDCarriesEverythingThatItsBackendsNeed(t *testing.T) {
	t.Parallel()
	h, who := newHandler(t)
	want := map[string]*mcpclient.Peer{
		"repos":   {Version: "2025-06-18", SessionID: "abc", Features: mcpclient.Tools | mcpclient.Subscribe},
		"payroll": {Version: "2026-07-28", Features: mcpclient.Everything},
		"old":     {Version: "2025-03-26"},
	}
	s := newSession(who, mcpclient.Hello{Version: "2025-11-25", ClientInfo: []byte(`{"name":"c"}`), Capabilities: []byte(`{"roots":{}}`)}, want)
	id, err := h.sessions.seal(who, s)
	if err != nil {
		t.Fatal(err)
	}
	got, err := h.sessions.unseal(who, id)
	if err != nil {
		t.Fatal(err)
	}
	if !maps.EqualFunc(got.base, want, func(a, b *mcpclient.Peer) bool { return *a == *b }) {
		t.Errorf("the backends are %v, want %v", got.base, want)
	}
	if got.hello.Version != s.hello.Version || !bytes.Equal(got.hello.ClientInfo, s.hello.ClientInfo) || !bytes.Equal(got.hello.Capabilities, s.hello.Capabilities) {
		t.Errorf("the client is %+v, want %+v", got.hello, s.hello)
	}
}

func TestASessionIDExpires(t *testing.T) {
	t.Parallel()
	h, who := newHandler(t)
	id := post(h, who, initializeBody).Header().Get("Mcp-Session-Id")
	if w := post(h, who, `{"jsonrpc":"2.0","id":1,"method":"ping"}`, "Mcp-Session-Id", id); w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	later := h.sessions.now().Add(maxSessionAge + 1)
	for _, cached := range []bool{true, false} {
		h, who := h, who
		if !cached {
			h, _ = newHandler(t)
		}
		h.sessions.now = func() time.Time { return later }
		if w := post(h, who, `{"jsonrpc":"2.0","id":1,"method":"ping"}`, "Mcp-Session-Id", id); w.Code != http.StatusNotFound {
			t.Errorf("%d after its time (in the cache: %v), want 404", w.Code, cached)
		}
	}
}

func TestAnIntroductionIsBounded(t *testing.T) {
	t.Parallel()
	icon := strings.Repeat("i", 4000)
	raw := `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"clientInfo":{"name":"c","version":"1","icons":["` + icon + `"]},"capabilities":{"experimental":{"x":"` + icon + `"},"sampling":{"tools":{}},"tasks":{}}}}`
	m, err := jsonrpc.Parse([]byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	hello := trimmedHello("2025-11-25", &m)
	if got, want := string(hello.ClientInfo), `{"name":"c","version":"1"}`; got != want {
		t.Errorf("the client's info is %s, want %s", got, want)
	}
	if got, want := string(hello.Capabilities), `{"sampling":{"tools":{}}}`; got != want {
		t.Errorf("the capabilities are %s, want %s", got, want)
	}
}

func FuzzSessionExtra(f *testing.F) {
	f.Add([]byte(`{"i":{"name":"c"},"c":{},"p":[[2,7]]}`), "repos", "id")
	f.Add([]byte(`{"p":[[9,-1]]}`), "", "")
	f.Add([]byte(`{"p":null,"b":true}`), "x", "y")
	f.Fuzz(func(t *testing.T, raw []byte, name, id string) {
		sealed := sessionid.New("2025-11-25", sessionid.BackendSession{Backend: name, ID: id})
		sealed.Extra = raw
		s, ok := (&sessions{store: &store{}}).fromSealed(sealed)
		if !ok {
			return
		}
		versions := extraVersions()
		for _, p := range s.peers() {
			if !slices.Contains(versions, p.Version) {
				t.Errorf("%q gives the version %q", raw, p.Version)
			}
		}
	})
}

// What a client sends as cursor, session id, event id or answer is never more
// than refused.
func FuzzForeignValues(f *testing.F) {
	h, who := newHandler(f)
	id := post(h, who, initializeBody).Header().Get("Mcp-Session-Id")
	f.Add(id, "tools/list", `"cursor":"x"`)
	f.Add("AAAA", "resources/read", `"uri":"chatelaine+:x"`)
	f.Add(id, "resources/read", `"uri":"chatelaine+repos:x"`)
	f.Add(id, "completion/complete", `"ref":{"type":"ref/prompt","name":"repos_"}`)
	f.Fuzz(func(t *testing.T, session, method, params string) {
		if strings.ContainsAny(session, "\r\n\x00") {
			return
		}
		body := append([]byte(`{"jsonrpc":"2.0","id":1,"method":`), jsonrpc.AppendString(nil, method)...)
		w := post(h, who, string(body)+`,"params":{`+params+`}}`, "Mcp-Session-Id", session)
		if w.Code >= http.StatusInternalServerError {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if w.Code == http.StatusOK && w.Header().Get("Content-Type") == "application/json" {
			if _, err := jsonrpc.Parse(w.Body.Bytes()); err != nil {
				t.Errorf("the answer %q: %v", w.Body, err)
			}
		}
	})
}
