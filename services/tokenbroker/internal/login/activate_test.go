package login_test

import (
	"context"
	"testing"
	"time"

	"chatelaine.dev/internal/fault"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/tokenbroker/internal/login"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

func TestALoginWithoutARefreshTokenKeepsTheConnections(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.login("octohub", "at-1", "rt-1")
	s := f.login("octohub", "at-2", "")
	c, tokens := f.stored(s, "octohub")
	if tokens.AccessToken.Reveal() != "at-2" || tokens.RefreshToken.Reveal() != "rt-1" || !c.Refreshable || c.Version != 2 {
		t.Errorf("stored %q, %q, version %d", tokens.AccessToken.Reveal(), tokens.RefreshToken.Reveal(), c.Version)
	}
	s = f.login("octohub", "at-3", "rt-3")
	if _, tokens = f.stored(s, "octohub"); tokens.RefreshToken.Reveal() != "rt-3" {
		t.Errorf("refresh token = %q", tokens.RefreshToken.Reveal())
	}
}

// renewing runs a login with a refresh token and all legs of a second one without,
// and begins an attempt at renewing the connection that they share.
func (f *fixture) renewing(lasts time.Duration) (c *store.Connection, second string) {
	f.t.Helper()
	c, _ = f.stored(f.login("octohub", "at-1", "rt-1"), "octohub")
	second = f.chain("octohub", "at-login", "")
	if _, ok := f.lease(c, lasts); !ok {
		f.t.Fatal("no lease")
	}
	return c, second
}

// Rotating providers take each refresh token once. A login that copied the one that
// is being spent would leave the person with it, and lock them when it is refused.
func TestALoginWaitsForTheTokenThatARenewalBrings(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(c *login.Config) { c.Patience = time.Minute })
	c, id := f.renewing(time.Minute)
	before := f.legs.planned()
	done := make(chan error, 1)
	go func() { done <- f.activate(id) }()
	eventually(t, "the login to look again", func() bool { return f.legs.planned() > before+1 })
	f.renew(c, "at-2", "rt-2")
	must(t, <-done)
	now, tokens := f.stored(id, "octohub")
	if tokens.AccessToken.Reveal() != "at-login" || tokens.RefreshToken.Reveal() != "rt-2" || now.Version != 3 {
		t.Errorf("stored %q, %q, version %d", tokens.AccessToken.Reveal(), tokens.RefreshToken.Reveal(), now.Version)
	}
}

func TestARenewalThatBeginsWhileALoginIsPreparedIsWaitedForToo(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(c *login.Config) { c.Patience = time.Minute })
	c, _ := f.stored(f.login("octohub", "at-1", "rt-1"), "octohub")
	id := f.chain("octohub", "at-login", "")
	began := make(chan struct{})
	f.legs.beforeActivate = func() {
		f.legs.beforeActivate = nil
		if _, ok := f.lease(c, time.Minute); !ok {
			t.Error("no lease")
		}
		close(began)
	}
	done := make(chan error, 1)
	go func() { done <- f.activate(id) }()
	<-began
	before := f.legs.planned()
	eventually(t, "the login to look again", func() bool { return f.legs.planned() > before+1 })
	f.renew(c, "at-2", "rt-2")
	must(t, <-done)
	if _, tokens := f.stored(id, "octohub"); tokens.RefreshToken.Reveal() != "rt-2" {
		t.Errorf("refresh token = %q", tokens.RefreshToken.Reveal())
	}
}

// Nobody's login hangs on a provider that does not answer a renewal.
func TestALoginStandsWithoutATokenThatIsSpentForTooLong(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(c *login.Config) { c.Patience = 100 * time.Millisecond })
	_, id := f.renewing(time.Minute)
	must(t, f.activate(id))
	now, tokens := f.stored(id, "octohub")
	if tokens.AccessToken.Reveal() != "at-login" || !tokens.RefreshToken.IsZero() || now.Refreshable {
		t.Errorf("stored %q, %q", tokens.AccessToken.Reveal(), tokens.RefreshToken.Reveal())
	}
}

func TestALoginThatNobodyWaitsForChangesNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t, func(c *login.Config) { c.Patience = time.Minute })
	_, id := f.renewing(time.Minute)
	ctx, cancel := context.WithCancel(t.Context())
	before := f.legs.planned()
	done := make(chan error, 1)
	go func() {
		_, err := f.ActivateSession(ctx, &brokerv1.ActivateSessionRequest{SessionId: id, ClientId: clientID})
		done <- err
	}()
	eventually(t, "the login to look", func() bool { return f.legs.planned() > before })
	cancel()
	if err := <-done; fault.KindOf(err) != fault.Canceled {
		t.Errorf("err = %v", err)
	}
	if s, err := f.store.LoadSession(t.Context(), id); err != nil || s.State != "pending" {
		t.Errorf("session is %s, %v", s.State, err)
	}
}

// Nobody knows whether a crashed attempt has spent the token. It is all that some
// providers ever give, so it is kept, with the doubt: a no to it locks nobody.
func TestALoginKeepsATokenInDoubtWithItsDoubt(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	_, id := f.renewing(time.Millisecond)
	must(t, f.activate(id))
	now, tokens := f.stored(id, "octohub")
	if tokens.RefreshToken.Reveal() != "rt-1" {
		t.Fatalf("refresh token = %q", tokens.RefreshToken.Reveal())
	}
	if lease, ok := f.lease(now, time.Minute); !ok || !lease.Doubtful {
		t.Errorf("next attempt: %v, doubtful: %v", ok, lease.Doubtful)
	}
}

// Without a subject two accounts are one connection: the second one's access token
// must not be renewed into the first one's.
func TestALoginKeepsNoTokenOfAnAccountThatCannotBeTold(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.login("nameless", "at-of-alice", "rt-of-alice")
	s := f.login("nameless", "at-of-bob", "")
	c, tokens := f.stored(s, "nameless")
	if tokens.AccessToken.Reveal() != "at-of-bob" || !tokens.RefreshToken.IsZero() || c.Refreshable {
		t.Errorf("stored %q, %q", tokens.AccessToken.Reveal(), tokens.RefreshToken.Reveal())
	}
}
