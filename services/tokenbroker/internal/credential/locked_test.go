package credential_test

import (
	"context"
	"testing"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/credential"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/refresh"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

// Locking a person reaches what comes of no connection too, as soon as it is heard,
// and a login brings all of it back.
func TestALockedPersonGetsNothingUntilTheyLogIn(t *testing.T) {
	t.Parallel()
	b := start(t, options{})
	s := b.logIn(true)
	token := b.token(s, nil)
	backends := []string{"keyed", "tokened", "ledger", "repos", "open"}
	for range 2 {
		for _, backend := range backends {
			b.mustGet(token, backend)
		}
		o, err := b.store.Open(t.Context(), s.id, "corp")
		must(t, err)
		locked, err := b.store.RequireReauthentication(t.Context(), store.Refusal{
			ConnectionID: o.Connection.ID, PresentedVersion: o.Connection.Version, LockUser: true,
			Record: audit.Record{Action: audit.ConnectionRefreshFailed, Outcome: reason.ReauthenticationRequired},
		})
		if err != nil || !locked {
			t.Fatal(locked, err)
		}
		b.listened()
		for _, backend := range backends {
			_, err := b.get(token, backend)
			wantReason(t, err, reason.ReauthenticationRequired, "corp")
		}
		b.logIn(true)
		b.listened()
	}
}

// strangers opens connections as a wrong query would: another user's.
type strangers struct{ credential.Tokens }

func (s strangers) Token(ctx context.Context, sessionID, provider string) (refresh.Token, error) {
	t, err := s.Tokens.Token(ctx, sessionID, provider)
	t.UserID = "usr_another"
	return t, err
}

func TestATokenOfAnotherPersonIsNotHandedOut(t *testing.T) {
	t.Parallel()
	b := start(t, options{tokens: func(real credential.Tokens) credential.Tokens { return strangers{real} }})
	token := b.token(b.logIn(true), nil)
	for _, backend := range []string{"repos", "payroll"} {
		if out, err := b.get(token, backend); err == nil || fault.KindOf(err) != fault.Internal {
			t.Errorf("%s: %v, %v", backend, out.GetCredentialVersion(), err)
		}
	}
	b.mustGet(token, "keyed")
}
