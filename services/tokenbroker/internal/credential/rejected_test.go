package credential_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/tokenbroker/internal/reason"
)

func TestARejectedTokenIsRenewedOnce(t *testing.T) {
	t.Parallel()
	b := start(t, options{})
	token := b.token(b.logIn(true), nil)
	first := b.mustGet(token, "repos")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if renewed, err := b.reject(token, "repos", first.GetCredentialVersion()); err != nil || !renewed {
				t.Errorf("renewed %v, %v", renewed, err)
			}
		})
	}
	wg.Wait()
	if n := b.hub.count(); n != 1 {
		t.Errorf("%d renewals", n)
	}
	second := b.mustGet(token, "repos")
	if value(second) == value(first) || second.GetCredentialVersion() == first.GetCredentialVersion() {
		t.Error("the rejected token is handed out again")
	}
	if renewed, err := b.reject(token, "repos", first.GetCredentialVersion()); err != nil || !renewed || b.hub.count() != 1 {
		t.Errorf("a stale version: renewed %v, %v, %d renewals", renewed, err, b.hub.count())
	}
	for backend, want := range map[string]bool{"keyed": false, "open": false} {
		version := b.mustGet(token, backend).GetCredentialVersion()
		if renewed, err := b.reject(token, backend, version); err != nil || renewed != want {
			t.Errorf("%s: renewed %v, %v", backend, renewed, err)
		}
	}
}

// A backend may refuse every token, to a fault of its own or on purpose. Each renewal
// voids what other backends have of the connection.
func TestABackendThatRefusesEveryTokenDoesNotWearTheProviderOut(t *testing.T) {
	t.Parallel()
	clk := &clock{now: time.Now()}
	b := start(t, options{now: clk.Now})
	token := b.token(b.logIn(true), map[string]any{"exp": clk.Now().Add(24 * time.Hour).Unix()})
	for step, want := range []struct {
		after    time.Duration
		renewals int
	}{{0, 1}, {11 * time.Second, 1}, {5 * time.Minute, 1}, {5 * time.Minute, 2}} {
		clk.advance(want.after)
		before := b.hub.count()
		renewed, err := b.reject(token, "repos", b.mustGet(token, "repos").GetCredentialVersion())
		if err != nil || b.hub.count() != want.renewals || renewed != (b.hub.count() > before) {
			t.Errorf("step %d: renewed %v, %v, %d renewals, want %d", step, renewed, err, b.hub.count(), want.renewals)
		}
		b.listened()
	}
}

// An exchanged token is dropped before its subject is refreshed.
func TestARejectedExchangedToken(t *testing.T) {
	t.Parallel()
	clk := &clock{now: time.Now()} // it stands still: how soon a renewal follows another one decides
	b := start(t, options{now: clk.Now})
	token := b.token(b.logIn(true), nil)
	seen := map[string]bool{}
	next := func() *brokerv1.GetCredentialResponse {
		t.Helper()
		out := b.mustGet(token, "payroll")
		if seen[value(out)] {
			t.Fatal("a rejected token is handed out again")
		}
		seen[value(out)] = true
		return out
	}
	for step, want := range []struct {
		renewals int
		renewed  bool
	}{{0, true}, {1, true}, {1, true}, {1, false}} { // the last: not two renewals for one backend in a row
		out := next()
		if renewed, err := b.reject(token, "payroll", out.GetCredentialVersion()); err != nil || renewed != want.renewed {
			t.Fatalf("step %d: renewed %v, %v", step, renewed, err)
		}
		if n := b.hub.count(); n != want.renewals {
			t.Fatalf("step %d: %d renewals of the subject, want %d", step, n, want.renewals)
		}
		// The renewal's event drops what was exchanged. Were it heard only after the
		// next step, the rejection of that step would be forgotten with it.
		b.listened()
	}
	// A token of our own minting has no subject to renew.
	for step, want := range []bool{true, false} {
		version := b.mustGet(token, "ledger").GetCredentialVersion()
		if renewed, err := b.reject(token, "ledger", version); err != nil || renewed != want {
			t.Fatalf("ledger, step %d: renewed %v, %v", step, renewed, err)
		}
	}
}

// A token service may answer to a fault of its own, or of its configuration, as if it
// were the token's. That must not make every person's tokens be renewed for ever.
func TestATokenServiceThatRefusesEveryTokenDoesNotWearTheProviderOut(t *testing.T) {
	t.Parallel()
	clk := &clock{now: time.Now()}
	b := start(t, options{now: clk.Now})
	token := b.token(b.logIn(true), map[string]any{"exp": clk.Now().Add(24 * time.Hour).Unix()})
	refuse := func(code string) {
		b.sts.set(func(s *sts) { s.refuse = func(string) string { return code } })
	}
	want := func(renewals int, when string) {
		t.Helper()
		clk.advance(6 * time.Second) // past the memory of the last refusal
		_, err := b.get(token, "payroll")
		if err == nil {
			t.Fatalf("%s: a refused token was exchanged", when)
		}
		if n := b.hub.count(); n != renewals {
			t.Fatalf("%s: %d renewals, want %d", when, n, renewals)
		}
		b.listened()
	}
	refuse("invalid_request")
	want(1, "the first refusal")
	for range 5 {
		want(1, "refused again")
	}
	// Another version is no reason either, for a while: another replica may have made it.
	version := b.mustGet(token, "repos").GetCredentialVersion()
	if renewed, err := b.reject(token, "repos", version); err != nil || !renewed {
		t.Fatal(renewed, err)
	}
	want(2, "with another version")
	clk.advance(10 * time.Minute)
	want(3, "with another version, later")
	clk.advance(time.Hour)
	want(3, "the very version that the renewal made")
	// A service that has taken the token once has nothing against it.
	refuse("")
	clk.advance(6 * time.Second)
	version = b.mustGet(token, "payroll").GetCredentialVersion()
	if renewed, err := b.reject(token, "payroll", version); err != nil || !renewed {
		t.Fatal(renewed, err)
	}
	refuse("invalid_token")
	want(4, "a token that was good until now")
}

// One dead provider asks for itself, and hurts nothing else.
func TestADeadProviderAsksForANewLogin(t *testing.T) {
	t.Parallel()
	b := start(t, options{})
	token := b.token(b.logIn(true), nil)
	version := b.mustGet(token, "repos").GetCredentialVersion()
	b.hub.set(func(h *hub) { h.dead = true })
	_, err := b.reject(token, "repos", version)
	wantReason(t, err, reason.ReauthenticationRequired, "octohub")
	for _, backend := range []string{"repos", "payroll"} {
		_, err := b.get(token, backend)
		wantReason(t, err, reason.ReauthenticationRequired, "octohub")
	}
	for _, backend := range []string{"hours", "ledger", "keyed"} {
		b.mustGet(token, backend)
	}
}

func TestATokenServiceThatRefuses(t *testing.T) {
	t.Parallel()
	b := start(t, options{})
	token := b.token(b.logIn(true), nil)

	t.Run("the first subject token only", func(t *testing.T) {
		b.sts.set(func(s *sts) {
			s.refuse = func(subject string) string {
				if strings.HasSuffix(subject, "hub-at-1") {
					return "invalid_request" // RFC 8693, section 2.2.2
				}
				return ""
			}
		})
		b.mustGet(token, "payroll")
		if n := b.hub.count(); n != 1 {
			t.Errorf("%d renewals", n)
		}
	})
	t.Run("every subject token", func(t *testing.T) {
		b.sts.set(func(s *sts) { s.refuse = func(string) string { return "invalid_grant" } })
		_, err := b.get(token, "hours")
		wantReason(t, err, reason.ReauthenticationRequired, "corp")
		_, err = b.get(token, "ledger")
		wantReason(t, err, reason.UpstreamUnavailable, "") // a new login would not help
	})
	t.Run("what it was configured for", func(t *testing.T) {
		b := start(t, options{})
		token := b.token(b.logIn(true), nil)
		b.sts.set(func(s *sts) { s.refuse = func(string) string { return "invalid_target" } })
		for range 5 {
			_, err := b.get(token, "payroll")
			wantReason(t, err, reason.UpstreamUnavailable, "octohub")
		}
		if n := len(b.sts.seen()); n != 1 {
			t.Errorf("a refusal was asked for %d times", n)
		}
	})
}
