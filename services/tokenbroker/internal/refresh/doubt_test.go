package refresh_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/refresh"
	"chatelaine.dev/services/tokenbroker/internal/store"
	"chatelaine.dev/services/tokenbroker/internal/upstream"
)

// crash leaves what a process leaves that dies between the mark and the result.
func (f *fixture) crash() {
	f.t.Helper()
	_, ok, err := f.store.AcquireLease(f.t.Context(), store.LeaseRequest{
		ConnectionID: f.connection.ID, Version: f.connection.Version, Holder: "dead", Duration: time.Millisecond, MaxDoubtful: 1,
	})
	must(f.t, err)
	if !ok {
		f.t.Fatal("no lease to die with")
	}
	eventually(f.t, "the dead lease to end", func() bool { return f.read().Clock.LeaseRemaining == 0 })
}

func TestAfterACrashTheTokenIsTriedOnceMore(t *testing.T) {
	t.Parallel()
	f := newFixture(t, -time.Minute)
	f.crash()
	token, err := f.replica().Token(t.Context(), f.session.ID, "corp")
	must(t, err)
	if token.Version != 2 {
		t.Errorf("version = %d", token.Version)
	}
}

func TestAfterTwoCrashesThereIsNoThirdAttempt(t *testing.T) {
	t.Parallel()
	f := newFixture(t, -time.Minute)
	f.crash()
	f.crash()
	replicas := []*refresh.Refresher{f.replica(), f.replica()}
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			_, err := replicas[i%2].Token(t.Context(), f.session.ID, "corp")
			if err == nil {
				t.Error("a token in doubt was served")
			}
		})
	}
	wg.Wait()
	if n := f.upstream.count(); n != 0 {
		t.Errorf("%d attempts after two that left no result", n)
	}
	if c := f.read(); c.Status != store.ConnectionReauthenticate {
		t.Errorf("status = %s", c.Status)
	}
	if s, err := f.store.ActiveSession(t.Context(), f.session.ID); err != nil || s.Locked {
		t.Errorf("doubt locked the person: %v, %v", s.Locked, err)
	}
}

func TestAfterACrashASpentTokenAsksForThisProviderOnly(t *testing.T) {
	t.Parallel()
	f := newFixture(t, -time.Minute)
	f.crash()
	f.upstream.spend() // the dead attempt had reached the provider
	_, err := f.replica().Token(t.Context(), f.session.ID, "corp")
	wantReason(t, err, reason.ReauthenticationRequired)
	if s, err := f.store.ActiveSession(t.Context(), f.session.ID); err != nil || s.Locked {
		t.Errorf("a lost answer locked the person: %v, %v", s.Locked, err)
	}
}

func TestAProviderThatPunishesReuseIsNotAskedAgainInDoubt(t *testing.T) {
	t.Parallel()
	t.Run("after a crash", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t, -time.Minute)
		f.upstream.inDoubt = config.RefreshInDoubtReauthenticate
		f.crash()
		_, err := f.replica().Token(t.Context(), f.session.ID, "corp")
		wantReason(t, err, reason.ReauthenticationRequired)
		if n := f.upstream.count(); n != 0 {
			t.Errorf("asked %d times", n)
		}
	})
	t.Run("after a lost answer", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t, -time.Minute)
		f.upstream.inDoubt = config.RefreshInDoubtReauthenticate
		f.upstream.set(func(context.Context, *provider, string) error { return unreachable("true") })
		_, err := f.replica().Token(t.Context(), f.session.ID, "corp")
		wantReason(t, err, reason.ReauthenticationRequired)
	})
	t.Run("but after a request that was never sent", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t, -time.Minute)
		f.upstream.inDoubt = config.RefreshInDoubtReauthenticate
		f.upstream.set(func(context.Context, *provider, string) error { return unreachable("false") })
		_, err := f.replica().Token(t.Context(), f.session.ID, "corp")
		wantReason(t, err, reason.UpstreamUnavailable)
	})
}

func TestAnswersThatComeAfterTheLeaseAreKept(t *testing.T) {
	t.Parallel()
	f := newFixture(t, -time.Minute)
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	// The first attempt reaches the provider, which rotates; its answer is late.
	late := &lateProvider{provider: f.upstream, entered: entered, release: release, once: &once}
	slow := f.replica(func(c *refresh.Config) {
		c.CallTimeout, c.Lease = 30*time.Second, 50*time.Millisecond
		c.Find = func(string, string) (refresh.Provider, error) { return late, nil }
	})
	done := make(chan error, 1)
	go func() {
		_, err := slow.Token(t.Context(), f.session.ID, "corp")
		done <- err
	}()
	<-entered
	eventually(t, "the lease to end", func() bool { return f.read().Clock.LeaseRemaining == 0 })
	// The second replica presents a token that is spent by now.
	_, err := f.replica().Token(t.Context(), f.session.ID, "corp")
	wantReason(t, err, reason.ReauthenticationRequired)
	close(release)
	must(t, <-done)
	if c := f.read(); c.Status != store.ConnectionActive || c.Version != 2 {
		t.Errorf("status %s version %d: the only valid tokens are lost", c.Status, c.Version)
	}
	// The provider saw the token twice: its next no may be the answer to that.
	f.upstream.spend()
	_, err = f.replica().Renew(t.Context(), f.connection.ID, 2)
	wantReason(t, err, reason.ReauthenticationRequired)
	f.wantLocked(false)
}

// A provider without grace ends the grant when it sees a token twice, whichever of
// the two attempts is committed.
func TestDoubtOutlivesTheAttemptThatWasRepeated(t *testing.T) {
	t.Parallel()
	f := newFixture(t, -time.Minute)
	f.crash()
	r := f.replica()
	if _, err := r.Token(t.Context(), f.session.ID, "corp"); err != nil {
		t.Fatal(err)
	}
	renewed := func(version int64) error {
		f.exec(`UPDATE tokenbroker.connections SET forced_at = NULL`)
		_, err := r.Renew(t.Context(), f.connection.ID, version)
		return err
	}
	t.Run("until it is renewed itself", func(t *testing.T) {
		must(t, renewed(2)) // nobody else presented this one
		f.upstream.spend()
		wantReason(t, renewed(3), reason.ReauthenticationRequired)
		f.wantLocked(true)
	})
}

func TestANoAfterARepeatedAttemptLocksNobody(t *testing.T) {
	t.Parallel()
	f := newFixture(t, -time.Minute)
	f.crash()
	r := f.replica()
	if _, err := r.Token(t.Context(), f.session.ID, "corp"); err != nil {
		t.Fatal(err)
	}
	f.upstream.spend()
	_, err := r.Renew(t.Context(), f.connection.ID, 2)
	wantReason(t, err, reason.ReauthenticationRequired)
	f.wantLocked(false)
}

func (f *fixture) wantLocked(want bool) {
	f.t.Helper()
	if s, err := f.store.ActiveSession(f.t.Context(), f.session.ID); err != nil || s.Locked != want {
		f.t.Errorf("locked = %v, %v; want %v", s.Locked, err, want)
	}
}

// fails makes the provider fail so, and asks for the token once back-off is over.
func (f *fixture) fails(r *refresh.Refresher, with error) error {
	f.t.Helper()
	f.upstream.set(func(context.Context, *provider, string) error { return with })
	f.exec(`UPDATE tokenbroker.connections SET retry_at = NULL`)
	_, err := r.Token(f.t.Context(), f.session.ID, "corp")
	return err
}

func TestALostAnswerIsFollowedByOneAttemptOnly(t *testing.T) {
	t.Parallel()
	f := newFixture(t, -time.Minute)
	r := f.replica()
	wantReason(t, f.fails(r, unreachable("true")), reason.UpstreamUnavailable)
	wantReason(t, f.fails(r, unreachable("true")), reason.ReauthenticationRequired)
	wantReason(t, f.fails(r, nil), reason.ReauthenticationRequired)
	if n := f.upstream.count(); n != 2 {
		t.Errorf("a token that may be spent was presented %d times", n)
	}
	f.wantLocked(false)
}

func TestWhatNeverLeftUsesNoAttemptAndEndsNoDoubt(t *testing.T) {
	t.Parallel()
	f := newFixture(t, -time.Minute)
	r := f.replica()
	for range 3 {
		wantReason(t, f.fails(r, unreachable("false")), reason.UpstreamUnavailable)
	}
	wantReason(t, f.fails(r, unreachable("true")), reason.UpstreamUnavailable)
	for range 3 {
		wantReason(t, f.fails(r, unreachable("false")), reason.UpstreamUnavailable)
	}
	wantReason(t, f.fails(r, unreachable("true")), reason.ReauthenticationRequired)
}

// An outage that a provider answers for must not send everybody to a new login.
func TestAProviderThatSaysItIsDownIsAskedAgain(t *testing.T) {
	t.Parallel()
	f := newFixture(t, -time.Minute)
	r := f.replica()
	for range 4 {
		wantReason(t, f.fails(r, denied()), reason.UpstreamUnavailable)
	}
	must(t, f.fails(r, nil))
}

func TestANoAfterAnAnswerThatMayBeWrongLocksNobody(t *testing.T) {
	t.Parallel()
	f := newFixture(t, -time.Minute)
	r := f.replica()
	wantReason(t, f.fails(r, denied()), reason.UpstreamUnavailable)
	f.upstream.spend()
	wantReason(t, f.fails(r, nil), reason.ReauthenticationRequired)
	f.wantLocked(false)
}

// lateProvider holds the answer of its first call back.
type lateProvider struct {
	*provider
	entered, release chan struct{}
	once             *sync.Once
}

func (p *lateProvider) Refresh(ctx context.Context, r upstream.RefreshRequest) (g upstream.Grant, err error) {
	g, err = p.provider.Refresh(ctx, r)
	p.once.Do(func() {
		close(p.entered)
		<-p.release
	})
	return g, err
}
