package login_test

import (
	"testing"

	"chatelaine.dev/internal/fault"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

// A redemption that comes late must not put an account in the place of the one that
// the person has confirmed.
func TestOnlyLegsThatTheChainHasSeenArePromoted(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	redeem := func(session, account string) string {
		t.Helper()
		f.hub.mu.Lock()
		f.hub.account = account
		f.hub.mu.Unlock()
		answer, err := f.RedeemCode(t.Context(), &brokerv1.RedeemCodeRequest{
			SessionId: session, Provider: "octohub", Code: "code", CodeVerifier: verifier,
			RedirectUri: "http://localhost:8080/oauth/callback/octohub",
		})
		must(t, err)
		return answer.GetLegId()
	}
	primary := func(session string) (id string) {
		t.Helper()
		must(t, f.pool.QueryRow(t.Context(), `SELECT id FROM tokenbroker.staged_legs WHERE session_id = $1 AND provider = 'corp'`, session).Scan(&id))
		return id
	}
	activate := func(session string, legs ...string) error {
		_, err := f.ActivateSession(t.Context(), &brokerv1.ActivateSessionRequest{SessionId: session, ClientId: clientID, LegIds: legs})
		return err
	}
	account := func(session string) string {
		t.Helper()
		o, err := f.store.Open(t.Context(), session, "octohub")
		must(t, err)
		if o.Connection == nil {
			return ""
		}
		return o.Connection.Subject
	}

	seen := f.begin()
	legs := []string{primary(seen), redeem(seen, "42")}
	must(t, activate(seen, legs...))
	if got := account(seen); got != "42" {
		t.Errorf("the account is %q", got)
	}
	must(t, activate(seen, legs...)) // the answer was lost

	late := f.begin()
	legs = []string{primary(late), redeem(late, "42")}
	redeem(late, "666")
	must(t, activate(late, legs...))
	if got := account(late); got != "" {
		t.Errorf("an account that nobody has confirmed is connected: %q", got)
	}

	unseen := f.begin()
	if err := activate(unseen, "leg_another"); fault.ReasonOf(err) != reason.ProviderRequired {
		t.Errorf("a login whose primary leg nobody has seen: %v", err)
	}
	if s, err := f.store.LoadSession(t.Context(), unseen); err != nil || s.State != store.SessionPending {
		t.Errorf("it is %s, %v", s.State, err)
	}

	// An authorization server of the version before names none.
	before := f.begin()
	redeem(before, "42")
	must(t, activate(before))
	if got := account(before); got != "42" {
		t.Errorf("the account is %q", got)
	}
}
