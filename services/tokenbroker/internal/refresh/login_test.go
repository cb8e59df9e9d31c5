package refresh_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/refresh"
	"chatelaine.dev/services/tokenbroker/internal/seal"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

// loginDuringRenewal makes the provider's first answer wait for a login, and what
// else there is to do.
func (f *fixture) loginDuringRenewal(granted seal.Tokens, also ...func()) {
	var once sync.Once
	f.upstream.set(func(context.Context, *provider, string) error {
		once.Do(func() {
			f.granted = granted
			f.login(time.Hour)
			for _, do := range also {
				do()
			}
		})
		return nil
	})
}

func TestALoginMeanwhileWins(t *testing.T) {
	t.Parallel()
	f := newFixture(t, -time.Minute)
	f.loginDuringRenewal(seal.Tokens{AccessToken: secret.New("at-login"), RefreshToken: secret.New("rt-login")})
	token, err := f.replica().Token(t.Context(), f.session.ID, "corp")
	must(t, err)
	if token.AccessToken.Reveal() != "at-login" || token.Version != 2 {
		t.Errorf("token = %s version %d, want the login's", token.AccessToken.Reveal(), token.Version)
	}
	if got := f.tokens().RefreshToken.Reveal(); got != "rt-login" {
		t.Errorf("refresh token = %q", got)
	}
}

// A login that brought no refresh token keeps the connection's. When a renewal has
// spent that one, what the renewal was granted is the only one that is good.
func TestTheNewRefreshTokenIsNotLostToALoginThatKeptTheOldOne(t *testing.T) {
	t.Parallel()
	for name, kept := range map[string]secret.String{
		"kept":                    secret.New("rt-1"),
		"not kept, being at risk": {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, -time.Minute)
			f.loginDuringRenewal(seal.Tokens{AccessToken: secret.New("at-login"), RefreshToken: kept, IDToken: secret.New("it-login")})
			r := f.replica()
			token, err := r.Token(t.Context(), f.session.ID, "corp")
			must(t, err)
			if token.AccessToken.Reveal() != "at-login" || token.IDToken.Reveal() != "it-login" || token.Version != 3 {
				t.Errorf("token = %s version %d, want the login's", token.AccessToken.Reveal(), token.Version)
			}
			if c := f.read(); !c.Refreshable || f.tokens().RefreshToken.Reveal() != "rt-2" {
				t.Fatalf("refresh token = %q", f.tokens().RefreshToken.Reveal())
			}
			if renewed, err := r.Renew(t.Context(), f.connection.ID, 3); err != nil || !renewed {
				t.Errorf("the next renewal: %v, %v", renewed, err)
			}
			if s, err := f.store.ActiveSession(t.Context(), f.session.ID); err != nil || s.Locked {
				t.Errorf("locked = %v, %v", s.Locked, err)
			}
		})
	}
}

// Where a provider says nothing of who logged in, the login may have been another
// account's, and that one's access token must not get this one's refresh token.
func TestALoginOfANamelessAccountGetsNoOthersRefreshToken(t *testing.T) {
	t.Parallel()
	f := newFixture(t, -time.Minute)
	f.loginDuringRenewal(seal.Tokens{AccessToken: secret.New("at-login")}, func() {
		f.exec(`UPDATE tokenbroker.connections SET subject = ''`)
	})
	token, err := f.replica().Token(t.Context(), f.session.ID, "corp")
	must(t, err)
	if token.AccessToken.Reveal() != "at-login" || token.Version != 2 || !f.tokens().RefreshToken.IsZero() {
		t.Errorf("token = %s version %d, refresh token %q", token.AccessToken.Reveal(), token.Version, f.tokens().RefreshToken.Reveal())
	}
}

// Somebody reconnected while the provider said no to the old token: what they
// connected works.
func TestANoToTokensThatALoginHasReplacedAsksNobodyToLogInAgain(t *testing.T) {
	t.Parallel()
	f := newFixture(t, -time.Minute)
	f.loginDuringRenewal(seal.Tokens{AccessToken: secret.New("at-login"), RefreshToken: secret.New("rt-login")})
	f.upstream.spend()
	r := f.replica()
	if renewed, err := r.Renew(t.Context(), f.connection.ID, 1); err != nil || !renewed {
		t.Errorf("renewed = %v, %v", renewed, err)
	}
	token, err := r.Token(t.Context(), f.session.ID, "corp")
	if err != nil || token.AccessToken.Reveal() != "at-login" {
		t.Errorf("token = %s, %v", token.AccessToken.Reveal(), err)
	}
}

func TestANoToAConnectionThatWentAwayMeanwhileSaysSo(t *testing.T) {
	t.Parallel()
	f := newFixture(t, -time.Minute)
	f.upstream.set(func(context.Context, *provider, string) error {
		_, _, err := f.store.Disconnect(context.Background(), f.connection.ID,
			audit.Record{Action: audit.ConnectionDisconnected, Outcome: audit.Success})
		must(t, err)
		return refused("invalid_grant")
	})
	_, err := f.replica().Renew(t.Context(), f.connection.ID, 1)
	wantReason(t, err, reason.ConnectionRequired)
}

// The caller compares it with who they ask for, so it must not be the session's.
func TestATokenSaysWhoseConnectionItIsOf(t *testing.T) {
	t.Parallel()
	f := newFixture(t, time.Hour)
	r := f.replica()
	reader := otherUsers{store.New(f.pool)}
	forged := f.replica(func(c *refresh.Config) { c.Reader = reader })
	token, err := r.Token(t.Context(), f.session.ID, "corp")
	if err != nil || token.UserID != f.session.UserID {
		t.Errorf("user %q, %v", token.UserID, err)
	}
	token, err = forged.Token(t.Context(), f.session.ID, "corp")
	if err != nil || token.UserID != "usr_other" {
		t.Errorf("another user's connection passes for that of %q, %v", token.UserID, err)
	}
}

// otherUsers opens another user's connection, as a wrong query would.
type otherUsers struct{ *store.Store }

func (o otherUsers) Open(ctx context.Context, sessionID, provider string) (store.Opening, error) {
	opening, err := o.Store.Open(ctx, sessionID, provider)
	if opening.Connection != nil {
		opening.Connection.UserID = "usr_other"
	}
	return opening, err
}
