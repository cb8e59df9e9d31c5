package store_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/authserver/internal/store"
)

func TestARequestComesBackAsItWasStored(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	want := f.request("r1")
	got, err := f.Request(t.Context(), "r1", browser)
	f.must(err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if left := time.Until(got.ExpiresAt); left < 9*time.Minute || left > 10*time.Minute {
		t.Errorf("lives for %v, want ten minutes", left)
	}
}

func TestARequestBelongsToItsBrowser(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.request("r1")
	other := store.Digest("another cookie")
	_, err := f.Request(t.Context(), "r1", other)
	f.wantKind(err, fault.NotFound)
	_, err = f.ApproveRequest(t.Context(), "r1", other, "s")
	f.wantKind(err, fault.NotFound)
	_, err = f.TakeRequest(t.Context(), "r1", other)
	f.wantKind(err, fault.NotFound)
	if n := f.count(`SELECT count(*) FROM authserver.authorization_requests WHERE phase = 'consent'`); n != 1 {
		t.Error("the request was changed by another browser")
	}
}

func TestAnExpiredRequestIsGone(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.approved("r1")
	f.must(f.StartLeg(t.Context(), "state", store.Leg{RequestID: "r1", Provider: "corp", Sealed: []byte("x")}))
	f.exec(`UPDATE authserver.authorization_requests SET expires_at = now()`)
	_, _, err := f.TakeLeg(t.Context(), "state", []string{"corp"}, browser, time.Minute)
	f.wantKind(err, fault.NotFound)
	_, err = f.Request(t.Context(), "r1", browser)
	f.wantKind(err, fault.NotFound)
	_, err = f.TakeRequest(t.Context(), "r1", browser)
	f.wantKind(err, fault.NotFound)
	f.wantKind(f.SaveRequest(t.Context(), &store.AuthorizationRequest{ID: "r1", BrowserHash: browser, Phase: store.PhaseLegs, Version: 1}), fault.NotFound)
}

func TestNobodyWritesOverAChangeThatTheyHaveNotSeen(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	stale := f.approved("r1")
	fresh, err := f.Request(t.Context(), "r1", browser)
	f.must(err)
	fresh.Phase = store.PhaseConfirm
	f.must(f.SaveRequest(t.Context(), fresh))
	fresh.UserID = "u"
	f.must(f.SaveRequest(t.Context(), fresh)) // its own change it has seen
	if err := f.SaveRequest(t.Context(), stale); fault.ReasonOf(err) != store.ReasonChanged {
		t.Errorf("got %v", err)
	}
	got, err := f.Request(t.Context(), "r1", browser)
	f.must(err)
	if got.Phase != store.PhaseConfirm || got.UserID != "u" {
		t.Errorf("the question was undone: %+v", got)
	}
}

func TestALegRunsOnlyBetweenConsentAndConfirmation(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	leg := store.Leg{RequestID: "r1", Provider: "corp", Sealed: []byte("x")}
	f.request("r1")
	f.wantKind(f.StartLeg(t.Context(), "before", leg), fault.NotFound)
	r, err := f.ApproveRequest(t.Context(), "r1", browser, "s")
	f.must(err)
	f.must(f.StartLeg(t.Context(), "during", leg))
	r.Phase = store.PhaseConfirm
	f.must(f.SaveRequest(t.Context(), r))
	_, _, err = f.TakeLeg(t.Context(), "during", []string{"corp"}, browser, time.Minute)
	f.wantKind(err, fault.NotFound)
	f.wantKind(f.StartLeg(t.Context(), "after", leg), fault.NotFound)
}

func TestAStateIsTakenOnceByItsBrowserForItsProvider(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.approved("r1")
	leg := store.Leg{RequestID: "r1", Provider: "corp", RedirectURI: "https://as.example/cb/corp", Sealed: []byte("sealed")}
	f.must(f.StartLeg(t.Context(), "state", leg))
	for name, try := range map[string]struct {
		state, provider string
		browser         []byte
	}{
		"another state":    {"state2", "corp", browser},
		"another provider": {"state", "octohub", browser},
		"another browser":  {"state", "corp", store.Digest("other")},
		"no browser":       {"state", "corp", nil},
	} {
		if _, _, err := f.TakeLeg(t.Context(), try.state, []string{try.provider}, try.browser, time.Minute); fault.KindOf(err) != fault.NotFound {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, tt := range []struct {
		state   string
		browser []byte
		want    bool
	}{{"state", browser, false}, {"state", store.Digest("other"), true}, {"state2", store.Digest("other"), false}} {
		if got, err := f.LegElsewhere(t.Context(), tt.state, tt.browser); err != nil || got != tt.want {
			t.Errorf("%s elsewhere: %v, %v", tt.state, got, err)
		}
	}
	got, req, err := f.TakeLeg(t.Context(), "state", []string{"corp"}, browser, time.Minute)
	f.must(err)
	if diff := cmp.Diff(&leg, got); diff != "" {
		t.Error(diff)
	}
	if req.ID != "r1" || req.SessionID != "session-r1" || req.Params.State != "xyz" {
		t.Errorf("request %+v", req)
	}
	_, _, err = f.TakeLeg(t.Context(), "state", []string{"corp"}, browser, time.Minute)
	f.wantKind(err, fault.NotFound)
}

func TestANewLegMakesTheOldStateWorthless(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.approved("r1")
	f.must(f.StartLeg(t.Context(), "first", store.Leg{RequestID: "r1", Provider: "corp", Sealed: []byte("1")}))
	f.must(f.StartLeg(t.Context(), "second", store.Leg{RequestID: "r1", Provider: "corp", Sealed: []byte("2")}))
	_, _, err := f.TakeLeg(t.Context(), "first", []string{"corp"}, browser, time.Minute)
	f.wantKind(err, fault.NotFound)
	_, _, err = f.TakeLeg(t.Context(), "second", []string{"corp"}, browser, time.Minute)
	f.must(err)
	f.wantKind(f.StartLeg(t.Context(), "third", store.Leg{RequestID: "unknown", Provider: "corp", Sealed: []byte("3")}), fault.NotFound)
}

func TestALegThatCameToNothingMayBeWalkedAnew(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.approved("r1")
	start := func(state string) {
		t.Helper()
		f.must(f.StartLeg(t.Context(), state, store.Leg{RequestID: "r1", Provider: "corp", Sealed: []byte("x")}))
	}
	take := func(state string, busy time.Duration) {
		t.Helper()
		_, _, err := f.TakeLeg(t.Context(), state, []string{"corp"}, browser, busy)
		f.must(err)
	}
	spent := func(state string, providers []string, who []byte) (string, bool) {
		t.Helper()
		req, leg, err := f.SpentLeg(t.Context(), state, providers, who)
		if fault.KindOf(err) == fault.NotFound {
			return "", false
		}
		f.must(err)
		if leg.Provider != "corp" {
			t.Errorf("leg %+v", leg)
		}
		return req.ID, leg.Retry
	}
	corp := []string{"corp"}
	start("s1")
	f.must(f.ReleaseLeg(t.Context(), "s1"))
	if id, _ := spent("s1", corp, browser); id != "" {
		t.Error("a state that never came back counts as spent")
	}
	take("s1", time.Minute)
	if id, retry := spent("s1", corp, browser); id != "r1" || retry {
		t.Errorf("while it is worked on: %q, retry %v", id, retry)
	}
	for name, who := range map[string][]byte{"another browser": store.Digest("other"), "no browser": nil} {
		if id, _ := spent("s1", corp, who); id != "" {
			t.Errorf("%s may go on", name)
		}
	}
	if id, _ := spent("s1", []string{"octohub"}, browser); id != "" {
		t.Error("another provider's path may go on")
	}
	f.must(f.ReleaseLeg(t.Context(), "s1"))
	if _, retry := spent("s1", corp, browser); !retry {
		t.Error("a released leg may not be walked anew")
	}
	_, _, err := f.TakeLeg(t.Context(), "s1", corp, browser, time.Minute)
	f.wantKind(err, fault.NotFound) // the state itself was good once

	start("s2")
	if id, _ := spent("s1", corp, browser); id != "" {
		t.Error("the old state lives on beside the new one")
	}
	take("s2", 0)
	if _, retry := spent("s2", corp, browser); !retry {
		t.Error("a leg of a replica that is gone may not be walked anew")
	}
	f.exec(`UPDATE authserver.authorization_requests SET expires_at = now()`)
	if id, _ := spent("s2", corp, browser); id != "" {
		t.Error("an expired login goes on")
	}
}
