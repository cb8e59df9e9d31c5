package faults_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"chatelaine.dev/examples/internal/faults"
)

// endpoint is a token endpoint that works, behind the faults.
type endpoint struct {
	url, admin string
	worked     atomic.Int32
}

func newEndpoint(t *testing.T) *endpoint {
	t.Helper()
	e := &endpoint{}
	p := faults.NewProvider(http.StatusBadRequest, func(status int, _ []byte) bool { return status == http.StatusOK })
	work := p.Token(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		e.worked.Add(1)
		w.Header().Set("X-Kept", "yes")
		_, _ = io.WriteString(w, `{"access_token":"t"}`)
	}))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		work.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	admin := httptest.NewServer(faults.Guard(faults.Admin(p)))
	t.Cleanup(admin.Close)
	e.url, e.admin = srv.URL, admin.URL
	return e
}

func (e *endpoint) set(t *testing.T, body string) (status int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, e.admin+"/faults", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

func (e *endpoint) token(ctx context.Context, grant string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url, strings.NewReader(url.Values{"grant_type": {grant}}.Encode()))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

func TestTokenFaultsHitAsManyRequestsAsAskedFor(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault      string
		status     int
		body       string
		workedOnce bool
	}{
		"error":     {`{"token":{"mode":"error","error":"temporarily_unavailable","times":1}}`, 400, "temporarily_unavailable", false},
		"default":   {`{"token":{"mode":"error","times":1}}`, 400, "invalid_grant", false},
		"status":    {`{"token":{"mode":"status","status":502,"times":1}}`, 502, "fault", false},
		"garbage":   {`{"token":{"mode":"garbage","times":1}}`, 200, "world", false},
		"slow":      {`{"token":{"mode":"slow","delayMs":1,"times":1}}`, 200, "access_token", true},
		"one grant": {`{"token":{"mode":"status","grant":"authorization_code"}}`, 200, "access_token", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEndpoint(t)
			if got := e.set(t, c.fault); got != http.StatusOK {
				t.Fatalf("PUT /faults: %d", got)
			}
			status, body, err := e.token(t.Context(), "refresh_token")
			if err != nil || status != c.status || !strings.Contains(body, c.body) {
				t.Errorf("first answer %d %q, %v", status, body, err)
			}
			if (e.worked.Load() == 1) != c.workedOnce {
				t.Errorf("the endpoint worked %d times", e.worked.Load())
			}
			if status, body, err := e.token(t.Context(), "refresh_token"); err != nil || status != 200 || !strings.Contains(body, "access_token") {
				t.Errorf("second answer %d %q, %v", status, body, err)
			}
		})
	}
}

func TestALostAnswerIsWorkDoneThatTheClientNeverHearsOf(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	e.set(t, `{"token":{"mode":"lost","times":1}}`)
	if status, body, err := e.token(t.Context(), "refresh_token"); err == nil {
		t.Errorf("got an answer: %d %q", status, body)
	}
	if e.worked.Load() != 1 {
		t.Errorf("the endpoint worked %d times, want 1", e.worked.Load())
	}
}

func TestAHangingEndpointLastsUntilTheClientGivesUp(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	e.set(t, `{"token":{"mode":"hang","times":1}}`)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := e.token(ctx, "refresh_token"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("err = %v, want the client's own deadline", err)
	}
}

func TestRequestsAreCountedByGrantType(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	e.set(t, `{"token":{"mode":"status","grant":"refresh_token","times":1}}`)
	for _, g := range []string{"refresh_token", "refresh_token", "authorization_code"} {
		if _, _, err := e.token(t.Context(), g); err != nil {
			t.Fatal(err)
		}
	}
	resp, err := http.Get(e.admin + "/requests")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got map[string]faults.Count
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if want := (faults.Count{Requests: 2, Succeeded: 1}); got["refresh_token"] != want {
		t.Errorf("refresh_token: %+v, want %+v", got["refresh_token"], want)
	}
	if want := (faults.Count{Requests: 1, Succeeded: 1}); got["authorization_code"] != want {
		t.Errorf("authorization_code: %+v, want %+v", got["authorization_code"], want)
	}
}

func TestBackendFaults(t *testing.T) {
	t.Parallel()
	b := faults.NewBackend()
	ok := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	refuse := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	srv := httptest.NewServer(b.Wrap(ok, refuse))
	t.Cleanup(srv.Close)
	admin := httptest.NewServer(faults.Guard(faults.Admin(b)))
	t.Cleanup(admin.Close)
	e := &endpoint{admin: admin.URL}

	get := func() int {
		resp, err := http.Get(srv.URL)
		if err != nil {
			return 0
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	for _, c := range []struct {
		fault string
		want  []int
	}{
		{`{"unauthorized":2}`, []int{401, 401, 204}},
		{`{"unauthorized":-1}`, []int{401, 401, 401, 401}},
		{`{"down":true}`, []int{503, 503}},
		{`{"drop":true}`, []int{0, 0}},
		{`{}`, []int{204}},
	} {
		e.set(t, c.fault)
		for i, want := range c.want {
			if got := get(); got != want {
				t.Errorf("%s, request %d: %d, want %d", c.fault, i, got, want)
			}
		}
	}
}

func TestTheAdminEndpointIsForThisMachinesProgramsOnly(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	for name, change := range map[string]func(*http.Request){
		"rebound name": func(r *http.Request) { r.Host = "evil.example:80" },
		"web page":     func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") },
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, e.admin+"/faults", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		change(req)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %d, want 403", name, resp.StatusCode)
		}
	}
	for _, addr := range []string{":9999", "0.0.0.0:9999", "192.0.2.1:9999", "nonsense"} {
		if faults.CheckAddr(addr) == nil {
			t.Errorf("CheckAddr(%q) accepted", addr)
		}
	}
	for _, addr := range []string{"127.0.0.1:0", "[::1]:80", "localhost:80"} {
		if err := faults.CheckAddr(addr); err != nil {
			t.Errorf("CheckAddr(%q): %v", addr, err)
		}
	}
}

func TestWrongSettingsAreRefused(t *testing.T) {
	t.Parallel()
	e := newEndpoint(t)
	for _, body := range []string{`{`, `{"tokn":{}}`, `{"token":{"mode":"explode"}}`, `{"token":{"mode":"status","status":200}}`, `{"token":{"mode":"error","times":-1}}`, `{"authorize":"sure"}`} {
		if got := e.set(t, body); got != http.StatusBadRequest {
			t.Errorf("PUT %s: %d, want 400", body, got)
		}
	}
}
