package refresh_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/pgtest"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/refresh"
	"chatelaine.dev/services/tokenbroker/internal/schema"
	"chatelaine.dev/services/tokenbroker/internal/upstream"
)

// skewed returns the URL of a database whose clock is so much ahead of ours: as seen
// from there, this broker's clock is behind.
func skewed(t *testing.T, ahead time.Duration) secret.String {
	t.Helper()
	u := pgtest.URL(t)
	conn, err := pgx.Connect(t.Context(), u.Reveal())
	must(t, err)
	defer conn.Close(t.Context())
	shift := ` + interval '` + ahead.String() + `'`
	for _, statement := range []string{
		`CREATE SCHEMA clock`,
		`CREATE FUNCTION clock.now() RETURNS timestamptz LANGUAGE sql STABLE AS $$ SELECT pg_catalog.now()` + shift + ` $$`,
		`CREATE FUNCTION clock.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$ SELECT pg_catalog.clock_timestamp()` + shift + ` $$`,
		// Before pg_catalog, for the defaults of columns as well.
		`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = clock, pg_catalog, public', current_database()); END $$`,
	} {
		_, err := conn.Exec(t.Context(), statement)
		must(t, err)
	}
	_, err = schema.Migrations().Up(t.Context(), u, nil)
	must(t, err)
	return u
}

// TestTokensLiveAsLongAsTheyShouldWhateverTheBrokersClockSays: with tokens that live
// for less than the clocks differ.
func TestTokensLiveAsLongAsTheyShouldWhateverTheBrokersClockSays(t *testing.T) {
	t.Parallel()
	const life = 2 * time.Minute
	for name, ahead := range map[string]time.Duration{
		"20 s behind": 20 * time.Second, "20 s ahead": -20 * time.Second,
		"5 min behind": 5 * time.Minute, "5 min ahead": -5 * time.Minute,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixtureAt(t, skewed(t, ahead), life)
			f.upstream.change = func(g *upstream.Grant) { g.ExpiresAt = time.Now().Add(life) }
			r := f.replica()
			f.lives(r, "at-1", life, 0) // as the login brought it

			f.exec(`UPDATE tokenbroker.connections SET refresh_after = clock_timestamp() - interval '1 second'`)
			for range 3 { // once is enough
				f.lives(r, "at-2", life, 1)
			}

			f.exec(`UPDATE tokenbroker.connections SET expires_at = clock_timestamp() - interval '1 second', refresh_after = clock_timestamp() - interval '1 second'`)
			f.upstream.set(func(context.Context, *provider, string) error { return unreachable("no") })
			token, err := r.Token(t.Context(), f.session.ID, "corp")
			if fault.ReasonOf(err) != reason.UpstreamUnavailable {
				t.Errorf("a token that has expired: %v, version %d", err, token.Version)
			}
			f.upstream.set(nil)
			f.exec(`UPDATE tokenbroker.connections SET retry_at = NULL`)
			for range 3 {
				f.lives(r, "at-4", life, 3)
			}
		})
	}
}

// lives checks the token that the session may use, for how long by this process's
// clock, and how often the provider was asked for a new one.
func (f *fixture) lives(r *refresh.Refresher, want string, life time.Duration, calls int) {
	f.t.Helper()
	token, err := r.Token(f.t.Context(), f.session.ID, "corp")
	must(f.t, err)
	if left := time.Until(token.ExpiresAt); token.AccessToken.Reveal() != want || left > life || left < life-10*time.Second {
		f.t.Errorf("%s is good for %v, want %s for %v", token.AccessToken.Reveal(), left, want, life)
	}
	if left := f.read().Clock.Remaining; left > life || left < life-10*time.Second {
		f.t.Errorf("%s is good for %v by the database's clock, want %v", want, left, life)
	}
	if n := f.upstream.count(); n != calls {
		f.t.Errorf("%d renewals, want %d", n, calls)
	}
}

// TestATokenThatIsStoredAgainLivesNoLonger: a token of a login that needs the renewed
// refresh token is stored again, and lives no longer for it.
func TestATokenThatIsStoredAgainLivesNoLonger(t *testing.T) {
	t.Parallel()
	f := newFixture(t, time.Hour)
	r := f.replica()
	f.upstream.set(func(context.Context, *provider, string) error { // a login meanwhile, without a refresh token of its own
		f.upstream.set(nil)
		f.granted.AccessToken, f.granted.RefreshToken = secret.New("at-login"), secret.New("rt-1")
		f.login(10 * time.Minute)
		return nil
	})
	if _, err := r.Renew(t.Context(), f.connection.ID, f.connection.Version); err != nil {
		t.Fatal(err)
	}
	token, err := r.Token(t.Context(), f.session.ID, "corp")
	must(t, err)
	if left := time.Until(token.ExpiresAt); token.AccessToken.Reveal() != "at-login" || left > 10*time.Minute || left < 9*time.Minute {
		t.Errorf("%s is good for %v, want at-login for ten minutes", token.AccessToken.Reveal(), left)
	}
	if got := f.tokens().RefreshToken.Reveal(); got != "rt-2" {
		t.Errorf("the refresh token is %s, want the renewed one", got)
	}
}
