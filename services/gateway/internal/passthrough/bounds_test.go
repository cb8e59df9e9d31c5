package passthrough_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/keyring"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/internal/telemetry"
	"chatelaine.dev/services/gateway/internal/backend"
	"chatelaine.dev/services/gateway/internal/caller"
	"chatelaine.dev/services/gateway/internal/limits"
	"chatelaine.dev/services/gateway/internal/passthrough"
	"chatelaine.dev/services/gateway/internal/sessionid"
)

// Without a bound, large bodies end the process, for everybody.
func TestALargeBodyIsRefusedWhileThereIsNoRoomForIt(t *testing.T) {
	t.Parallel()
	bounds, err := limits.New(limits.Config{MemoryLimit: 200 << 20, Telemetry: telemetry.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	g := newGateway(t, options{memory: bounds.Memory}, map[string]http.Handler{"repos": benchBackend()})
	large := strings.Replace(string(benchCall), "lorem", strings.Repeat("x", 256<<10), 1)
	var leases []*limits.Lease
	for _, name := range []string{"x", "y", "z"} {
		l := &limits.Lease{}
		l.Begin(bounds.Memory, caller.New(caller.Claims{Issuer: "i", Subject: name}, secret.New(name)))
		for l.Take(limits.Free) == nil {
		}
		leases = append(leases, l)
	}
	a := g.do("alice", http.MethodPost, "/mcp/repos", large, nil)
	if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" || !strings.Contains(a.body, limits.ReasonBusy) {
		t.Errorf("a large body without room: %d %v %s", a.status, a.header, a.body)
	}
	if a := g.do("alice", http.MethodPost, "/mcp/repos", string(benchCall), nil); a.status != http.StatusOK {
		t.Errorf("a small body without room: %d %s", a.status, a.body)
	}
	for _, l := range leases {
		l.Release()
	}
	if a := g.do("alice", http.MethodPost, "/mcp/repos", large, nil); a.status != http.StatusOK {
		t.Errorf("a large body with room: %d %s", a.status, a.body)
	}
	eventually(t, "all is given back", func() bool { return bounds.Memory.Used() == 0 })
}

// A backend that reads another encoding than we did gets another message.
func TestABackendIsToldTheEncodingThatWasRead(t *testing.T) {
	t.Parallel()
	seen := &counted{next: benchBackend()}
	g := newGateway(t, options{}, map[string]http.Handler{"repos": seen})
	for contentType, want := range map[string]int{
		"application/json":                  http.StatusOK,
		"Application/JSON; charset=UTF-8":   http.StatusOK,
		`application/json;charset="utf-8"`:  http.StatusOK,
		"application/json; x=y":             http.StatusOK,
		"application/json; charset=utf-7":   http.StatusUnsupportedMediaType,
		"application/json; charset=utf-16":  http.StatusUnsupportedMediaType,
		"application/json; charset=":        http.StatusUnsupportedMediaType,
		"application/json; charset=x; a, b": http.StatusUnsupportedMediaType,
		"text/json":                         http.StatusUnsupportedMediaType,
	} {
		if a := g.do("alice", http.MethodPost, "/mcp/repos", string(benchCall), map[string]string{"Content-Type": contentType}); a.status != want {
			t.Errorf("%q: %d, want %d", contentType, a.status, want)
		}
	}
	if n := len(seen.headers()); n != 4 {
		t.Errorf("%d requests reached the backend", n)
	}
	for _, h := range seen.headers() {
		if got := h["Content-Type"]; len(got) != 1 || got[0] != "application/json" {
			t.Errorf("the backend was told %q", got)
		}
	}
}

// A backend's session id is its secret: what a changed configuration has under the
// same name elsewhere must not get it.
func TestASessionIDIsNotTakenToAnotherOrigin(t *testing.T) {
	t.Parallel()
	who := caller.New(caller.Claims{Issuer: "i", Subject: "alice"}, secret.New("t"))
	ring, err := keyring.New(secret.NewBytes(bytes.Repeat([]byte{7}, keyring.KeySize)))
	if err != nil {
		t.Fatal(err)
	}
	sealer := sessionid.NewSealer(ring)
	do := func(origin, id string) (status int, sealed, heard string) {
		var backends answering = func(r *backend.Request) *http.Response {
			heard = r.Header.Get("Mcp-Session-Id")
			return &http.Response{
				StatusCode: http.StatusOK, Header: http.Header{"Mcp-Session-Id": {"its-own"}},
				Body: io.NopCloser(strings.NewReader(`{"jsonrpc":"2.0","id":7,"result":{}}`)),
			}
		}
		h := passthrough.New(passthrough.Config{
			Backend: &config.Backend{Name: "repos", Origin: origin}, Backends: backends, Sessions: sealer,
		})
		r := httptest.NewRequest(http.MethodPost, "/mcp/repos", bytes.NewReader(benchCall))
		r.Header.Set("Content-Type", "application/json")
		if id != "" {
			r.Header.Set("Mcp-Session-Id", id)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r.WithContext(caller.NewContext(r.Context(), who)))
		return w.Code, w.Header().Get("Mcp-Session-Id"), heard
	}
	_, id, _ := do("https://one", "")
	if status, _, heard := do("https://one", id); status != http.StatusOK || heard != "its-own" {
		t.Errorf("at its own origin: %d %q", status, heard)
	}
	if status, _, heard := do("https://two", id); status != http.StatusNotFound || heard != "" {
		t.Errorf("at another origin: %d %q", status, heard)
	}
	old, err := sealer.Seal(who, "/mcp/repos", sessionid.New("", sessionid.BackendSession{Backend: "repos", ID: "its-own"}))
	if err != nil {
		t.Fatal(err)
	}
	if status, _, heard := do("https://one", old); status != http.StatusOK || heard != "its-own" {
		t.Errorf("an id of the version before: %d %q", status, heard)
	}
}

type answering func(r *backend.Request) *http.Response

func (a answering) Do(_ context.Context, _ *caller.Caller, _ *config.Backend, r *backend.Request) (*http.Response, error) {
	return a(r), nil
}
