package store_test

import (
	"testing"
	"time"

	"chatelaine.dev/internal/fault"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/authserver/internal/store"
)

func TestAUsedCodeIsStillKnown(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	want := f.code("g1")
	f.must(f.ConsumeCode(t.Context(), "code-g1"))
	c, g, err := f.Code(t.Context(), "code-g1")
	f.must(err)
	if !c.Used || g.SessionID != want.SessionID || c.CodeChallenge != "challenge" {
		t.Errorf("code %+v, grant %+v", c, g)
	}
	_, _, err = f.Code(t.Context(), "code-unknown")
	f.wantKind(err, fault.NotFound)
}

func TestACodeOfAnEndedGrantCannotBeRedeemed(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.code("g1")
	if _, err := f.EndSession(t.Context(), "session-g1", brokerv1.SessionEndReason_SESSION_END_REASON_OPERATOR); err != nil {
		t.Fatal(err)
	}
	f.wantKind(f.ConsumeCode(t.Context(), "code-g1"), fault.Conflict)
	f.wantKind(f.ActivateGrant(t.Context(), "g1", time.Now(), time.Now()), fault.Conflict)
}

func TestWhatIsOnlyTooLateIsNoSignOfTheft(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.code("late")
	f.exec(`UPDATE authserver.authorization_codes SET expires_at = now()`)
	f.code("used")
	f.must(f.ConsumeCode(t.Context(), "code-used"))
	f.code("ended")
	if _, err := f.EndSession(t.Context(), "session-ended", brokerv1.SessionEndReason_SESSION_END_REASON_OPERATOR); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]string{"late": store.ReasonCodeOver, "ended": store.ReasonCodeOver, "used": store.ReasonCodeUsed} {
		if err := f.ConsumeCode(t.Context(), "code-"+id); fault.KindOf(err) != fault.Conflict || fault.ReasonOf(err) != want {
			t.Errorf("%s: %v, reason %q", id, err, fault.ReasonOf(err))
		}
	}
	if n := f.count(`SELECT count(*) FROM authserver.session_ends`); n != 1 {
		t.Errorf("%d ends queued, want the one that ended a living grant", n)
	}
	if ended, err := f.EndSession(t.Context(), "session-ended", brokerv1.SessionEndReason_SESSION_END_REASON_OPERATOR); err != nil || ended {
		t.Errorf("a second end: %v, %v", ended, err)
	}
}

func TestAnAbortedRedemptionLeavesTheCodeUnspent(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.code("g1")
	ctx, err := f.Begin(t.Context())
	f.must(err)
	f.must(f.ConsumeCode(ctx, "code-g1"))
	f.must(f.Rollback(ctx))
	f.must(f.ConsumeCode(t.Context(), "code-g1"))
}

func TestOnlyTheLivingSessionOfTheUserIsAlive(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.code("pending")
	f.active("alive")
	f.active("ended")
	f.active("expired")
	f.exec(`UPDATE authserver.grants SET status = 'ended', ended_at = now() WHERE id = 'ended'`)
	f.exec(`UPDATE authserver.grants SET expires_at = now() WHERE id = 'expired'`)
	for _, tt := range []struct {
		session, user string
		want          bool
	}{
		{"session-alive", "user-1", true},
		{"session-alive", "user-2", false},
		{"session-pending", "user-1", false},
		{"session-ended", "user-1", false},
		{"session-expired", "user-1", false},
		{"session-unknown", "user-1", false},
	} {
		_, got, err := f.GrantAlive(t.Context(), tt.session, tt.user)
		f.must(err)
		if got != tt.want {
			t.Errorf("%s of %s: alive = %v", tt.session, tt.user, got)
		}
		_, client, err := f.ActingClient(t.Context(), tt.session, tt.user)
		f.must(err)
		if (client != "") != tt.want {
			t.Errorf("%s of %s: client %q acts", tt.session, tt.user, client)
		}
	}
}
