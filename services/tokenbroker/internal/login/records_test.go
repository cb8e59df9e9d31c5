package login_test

import (
	"testing"

	"chatelaine.dev/internal/fault"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

// failedLegs are the outcomes on record of a session's legs at octohub that failed.
func (f *fixture) failedLegs(session string) (outcomes []string) {
	f.t.Helper()
	records, err := f.store.ListAudit(f.t.Context(), store.AuditFilter{SessionID: session, Action: string(audit.LegFailed), Limit: 10})
	must(f.t, err)
	for i := range records {
		if r := &records[i]; r.Provider != "octohub" || r.ClientID != clientID || r.UserID != f.user(session) {
			f.t.Errorf("incomplete record %+v", r)
		}
		outcomes = append(outcomes, records[i].Outcome)
	}
	return outcomes
}

func TestALegThatEndsALoginIsOnRecordOnce(t *testing.T) {
	t.Parallel()
	end := func(f *fixture, id string, leg *brokerv1.FailedLeg) {
		_, err := f.EndSession(f.t.Context(), &brokerv1.EndSessionRequest{
			SessionId: id, Reason: brokerv1.SessionEndReason_SESSION_END_REASON_CHAIN_FAILED, FailedLeg: leg,
		})
		must(f.t, err)
	}
	for name, c := range map[string]struct {
		reason  brokerv1.SkipReason
		ended   bool // before the authorization server says so
		outcome string
	}{
		"declined":                             {brokerv1.SkipReason_SKIP_REASON_DECLINED, false, "DECLINED"},
		"abandoned":                            {brokerv1.SkipReason_SKIP_REASON_ABANDONED, false, "ABANDONED"},
		"of a session that has expired before": {brokerv1.SkipReason_SKIP_REASON_ABANDONED, true, "ABANDONED"},
		"for a reason of a later version":      {99, false, "99"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			id := f.begin()
			if c.ended {
				end(f, id, nil)
			}
			for range 3 { // the answer is lost, and the call comes again
				end(f, id, &brokerv1.FailedLeg{Provider: "octohub", Reason: c.reason})
			}
			if got := f.failedLegs(id); len(got) != 1 || got[0] != c.outcome {
				t.Errorf("on record %v, want %s once", got, c.outcome)
			}
		})
	}
}

func TestACodeThatCannotBeRedeemedAnyMoreIsOnRecord(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.begin()
	_, err := f.EndSession(t.Context(), &brokerv1.EndSessionRequest{SessionId: id, Reason: brokerv1.SessionEndReason_SESSION_END_REASON_OPERATOR})
	must(t, err)
	if err := f.redeem(id, "octohub", "42", "at-late", ""); fault.ReasonOf(err) != reason.SessionEnded {
		t.Fatal(err)
	}
	if got := f.failedLegs(id); len(got) != 1 || got[0] != reason.SessionEnded {
		t.Errorf("on record %v, want %s", got, reason.SessionEnded)
	}
}
