package load

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"chatelaine.dev/examples/journey"
)

// TestAFailureIsCountedAndTold: a test that looks at the counts alone would pass without it.
func TestAFailureIsCountedAndTold(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	r := &recorder{begin: time.Now(), log: &out}
	r.note("login", logins, time.Now(), nil)
	r.note("repos_whoami", calls, time.Now().Add(-time.Second), errors.New("bad gateway"))
	if err := r.line(); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], `"failure":"repos_whoami"`) || !strings.Contains(lines[0], "bad gateway") {
		t.Fatalf("%q", lines)
	}
	var got Stats
	if err := json.Unmarshal([]byte(lines[1]), &got); err != nil {
		t.Fatal(err)
	}
	if got.Logins != 1 || got.Calls != 0 || got.Failed != 1 || got.Last != "repos_whoami: bad gateway" || got.SlowestMS < 1000 || got.Unavailable != 0 ||
		got.LastSeconds-got.LastBegan < 1 {
		t.Errorf("%+v", got)
	}
}

// TestComeAgainIsToldFromFailures: the answers of real libraries, from a server that refuses everything.
func TestComeAgainIsToldFromFailures(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]bool{http.StatusServiceUnavailable: true, http.StatusBadGateway: false, http.StatusInternalServerError: false} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		t.Cleanup(server.Close)
		for what, err := range refusals(t, server.URL) {
			if err == nil || unavailable(err) != want {
				t.Errorf("%d at %s: %v; come again: %t, want %t", status, what, err, !want, want)
			}
		}
	}
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	for what, err := range refusals(t, closed.URL) {
		if err == nil || !unavailable(err) {
			t.Errorf("nobody listens, at %s: %v", what, err)
		}
	}
}

// refusals are the errors of each thing that the load does, at a server that does none of them.
func refusals(t *testing.T, url string) map[string]error {
	t.Helper()
	c := &client{cfg: Config{MCPURL: url}, http: newHTTP(Config{})}
	found := &journey.Discovery{MCPURL: url, Server: journey.ServerMetadata{Issuer: url, AuthorizationEndpoint: url, TokenEndpoint: url}}
	c.oauth = &journey.Client{ID: "c", Name: "test", RedirectURI: redirectURI, Discovery: found, HTTP: c.http}
	_, login := c.login(t.Context())
	_, connect := (&journey.Login{Client: c.oauth, Token: &oauth2.Token{AccessToken: "a"}}).Connect(t.Context(), journey.ConnectOptions{})
	_, refresh := c.oauth.Refresh(t.Context(), "r")
	return map[string]error{"login": login, "connect": connect, "refresh": refresh}
}

// TestComeAgainMustComeAtOnce: a 503 after half a minute is no answer.
func TestComeAgainMustComeAtOnce(t *testing.T) {
	t.Parallel()
	r := &recorder{begin: time.Now(), log: io.Discard}
	nobody := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	r.note("login", logins, time.Now(), nobody)
	r.note("login", logins, time.Now().Add(-2*promptly), nobody)
	r.note("login", logins, time.Now(), &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "authserver"}})
	r.note("login", logins, time.Now(), &net.OpError{Op: "read", Err: syscall.ECONNRESET})
	if r.stats.Unavailable != 1 || r.stats.Failed != 3 {
		t.Errorf("%+v", r.stats)
	}
}
