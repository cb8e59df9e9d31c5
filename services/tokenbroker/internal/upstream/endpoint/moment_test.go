package endpoint_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/tokenbroker/internal/upstream/endpoint"
)

// stopped is the context of a process that was stopped and goes on: its deadline
// passes, and the timer that should say so has not fired yet.
type stopped struct {
	context.Context
	deadline time.Time
}

func (s stopped) Deadline() (time.Time, bool) { return s.deadline, true }

type counter struct {
	*httptest.Server
	requests atomic.Int32
}

func newCounter(t *testing.T, status int) *counter {
	c := &counter{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ParseForm() == nil && r.PostForm.Get("refresh_token") != "" {
			c.requests.Add(1)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(`{}`))
	}))
	t.Cleanup(c.Close)
	return c
}

func refresh(ctx context.Context, client *endpoint.Client, at string) error {
	return client.Do(ctx, endpoint.Request{
		Operation: "refresh", Method: "POST", URL: at, Form: url.Values{"refresh_token": {"rt"}},
		Auth: &endpoint.ClientAuth{Method: "none", ID: "c"},
	}, func(*endpoint.Response) error { return nil })
}

func wantUnsent(t *testing.T, err error, server *counter, before int32) {
	t.Helper()
	if err == nil {
		t.Error("no error")
	} else if sent := fault.From(err).Metadata[endpoint.MetadataSent]; sent != "false" {
		t.Errorf("%v, sent %q", err, sent)
	}
	if n := server.requests.Load(); n != before {
		t.Errorf("the server saw the token %d times more", n-before)
	}
}

// Another replica may present the same refresh token by then.
func TestARequestWhoseTimeIsOverIsNotSent(t *testing.T) {
	t.Parallel()
	server := newCounter(t, http.StatusOK)
	client := endpoint.NewClient(endpoint.Config{Display: "corp", HTTP: server.Client()})
	if err := refresh(t.Context(), client, server.URL); err != nil { // leaves a connection
		t.Fatal(fault.Detail(err))
	}
	late := stopped{t.Context(), time.Now().Add(-time.Millisecond)}
	wantUnsent(t, refresh(late, client, server.URL), server, 1)
}

func TestARequestWhoseTimeIsOverOnceItHasAConnectionIsNotSent(t *testing.T) {
	t.Parallel()
	server := newCounter(t, http.StatusOK)
	deadline := time.Now().Add(50 * time.Millisecond)
	transport := &http.Transport{DialContext: func(_ context.Context, network, address string) (net.Conn, error) {
		conn, err := net.Dial(network, address)
		<-time.After(time.Until(deadline)) // the process is stopped in between
		return conn, err
	}}
	t.Cleanup(transport.CloseIdleConnections)
	client := endpoint.NewClient(endpoint.Config{Display: "corp", HTTP: &http.Client{Transport: transport}})
	wantUnsent(t, refresh(stopped{t.Context(), deadline}, client, server.URL), server, 0)
}

// A deadline that passes between the connection and the request is no doubt about
// the token.
func TestWhatIsGivenUpBeforeItIsSentStaysUnsent(t *testing.T) {
	t.Parallel()
	for range 50 { // the two race: whichever is first, what is said must be true
		server := newCounter(t, http.StatusOK) // of its own: what was sent may arrive late
		ctx, cancel := context.WithCancel(t.Context())
		transport := &http.Transport{DialContext: func(_ context.Context, network, address string) (net.Conn, error) {
			conn, err := net.Dial(network, address)
			go cancel()
			return conn, err
		}}
		client := endpoint.NewClient(endpoint.Config{Display: "corp", HTTP: &http.Client{Transport: transport}})
		err := refresh(ctx, client, server.URL)
		transport.CloseIdleConnections()
		server.Close() // waits for what it has taken
		if err != nil && fault.From(err).Metadata[endpoint.MetadataSent] == "false" && server.requests.Load() != 0 {
			t.Fatalf("said to be unsent, and the server saw it: %v", err)
		}
	}
}

func TestAnErrorAnswerIsToldFromNoAnswer(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]string{500: "true", 502: "true", 503: "true", 429: "true", 504: "", 302: ""} {
		server := newCounter(t, status)
		client := endpoint.NewClient(endpoint.Config{Display: "corp", HTTP: &http.Client{
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}})
		f := fault.From(refresh(t.Context(), client, server.URL))
		if f.Metadata[endpoint.MetadataDenied] != want || f.Metadata[endpoint.MetadataSent] != "true" {
			t.Errorf("%d: %v", status, f.Metadata)
		}
	}
}
