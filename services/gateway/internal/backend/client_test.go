package backend

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/internal/telemetry"
	"chatelaine.dev/services/gateway/internal/caller"
	"chatelaine.dev/services/gateway/internal/credentials"
)

// fakeCredentials gives out the versions in order, one more for each report.
type fakeCredentials struct {
	mu       sync.Mutex
	origin   string
	version  int
	versions []string // empty: a credential without anything
	provider string
	reports  int
	err      error
}

func (f *fakeCredentials) Get(context.Context, *caller.Caller, string) (*credentials.Credential, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	if len(f.versions) == 0 {
		return &credentials.Credential{}, nil
	}
	v := f.versions[min(f.version, len(f.versions)-1)]
	return &credentials.Credential{
		Headers: []credentials.Header{{Name: "Authorization", Value: secret.New("Bearer " + v)}},
		Origin:  f.origin, Version: v, Provider: f.provider,
	}, nil
}

func (f *fakeCredentials) Rejected(context.Context, *caller.Caller, string, *credentials.Credential) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reports++
	f.version++
	return f.version < len(f.versions), nil
}

// server records what arrives and answers with handle.
type server struct {
	*httptest.Server
	mu       sync.Mutex
	requests []*http.Request
	bodies   []string
}

func serve(t *testing.T, handle http.HandlerFunc) *server {
	t.Helper()
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		s.mu.Lock()
		s.requests = append(s.requests, r)
		s.bodies = append(s.bodies, string(body))
		s.mu.Unlock()
		handle(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func entryFor(rawURL string) config.Backend {
	u, err := url.Parse(rawURL)
	if err != nil {
		panic(err)
	}
	return config.Backend{
		Name: "repos", RemoteURL: rawURL + "/mcp", Origin: u.Scheme + "://" + u.Host,
		Strategy: config.Strategy{Type: config.StrategyUpstreamInject},
	}
}

func newClient(t *testing.T, b config.Backend, cred Credentials, change func(*Config)) *Client {
	t.Helper()
	cfg := Config{Backends: []config.Backend{b}, Credentials: cred, Telemetry: telemetry.Discard()}
	if change != nil {
		change(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func post() *Request {
	return &Request{Method: http.MethodPost, Header: http.Header{"Content-Type": {"application/json"}}, Body: []byte(`{"id":1}`)}
}

func ok(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "answer") }

func TestBackendGetsItsCredentialAndNothingOfTheClients(t *testing.T) {
	t.Parallel()
	s := serve(t, ok)
	b := entryFor(s.URL)
	b.Headers.Plain = map[string]string{"X-Tenant": "acme"}
	c := newClient(t, b, &fakeCredentials{origin: b.Origin, versions: []string{"right"}}, nil)
	r := post()
	for _, name := range []string{
		"Authorization", "Proxy-Authorization", "Cookie", "Connection", "Te", "Upgrade", "X-Forwarded-For", "X-Forwarded-User",
		"Forwarded", "X-Tenant", "Traceparent", "Origin", "Accept-Encoding",
	} {
		r.Header.Set(name, "clients-own")
	}
	r.Header.Set("Mcp-Param-Region", "eu")
	resp, err := c.Do(t.Context(), caller.AnonymousCaller(), &b, r)
	if err != nil {
		t.Fatal(fault.Detail(err))
	}
	defer resp.Body.Close()
	got := s.requests[0]
	for name, values := range got.Header {
		if slices.Contains(values, "clients-own") {
			t.Errorf("%s of the client reached the backend", name)
		}
	}
	for name, want := range map[string]string{
		"Authorization": "Bearer right", "X-Tenant": "acme", "Mcp-Param-Region": "eu", "Content-Type": "application/json",
	} {
		if got := got.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if s.bodies[0] != `{"id":1}` || got.URL.Path != "/mcp" {
		t.Errorf("%s %q", got.URL.Path, s.bodies[0])
	}
	if r.Header.Get("Cookie") == "" {
		t.Error("the request's header was changed")
	}
}

func TestCredentialForAnotherOriginIsNotSent(t *testing.T) {
	t.Parallel()
	s := serve(t, ok)
	b := entryFor(s.URL)
	c := newClient(t, b, &fakeCredentials{origin: "https://elsewhere", versions: []string{"v"}}, nil)
	_, err := c.Do(t.Context(), caller.AnonymousCaller(), &b, post())
	if fault.ReasonOf(err) != ReasonOrigin || len(s.requests) != 0 {
		t.Errorf("error %v and %d requests, want %s and none", err, len(s.requests), ReasonOrigin)
	}
}

func TestOneRefusedCredentialIsRenewedAndTriedOnceMore(t *testing.T) {
	t.Parallel()
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer new" {
			w.Header().Set("WWW-Authenticate", "Bearer")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		ok(w, r)
	})
	b := entryFor(s.URL)
	cred := &fakeCredentials{origin: b.Origin, versions: []string{"old", "new"}}
	resp, err := newClient(t, b, cred, nil).Do(t.Context(), caller.AnonymousCaller(), &b, post())
	if err != nil {
		t.Fatal(fault.Detail(err))
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || string(body) != "answer" {
		t.Errorf("body %q, %v", body, err)
	}
	if len(s.requests) != 2 || cred.reports != 1 || s.bodies[1] != s.bodies[0] {
		t.Errorf("%d requests, %d reports, bodies %q; want 2, 1 and the same body", len(s.requests), cred.reports, s.bodies)
	}
}

func TestBackendThatRefusesIsToldApartFromUs(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		status   int
		versions []string
		requests int
		reason   string
	}{
		"401 always":                   {401, []string{"old", "new"}, 2, ReasonRejected},
		"401, nothing new":             {401, []string{"old"}, 1, ReasonRejected},
		"401, nothing could be better": {401, nil, 1, ReasonRejected},
		"403":                          {403, []string{"v"}, 1, ReasonForbidden},
		"407":                          {407, []string{"v"}, 1, ReasonForbidden},
		"redirect":                     {307, []string{"v"}, 1, ReasonRedirect},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Location", "http://127.0.0.1:1/steal")
				w.WriteHeader(tt.status)
			})
			b := entryFor(s.URL)
			cred := &fakeCredentials{origin: b.Origin, versions: tt.versions, provider: "octohub"}
			_, err := newClient(t, b, cred, nil).Do(t.Context(), caller.AnonymousCaller(), &b, post())
			f, isFault := fault.As(err)
			if !isFault || f.Reason != tt.reason || f.Metadata["backend"] != "repos" {
				t.Fatalf("error %s, want %s", fault.Detail(err), tt.reason)
			}
			if len(tt.versions) > 0 && tt.reason != ReasonRedirect && f.Metadata["provider"] != "octohub" {
				t.Errorf("metadata %v do not name the provider", f.Metadata)
			}
			if len(s.requests) != tt.requests {
				t.Errorf("%d requests, want %d", len(s.requests), tt.requests)
			}
			if e := Explain(err); e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden || e.Text == "" {
				t.Errorf("explained as %+v: a client would think that we refused", e)
			}
		})
	}
}

func TestBackendInTroubleIsNamed(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	slow := serve(t, func(http.ResponseWriter, *http.Request) { <-hang })
	t.Cleanup(func() { close(hang) })
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	tests := map[string]struct {
		url    string
		reason string
		status int
	}{
		"down":                   {gone.URL, ReasonUnavailable, http.StatusBadGateway},
		"slow":                   {slow.URL, ReasonTimeout, http.StatusGatewayTimeout},
		"private, not allowed":   {"http://10.0.0.1", ReasonAddress, http.StatusBadGateway},
		"a cloud's own metadata": {"http://169.254.169.254", ReasonAddress, http.StatusBadGateway},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := entryFor(tt.url)
			c := newClient(t, b, &fakeCredentials{}, func(cfg *Config) {
				cfg.Timeouts = map[string]time.Duration{"repos": 50 * time.Millisecond}
			})
			_, err := c.Do(t.Context(), caller.AnonymousCaller(), &b, post())
			e := Explain(err)
			if e.Reason != tt.reason || e.Status != tt.status || e.Backend != "repos" || !strings.Contains(e.Text, "repos") {
				t.Errorf("%+v (%s), want %s and %d", e, fault.Detail(err), tt.reason, tt.status)
			}
		})
	}
}

func TestNameThatLeadsToLoopbackIsNotFollowed(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{"localhost": true, "127.0.0.1": true, "::1": true, "repos.localhost": true, "backend.example": false, "localhost.example": false} {
		if got := policyFor(&config.Backend{AllowPrivateEndpoint: true}, host).AllowLoopback; got != want {
			t.Errorf("%s may be on loopback: %v, want %v", host, got, want)
		}
	}
}

func TestClientThatGoesAwayCancelsTheBackend(t *testing.T) {
	t.Parallel()
	canceled := make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(canceled)
	})
	b := entryFor(s.URL)
	c := newClient(t, b, &fakeCredentials{}, nil)
	resp, err := c.Do(t.Context(), caller.AnonymousCaller(), &b, &Request{Method: http.MethodGet})
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	<-canceled

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Do(ctx, caller.AnonymousCaller(), &b, post()); fault.KindOf(err) != fault.Canceled {
		t.Errorf("error %v, want Canceled", err)
	}
}

func TestStreamOutlivesTheTimeoutOfItsHeaders(t *testing.T) {
	t.Parallel()
	more := make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
		http.NewResponseController(w).Flush()
		<-more
		io.WriteString(w, "late")
	})
	b := entryFor(s.URL)
	const timeout = 200 * time.Millisecond
	c := newClient(t, b, &fakeCredentials{}, func(cfg *Config) { cfg.Timeout = timeout })
	resp, err := c.Do(t.Context(), caller.AnonymousCaller(), &b, post())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	time.AfterFunc(2*timeout, func() { close(more) }) // the point is that the timeout has passed
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != "late" {
		t.Errorf("body %q, %v", body, err)
	}
}

func TestReasonOfTheSessionsEndIsTold(t *testing.T) {
	t.Parallel()
	arrived, hang := make(chan struct{}), make(chan struct{})
	s := serve(t, func(http.ResponseWriter, *http.Request) { close(arrived); <-hang })
	t.Cleanup(func() { close(hang) })
	b := entryFor(s.URL)
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-arrived
		cancel(fault.New(fault.Unauthenticated, "the session has ended").WithReason(credentials.ReasonSessionEnded))
	}()
	_, err := newClient(t, b, &fakeCredentials{}, nil).Do(ctx, caller.AnonymousCaller(), &b, post())
	if e := Explain(err); e.Reason != credentials.ReasonSessionEnded || e.Status != http.StatusUnauthorized {
		t.Errorf("%+v, want %s", e, credentials.ReasonSessionEnded)
	}
}

func TestTraceGoesOnToTheBackend(t *testing.T) {
	t.Parallel()
	s := serve(t, ok)
	b := entryFor(s.URL)
	ctx := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled,
	}))
	resp, err := newClient(t, b, &fakeCredentials{}, nil).Do(ctx, caller.AnonymousCaller(), &b, post())
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if got := s.requests[0].Header.Get("Traceparent"); !strings.HasPrefix(got, "00-01000000") {
		t.Errorf("traceparent %q", got)
	}
}

func TestCertificateAuthorityOfTheEntryIsTrusted(t *testing.T) {
	t.Parallel()
	s := httptest.NewTLSServer(http.HandlerFunc(ok))
	t.Cleanup(s.Close)
	s.Config.ErrorLog = nil
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	resolver := &secret.Resolver{LookupEnv: func(name string) (string, bool) {
		switch name {
		case "CA_PEM":
			return string(ca), true
		case "KEY_VALUE":
			return "s3cret", true
		}
		return "", false
	}}
	b := entryFor(s.URL)
	if _, err := newClient(t, b, &fakeCredentials{}, nil).Do(t.Context(), caller.AnonymousCaller(), &b, post()); fault.ReasonOf(err) != ReasonUnavailable {
		t.Errorf("without it: error %v, want %s", err, ReasonUnavailable)
	}
	b.CABundle = &secret.Ref{Name: "ca", Key: "pem"}
	b.Headers.Secret = map[string]secret.Ref{"X-Api-Key": {Name: "key", Key: "value"}}
	resp, err := newClient(t, b, &fakeCredentials{}, func(cfg *Config) { cfg.Secrets = resolver }).
		Do(t.Context(), caller.AnonymousCaller(), &b, post())
	if err != nil {
		t.Fatal(fault.Detail(err))
	}
	resp.Body.Close()

	b.CABundle = &secret.Ref{Name: "missing", Key: "pem"}
	_, err = New(Config{Backends: []config.Backend{b}, Credentials: &fakeCredentials{}, Secrets: resolver, Telemetry: telemetry.Discard()})
	if err == nil || !strings.Contains(err.Error(), "repos") {
		t.Errorf("error %v does not name the backend", err)
	}
}

func TestEveryReasonIsExplained(t *testing.T) {
	t.Parallel()
	for _, reason := range []string{
		credentials.ReasonConnectionRequired, credentials.ReasonReauthenticationRequired, credentials.ReasonUserRequired,
		ReasonRejected, ReasonForbidden,
	} {
		e := Explain(fault.New(fault.Precondition, "x").WithReason(reason, "provider", "octohub", "backend", "repos"))
		if !e.UserCanFix || !strings.Contains(e.Text, "repos") {
			t.Errorf("%s: %+v", reason, e)
		}
		if want := `{"reason":"` + reason + `","backend":"repos","provider":"octohub"}`; string(e.Data()) != want {
			t.Errorf("data %s, want %s", e.Data(), want)
		}
	}
	for reason, kind := range map[string]fault.Kind{
		ReasonRejected: fault.Precondition, ReasonForbidden: fault.Denied, credentials.ReasonUpstreamUnavailable: fault.Unavailable,
	} {
		e := Explain(fault.New(kind, "the token service says no").WithReason(reason, "backend", "repos"))
		if e.UserCanFix || e.Status < http.StatusInternalServerError || !strings.Contains(e.Text, "repos") || !strings.Contains(e.Text, "administrator") ||
			strings.Contains(e.Text, "provider") || strings.Contains(e.Text, "Log in") {
			t.Errorf("%s without a provider sends the person to one: %+v", reason, e)
		}
		if said := strings.Contains(e.Text, "the token service says no"); said != (reason == credentials.ReasonUpstreamUnavailable) {
			t.Errorf("%s without a provider: %q", reason, e.Text)
		}
	}
	if e := Explain(errors.New("a secret detail")); strings.Contains(e.Text, "secret") || e.Status != http.StatusBadGateway {
		t.Errorf("unknown error: %+v", e)
	}
}

func TestABackendThatRefusesAndStallsDoesNotHoldTheRequest(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		w.WriteHeader(http.StatusUnauthorized)
		_ = http.NewResponseController(w).Flush()
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	})
	t.Cleanup(func() { close(hang) })
	b := entryFor(s.URL)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err := newClient(t, b, &fakeCredentials{}, nil).Do(ctx, caller.AnonymousCaller(), &b, post())
	if fault.ReasonOf(err) != ReasonRejected {
		t.Errorf("error %v, want %s", err, ReasonRejected)
	}
}
