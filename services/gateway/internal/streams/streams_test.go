package streams

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"chatelaine.dev/internal/bearer"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/internal/telemetry"
	"chatelaine.dev/services/gateway/internal/caller"
)

func newStreams(t *testing.T, most int) *Streams {
	t.Helper()
	s, err := New(Config{MaxPerCaller: most, Telemetry: telemetry.Discard()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func person(subject, session string, expires time.Time) *caller.Caller {
	return caller.New(caller.Claims{Issuer: "i", Subject: subject, SessionID: session, ExpiresAt: expires}, secret.New(subject+session))
}

func TestStreamsEndWhenTheServerStops(t *testing.T) {
	t.Parallel()
	s := newStreams(t, 0)
	who := person("alice", "1", time.Time{})
	ctx, done, err := s.Open(t.Context(), who, "repos")
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	over, doneOver, err := s.Open(t.Context(), who, "repos")
	if err != nil {
		t.Fatal(err)
	}
	doneOver()
	s.Drain()
	<-ctx.Done()
	if reason := fault.ReasonOf(context.Cause(ctx)); reason != ReasonDraining {
		t.Errorf("it ended because of %q", reason)
	}
	if reason := fault.ReasonOf(context.Cause(over)); reason == ReasonDraining {
		t.Error("a stream that was over was told to end")
	}
	if _, _, err := s.Open(t.Context(), who, "repos"); fault.ReasonOf(err) != ReasonDraining {
		t.Errorf("afterwards: %v", err)
	}
}

func TestAStreamEndsWithItsToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, done, err := newStreams(t, 0).Open(t.Context(), person("alice", "1", time.Now().Add(time.Hour)), "repos")
		if err != nil {
			t.Fatal(err)
		}
		defer done()
		began := time.Now()
		<-ctx.Done()
		if took := time.Since(began); took != time.Hour+bearer.DefaultLeeway || fault.ReasonOf(context.Cause(ctx)) != ReasonTokenExpired {
			t.Errorf("it ended after %s: %v", took, context.Cause(ctx))
		}
	})
}

func TestOneCallerCannotTakeAllStreams(t *testing.T) {
	t.Parallel()
	s := newStreams(t, 2)
	open := func(who *caller.Caller) (func(), error) {
		_, done, err := s.Open(t.Context(), who, "repos")
		return done, err
	}
	alice, bob := person("alice", "1", time.Time{}), person("bob", "", time.Time{})
	var last func()
	for _, who := range []*caller.Caller{alice, alice, bob, person("carol", "", time.Time{}), person("alice", "2", time.Time{}), bob} {
		done, err := open(who)
		if err != nil {
			t.Fatalf("%s: %v", who.Subject, err)
		}
		last = done
	}
	for _, who := range []*caller.Caller{alice, bob} {
		if _, err := open(who); fault.KindOf(err) != fault.Exhausted {
			t.Errorf("a third one of %s: %v", who.Subject, err)
		}
	}
	last()
	if _, err := open(bob); err != nil {
		t.Errorf("after one was closed: %v", err)
	}
	for range 5 { // these are not one caller
		if _, err := open(caller.AnonymousCaller()); err != nil {
			t.Error(err)
		}
	}
}

func TestARefusedStreamIsToldWhenToComeBack(t *testing.T) {
	t.Parallel()
	s := newStreams(t, 1)
	who := person("alice", "1", time.Time{})
	if _, _, err := s.Open(t.Context(), who, "repos"); err != nil {
		t.Fatal(err)
	}
	h := s.Wrap("aggregate", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	ask := func(method string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(caller.NewContext(t.Context(), who), method, "/", nil))
		return w
	}
	if w := ask(http.MethodGet); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "5" {
		t.Errorf("one too many: %d %v", w.Code, w.Header())
	}
	if w := ask(http.MethodPost); w.Code != http.StatusNoContent {
		t.Errorf("a call: %d", w.Code)
	}
	s.Drain()
	if w := ask(http.MethodGet); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "1" {
		t.Errorf("while the server stops: %d %v", w.Code, w.Header())
	}
}
