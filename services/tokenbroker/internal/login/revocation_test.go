package login_test

import (
	"slices"
	"testing"
	"time"

	"chatelaine.dev/internal/fault"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

// given returns what waits to be revoked, and forgets it.
func (f *fixture) given() []store.Revocation {
	f.t.Helper()
	list, err := f.store.ClaimRevocations(f.t.Context(), 100, time.Hour)
	must(f.t, err)
	for i := range list {
		_, err := f.store.FinishRevocation(f.t.Context(), &list[i], nil)
		must(f.t, err)
	}
	return list
}

// wantRevoked checks the access tokens of octohub that wait to be revoked, and forgets
// all that wait.
func (f *fixture) wantRevoked(user string, want ...string) {
	f.t.Helper()
	var got []string
	for _, r := range f.given() {
		if r.Provider != "octohub" {
			continue
		}
		tokens, err := f.sealer.OpenTokens(f.t.Context(), r.Sealed, r.Place)
		must(f.t, err)
		got = append(got, tokens.AccessToken.Reveal())
		if r.UserID != user || !r.Staged || r.Account.Subject == "" {
			f.t.Errorf("queued of user %q, account %+v, staged %v; want user %s", r.UserID, r.Account, r.Staged, user)
		}
	}
	if !slices.Equal(got, want) {
		f.t.Errorf("queued for revocation: %v, want %v", got, want)
	}
}

func (f *fixture) user(session string) string {
	f.t.Helper()
	s, err := f.store.LoadSession(f.t.Context(), session)
	must(f.t, err)
	return s.UserID
}

func TestTokensOfALegThatCouldNotBeStoredAreGivenBack(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.begin()
	f.legs.beforeStage = func() { // somebody ends the chain while the provider answers
		_, err := f.store.EndSession(t.Context(), id, "OPERATOR", audit.Record{Action: audit.SessionEnded, Outcome: "OPERATOR"})
		must(t, err)
	}
	user := f.user(id)
	if err := f.redeem(id, "octohub", "42", "at-lost", "rt-lost"); fault.ReasonOf(err) != reason.SessionEnded {
		t.Fatal(err)
	}
	f.wantRevoked(user, "at-lost")
}

func TestTokensOfALoginThatCameToNothingAreGivenBack(t *testing.T) {
	t.Parallel()
	end := func(f *fixture, id string) {
		_, err := f.EndSession(f.t.Context(), &brokerv1.EndSessionRequest{
			SessionId: id, Reason: brokerv1.SessionEndReason_SESSION_END_REASON_CHAIN_FAILED,
		})
		must(f.t, err)
	}
	skip := func(f *fixture, id string) {
		_, err := f.SkipProvider(f.t.Context(), &brokerv1.SkipProviderRequest{
			SessionId: id, Provider: "octohub", Reason: brokerv1.SkipReason_SKIP_REASON_DECLINED,
		})
		must(f.t, err)
	}
	again := func(account string) func(*fixture, string) {
		return func(f *fixture, id string) { must(f.t, f.redeem(id, "octohub", account, "at-again", "")) }
	}
	for name, c := range map[string]struct {
		do   func(*fixture, string)
		want []string
	}{
		"skipped":                        {skip, []string{"at-1"}},
		"run again with another account": {again("43"), []string{"at-1"}},
		// It may be one grant: package revoke leaves it alone for as long as the leg lives.
		"run again with the same account": {again("42"), []string{"at-1"}},
		"activated":                       {func(f *fixture, id string) { must(f.t, f.activate(id)); end(f, id) }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			id := f.chain("octohub", "at-1", "rt-1")
			user := f.user(id)
			c.do(f, id)
			f.wantRevoked(user, c.want...)
		})
	}
	t.Run("ended", func(t *testing.T) {
		t.Parallel()
		f := newFixture(t)
		id := f.chain("octohub", "at-1", "rt-1")
		end(f, id)
		var providers []string
		for _, r := range f.given() {
			providers = append(providers, r.Provider)
		}
		slices.Sort(providers)
		if !slices.Equal(providers, []string{"corp", "octohub"}) {
			t.Errorf("handed over for revocation: %v", providers)
		}
		end(f, id) // nothing is left
		if again := f.given(); len(again) != 0 {
			t.Errorf("%d sets of tokens more after ending twice", len(again))
		}
	})
}
