package credential_test

import (
	"strings"
	"sync"
	"testing"

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

// An exchanged token is dropped before its subject is refreshed.
func TestARejectedExchangedToken(t *testing.T) {
	t.Parallel()
	b := start(t, options{})
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
	for step, renewals := range []int{0, 1, 1, 2} {
		out := next()
		if renewed, err := b.reject(token, "payroll", out.GetCredentialVersion()); err != nil || !renewed {
			t.Fatalf("step %d: renewed %v, %v", step, renewed, err)
		}
		if n := b.hub.count(); n != renewals {
			t.Fatalf("step %d: %d renewals of the subject, want %d", step, n, renewals)
		}
	}
	// A token of our own minting has no subject to renew.
	for step, want := range []bool{true, false} {
		version := b.mustGet(token, "ledger").GetCredentialVersion()
		if renewed, err := b.reject(token, "ledger", version); err != nil || renewed != want {
			t.Fatalf("ledger, step %d: renewed %v, %v", step, renewed, err)
		}
	}
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
