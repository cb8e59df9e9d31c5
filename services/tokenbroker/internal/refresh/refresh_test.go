package refresh_test

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/refresh"
	"chatelaine.dev/services/tokenbroker/internal/store"
	"chatelaine.dev/services/tokenbroker/internal/upstream"
)

func TestAFreshTokenIsServedWithoutAskingTheProvider(t *testing.T) {
	t.Parallel()
	f := newFixture(t, time.Hour)
	token, err := f.replica().Token(t.Context(), f.session.ID, "corp")
	must(t, err)
	if token.AccessToken.Reveal() != "at-1" || token.Version != 1 || token.IDToken.Reveal() != "it-1" ||
		token.UserID != f.session.UserID || token.ConnectionID != f.connection.ID {
		t.Errorf("token = %+v", token)
	}
	if f.upstream.count() != 0 {
		t.Error("a fresh token was renewed")
	}
}

func TestAnExpiredTokenIsRenewedOnceForAllCallersOfTwoReplicas(t *testing.T) {
	t.Parallel()
	f := newFixture(t, -time.Minute)
	replicas := []*refresh.Refresher{f.replica(), f.replica()}
	var wg sync.WaitGroup
	for i := range 60 {
		wg.Go(func() {
			token, err := replicas[i%2].Token(t.Context(), f.session.ID, "corp")
			if err != nil {
				t.Error(err)
			} else if token.AccessToken.Reveal() != "at-2" || token.Version != 2 {
				t.Errorf("token = %s version %d", token.AccessToken.Reveal(), token.Version)
			}
		})
	}
	wg.Wait()
	if n := f.upstream.count(); n != 1 {
		t.Errorf("the provider was asked %d times", n)
	}
	if got := f.actions(); !slices.Equal(got, []string{"connection.refreshed/success"}) {
		t.Errorf("audit = %v", got)
	}
}

func TestARefusedVersionIsRenewedOnceForAllGateways(t *testing.T) {
	t.Parallel()
	f := newFixture(t, time.Hour)
	replicas := []*refresh.Refresher{f.replica(), f.replica()}
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			renewed, err := replicas[i%2].Renew(t.Context(), f.connection.ID, 1)
			if err != nil || !renewed {
				t.Errorf("renewed = %v, %v", renewed, err)
			}
		})
	}
	wg.Wait()
	if n := f.upstream.count(); n != 1 {
		t.Errorf("the provider was asked %d times", n)
	}
	// A late report of the old version brings nothing new, and is told so.
	if renewed, err := replicas[0].Renew(t.Context(), f.connection.ID, 1); err != nil || !renewed {
		t.Errorf("late report: %v, %v", renewed, err)
	}
	// A backend that refuses every token must not make us hammer the provider.
	if renewed, err := replicas[1].Renew(t.Context(), f.connection.ID, 2); err != nil || renewed {
		t.Errorf("second forced renewal in a row: %v, %v", renewed, err)
	}
	if n := f.upstream.count(); n != 1 {
		t.Errorf("the provider was asked %d times", n)
	}
}

func TestATokenWithoutAnEndIsRenewedWhenABackendRefusesIt(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 0)
	r := f.replica()
	f.upstream.change = func(g *upstream.Grant) { g.HasExpiry, g.ExpiresAt = false, time.Time{} }
	if renewed, err := r.Renew(t.Context(), f.connection.ID, 1); err != nil || !renewed {
		t.Fatalf("renewed = %v, %v", renewed, err)
	}
	token, err := r.Token(t.Context(), f.session.ID, "corp")
	must(t, err)
	if !token.ExpiresAt.IsZero() || token.AccessToken.Reveal() != "at-2" {
		t.Errorf("token = %+v", token)
	}
}

func TestWhatARefreshDoesNotSendIsKept(t *testing.T) {
	t.Parallel()
	f := newFixture(t, -time.Minute)
	f.upstream.change = func(g *upstream.Grant) {
		g.Scopes = []string{"openid", "less"}
		g.RefreshToken, g.IDToken = secret.String{}, secret.String{}
	}
	token, err := f.replica().Token(t.Context(), f.session.ID, "corp")
	must(t, err)
	if token.IDToken.Reveal() != "it-1" || !slices.Equal(token.Scopes, []string{"openid", "less"}) {
		t.Errorf("token = %+v", token)
	}
	if got := f.tokens().RefreshToken.Reveal(); got != "rt-1" || !f.read().Refreshable {
		t.Errorf("refresh token = %q", got)
	}
}

func TestFewerScopesAreToldToTheOperator(t *testing.T) {
	t.Parallel()
	f := newFixture(t, -time.Minute)
	f.upstream.change = func(g *upstream.Grant) { g.Scopes = []string{"profile"} }
	var log lockedBuffer
	r := f.replica(func(c *refresh.Config) { c.Logger = slog.New(slog.NewJSONHandler(&log, nil)) })
	token, err := r.Token(t.Context(), f.session.ID, "corp")
	must(t, err)
	if !slices.Equal(token.Scopes, []string{"profile"}) {
		t.Errorf("scopes = %v", token.Scopes)
	}
	if !strings.Contains(log.String(), `"lost":1`) || !strings.Contains(log.String(), f.connection.ID) {
		t.Errorf("log: %s", log.String())
	}
}

// lockedBuffer is a log that may be written from anywhere.
type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

func TestACertainNoFromThePrimaryLocksThePersonUntilTheNextLogin(t *testing.T) {
	t.Parallel()
	f := newFixture(t, -time.Minute)
	f.upstream.spend()
	r := f.replica()
	for range 3 {
		_, err := r.Token(t.Context(), f.session.ID, "corp")
		wantReason(t, err, reason.ReauthenticationRequired)
	}
	if n := f.upstream.count(); n != 1 {
		t.Errorf("a certain no was asked for %d times", n)
	}
	s, err := f.store.ActiveSession(t.Context(), f.session.ID)
	must(t, err)
	if !s.Locked {
		t.Error("the person is not locked")
	}
	events, _, err := f.store.EventsAfter(t.Context(), 0, 10)
	if err != nil || len(events) != 2 || events[0].ChangedSessionID != f.session.ID || events[1].ConnectionID != f.connection.ID {
		t.Errorf("events = %+v, %v", events, err)
	}
	old := f.session.ID
	f.login(time.Hour)
	if _, err := r.Token(t.Context(), old, "corp"); err != nil {
		t.Errorf("after the next login the session is still locked: %v", err)
	}
}

func TestACertainNoFromAnotherProviderLocksNobody(t *testing.T) {
	t.Parallel()
	f := newFixture(t, -time.Minute)
	f.upstream.primary = false
	f.upstream.spend()
	_, err := f.replica().Token(t.Context(), f.session.ID, "corp")
	wantReason(t, err, reason.ReauthenticationRequired)
	if s, err := f.store.ActiveSession(t.Context(), f.session.ID); err != nil || s.Locked {
		t.Errorf("locked = %v, %v", s.Locked, err)
	}
}

func TestWhileTheProviderIsDownAValidTokenIsServedAndItIsNotHammered(t *testing.T) {
	t.Parallel()
	f := newFixture(t, 30*time.Second) // due, and good for half a minute
	f.upstream.set(func(context.Context, *provider, string) error { return unreachable("false") })
	r := f.replica()
	for range 5 {
		token, err := r.Token(t.Context(), f.session.ID, "corp")
		must(t, err)
		if token.AccessToken.Reveal() != "at-1" {
			t.Errorf("token = %s", token.AccessToken.Reveal())
		}
	}
	if n := f.upstream.count(); n != 1 {
		t.Errorf("a provider that is down was asked %d times", n)
	}
	f.exec(`UPDATE tokenbroker.connections SET expires_at = now() - interval '1 second', refresh_after = expires_at`)
	_, err := r.Token(t.Context(), f.session.ID, "corp")
	wantReason(t, err, reason.UpstreamUnavailable)

	f.upstream.set(nil)
	f.exec(`UPDATE tokenbroker.connections SET retry_at = now() - interval '1 second'`)
	token, err := r.Token(t.Context(), f.session.ID, "corp")
	must(t, err)
	if token.Version != 2 {
		t.Errorf("version = %d after the provider came back", token.Version)
	}
}

func TestOurOwnMistakeAtTheProviderAsksNobodyToLogIn(t *testing.T) {
	t.Parallel()
	f := newFixture(t, -time.Minute)
	f.upstream.set(func(context.Context, *provider, string) error { return refused("invalid_client") })
	_, err := f.replica().Token(t.Context(), f.session.ID, "corp")
	wantReason(t, err, reason.UpstreamUnavailable)
	if c := f.read(); c.Status != store.ConnectionActive || c.Clock.RetryIn < 20*time.Second {
		t.Errorf("status %s, retry in %s", c.Status, c.Clock.RetryIn)
	}
}

func TestACallerThatGoesAwayDoesNotLoseTheTokens(t *testing.T) {
	t.Parallel()
	f := newFixture(t, -time.Minute)
	entered, release := make(chan struct{}), make(chan struct{})
	f.upstream.set(func(context.Context, *provider, string) error {
		close(entered)
		<-release
		return nil
	})
	r := f.replica()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := r.Token(ctx, f.session.ID, "corp")
		done <- err
	}()
	<-entered
	cancel()
	if err := <-done; err == nil {
		t.Error("the caller got a token after it went away")
	}
	close(release)
	r.Drain(t.Context())
	if c := f.read(); c.Version != 2 {
		t.Errorf("version = %d: the only valid tokens are lost", c.Version)
	}
}

func TestATokenOfARepointedProviderIsNotHandedOut(t *testing.T) {
	t.Parallel()
	f := newFixture(t, time.Hour)
	f.exec(`UPDATE tokenbroker.connections SET realm = 'https://before.example'`)
	_, err := f.replica().Token(t.Context(), f.session.ID, "corp")
	wantReason(t, err, reason.ConnectionRequired)
}

func TestWhatASessionDoesNotHaveIsAskedFor(t *testing.T) {
	t.Parallel()
	f := newFixture(t, time.Hour)
	r := f.replica()
	_, err := r.Token(t.Context(), f.session.ID, "octohub")
	wantReason(t, err, reason.ConnectionRequired)
	_, _, err = f.store.Disconnect(t.Context(), f.connection.ID, audit.Record{Action: audit.ConnectionDisconnected, Outcome: audit.Success})
	must(t, err)
	_, err = r.Token(t.Context(), f.session.ID, "corp")
	wantReason(t, err, reason.ConnectionRequired)
	_, err = r.Token(t.Context(), "ses_unknown", "corp")
	wantReason(t, err, reason.SessionEnded)
}

func TestAnEndedTokenWithoutARefreshTokenAsksForALogin(t *testing.T) {
	t.Parallel()
	f := newFixture(t, -time.Minute)
	f.exec(`UPDATE tokenbroker.connections SET refreshable = false`)
	r := f.replica()
	_, err := r.Token(t.Context(), f.session.ID, "corp")
	wantReason(t, err, reason.ReauthenticationRequired)
	if renewed, err := r.Renew(t.Context(), f.connection.ID, 1); err != nil || renewed {
		t.Errorf("renewed = %v, %v", renewed, err)
	}
}

func TestTokensOfAConnectionThatWentAwayMeanwhileAreNotKept(t *testing.T) {
	t.Parallel()
	f := newFixture(t, -time.Minute)
	f.upstream.set(func(context.Context, *provider, string) error {
		_, _, err := f.store.Disconnect(context.Background(), f.connection.ID,
			audit.Record{Action: audit.ConnectionDisconnected, Outcome: audit.Success})
		return err
	})
	_, err := f.replica().Token(t.Context(), f.session.ID, "corp")
	wantReason(t, err, reason.ConnectionRequired)
	c, err := f.store.Connection(t.Context(), f.connection.ID)
	must(t, err)
	if c.Status != store.ConnectionDisconnected || !c.Sealed.IsZero() {
		t.Errorf("tokens came back after a disconnect: %s", c.Status)
	}
	// The old ones, by the disconnection, and those that came too late for it.
	if got := f.queued(); !slices.Equal(got, []string{"rt-1", "rt-2"}) {
		t.Errorf("queued for revocation: %v", got)
	}
}

// A person's tokens must not stay good at the provider because their id token is not.
func TestTokensThatAreNotThePersonsAreGivenBack(t *testing.T) {
	t.Parallel()
	f := newFixture(t, -time.Minute)
	unfit := unfitProvider{f.upstream}
	r := f.replica(func(c *refresh.Config) {
		c.Find = func(string, string) (refresh.Provider, error) { return unfit, nil }
	})
	_, err := r.Token(t.Context(), f.session.ID, "corp")
	wantReason(t, err, reason.ReauthenticationRequired)
	if got := f.queued(); !slices.Equal(got, []string{"rt-2"}) {
		t.Errorf("queued for revocation: %v", got)
	}
	if inUse, err := f.store.RealmInUse(t.Context(), "", f.connection.Account); err != nil || inUse {
		t.Errorf("they are spared for a connection that nobody can use: %v, %v", inUse, err)
	}
}

// unfitProvider rotates, and sends an id token of somebody else.
type unfitProvider struct{ *provider }

func (p unfitProvider) Refresh(ctx context.Context, r upstream.RefreshRequest) (upstream.Grant, error) {
	g, err := p.provider.Refresh(ctx, r)
	if err == nil {
		err = fault.New(fault.Precondition, "no").WithReason(reason.IdentityInvalid)
	}
	return g, err
}

func TestConnectionsInUseAreRenewedAheadOfExpiry(t *testing.T) {
	t.Parallel()
	f := newFixture(t, time.Hour)
	if _, err := f.replica().Token(t.Context(), f.session.ID, "corp"); err != nil {
		t.Fatal(err)
	}
	due, err := f.store.DueConnections(t.Context(), configured(), 10)
	if err != nil || len(due) != 0 {
		t.Fatalf("due = %v, %v", due, err)
	}
	f.exec(`UPDATE tokenbroker.connections SET refresh_after = now() - interval '1 second'`)
	if due, err = f.store.DueConnections(t.Context(), configured(), 10); err != nil || len(due) != 1 {
		t.Fatalf("due = %v, %v", due, err)
	}
	elsewhere := []store.ProviderRealm{{Provider: "corp", Realm: "https://new.example"}}
	if due, err = f.store.DueConnections(t.Context(), elsewhere, 10); err != nil || len(due) != 0 {
		t.Fatalf("a connection of a provider that was repointed is due: %v, %v", due, err)
	}
	f.exec(`UPDATE tokenbroker.connections SET last_used_at = NULL`)
	if due, err = f.store.DueConnections(t.Context(), configured(), 10); err != nil || len(due) != 0 {
		t.Fatalf("a connection that nobody uses is due: %v, %v", due, err)
	}
	bySession := []store.ProviderRealm{{Provider: "corp", Realm: realm, UsedBySession: true}}
	if due, err = f.store.DueConnections(t.Context(), bySession, 10); err != nil || len(due) != 1 {
		t.Fatalf("due = %v, %v", due, err)
	}
}
