package refresh_test

import (
	"context"
	"testing"
	"time"

	"chatelaine.dev/services/tokenbroker/internal/refresh"
)

// Most deployments use the primary provider for identity alone: no backend ever asks
// for its tokens, and yet it is the one that knows who has left.
func TestSomebodyDisabledAtThePrimaryProviderIsLockedThoughNobodyUsesItsTokens(t *testing.T) {
	t.Parallel()
	f := newFixture(t, time.Hour)
	f.upstream.primary = true
	f.upstream.set(func(context.Context, *provider, string) error { return refused("invalid_grant") })
	f.due()
	must(t, refresh.RenewAhead(f.replica(), t.Context()))
	session, err := f.store.LoadSession(t.Context(), f.session.ID)
	must(t, err)
	if !session.Locked {
		t.Errorf("the session is not locked; the provider was asked %d times", f.upstream.count())
	}
}

func TestThePrimaryProviderIsAskedOnceForEachUseThatOutlivesItsToken(t *testing.T) {
	t.Parallel()
	f := newFixture(t, time.Hour)
	r := f.replica()
	rounds := func(want int) {
		t.Helper()
		for range 3 {
			f.due()
			must(t, refresh.RenewAhead(r, t.Context()))
		}
		if n := f.upstream.count(); n != want {
			t.Fatalf("the provider was asked %d times, want %d", n, want)
		}
	}
	idle := `UPDATE tokenbroker.sessions SET last_used_at = date_trunc('minute', now()) - interval '2 minutes'`
	f.exec(idle)
	rounds(0)
	f.exec(`UPDATE tokenbroker.connections SET tokens_at = now() - interval '1 hour'`)
	rounds(1)
	_, err := f.store.ActiveSession(t.Context(), f.session.ID) // a call, for another provider's tokens
	must(t, err)
	f.due()
	must(t, refresh.RenewAhead(r, t.Context()))
	f.exec(idle)
	rounds(2)
}

func TestThePrimaryProviderIsNotAskedInVainWhereNothingLocks(t *testing.T) {
	t.Parallel()
	f := newFixture(t, time.Hour)
	f.due()
	must(t, refresh.RenewAhead(f.replica(func(c *refresh.Config) { c.LockOnPrimary = func() bool { return false } }), t.Context()))
	must(t, refresh.RenewAhead(f.replica(func(c *refresh.Config) { c.PrimaryName = func() string { return "another" } }), t.Context()))
	if n := f.upstream.count(); n != 0 {
		t.Errorf("the provider was asked %d times for tokens that nobody uses", n)
	}
}

// due makes the access token end soon.
func (f *fixture) due() {
	f.t.Helper()
	f.exec(`UPDATE tokenbroker.connections SET refresh_after = now() - interval '1 second'`)
}
