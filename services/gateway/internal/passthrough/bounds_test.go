package passthrough_test

import (
	"net/http"
	"strings"
	"testing"

	"chatelaine.dev/internal/secret"
	"chatelaine.dev/internal/telemetry"
	"chatelaine.dev/services/gateway/internal/caller"
	"chatelaine.dev/services/gateway/internal/limits"
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
	backend := &counted{next: benchBackend()}
	g := newGateway(t, options{}, map[string]http.Handler{"repos": backend})
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
	if n := len(backend.headers()); n != 4 {
		t.Errorf("%d requests reached the backend", n)
	}
	for _, h := range backend.headers() {
		if got := h["Content-Type"]; len(got) != 1 || got[0] != "application/json" {
			t.Errorf("the backend was told %q", got)
		}
	}
}
