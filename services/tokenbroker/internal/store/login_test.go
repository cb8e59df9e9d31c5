package store_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

func detail(err error) string { return fault.Detail(err) }

func wantReason(t *testing.T, err error, want string) {
	t.Helper()
	if got := fault.ReasonOf(err); err == nil || got != want {
		t.Fatalf("reason = %q (%v), want %q", got, err, want)
	}
}

func TestAPendingSessionOpensNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.begin()
	f.stage(id, "alice", "alice-hub")
	_, err := f.Open(t.Context(), id, "hub")
	wantReason(t, err, reason.SessionEnded)
	_, err = f.ActiveSession(t.Context(), id)
	wantReason(t, err, reason.SessionEnded)
}

func TestOnePersonIsOneUserAcrossLogins(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	first, second, other := f.login("alice"), f.login("alice"), f.login("bob")
	if first.UserID != second.UserID {
		t.Error("two logins of one person made two users")
	}
	if first.UserID == other.UserID {
		t.Error("two people are one user")
	}
	c := f.connection(first.ID, "corp")
	if c.Version != 2 || c.ID != f.connection(second.ID, "corp").ID {
		t.Errorf("sessions of one account do not share a connection (version %d)", c.Version)
	}
}

func TestASubjectOfAnotherFieldIsAnotherPerson(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a := f.login("alice")
	id := f.begin()
	l := primaryLeg(id, "alice")
	l.Primary.SubjectField = "email"
	staged, err := f.StageLeg(t.Context(), l)
	must(t, err)
	if staged.Session.UserID == a.UserID {
		t.Error("the value of another claim logged in as alice")
	}
}

func TestConcurrentFirstLoginsMakeOneUser(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var wg sync.WaitGroup
	users := make([]string, 12)
	for i := range users {
		id := f.begin()
		wg.Go(func() {
			staged, err := f.StageLeg(t.Context(), primaryLeg(id, "alice"))
			if err != nil {
				t.Error(detail(err))
				return
			}
			users[i] = staged.Session.UserID
		})
	}
	wg.Wait()
	for _, u := range users {
		if u == "" || u != users[0] {
			t.Fatalf("concurrent logins made several users: %v", users)
		}
	}
}

func TestConcurrentActivationsOfOneAccountBothSucceed(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const logins = 8
	ids := make([]string, logins)
	for i := range ids {
		ids[i] = f.begin()
		f.stage(ids[i], "alice", "alice-hub")
	}
	var wg sync.WaitGroup
	for _, id := range ids {
		wg.Go(func() {
			for {
				_, err := f.activate(t.Context(), id)
				if err == nil {
					return
				}
				if !store.IsStale(err) {
					t.Error(detail(err))
					return
				}
			}
		})
	}
	wg.Wait()
	c := f.connection(ids[0], "hub")
	if c.Version != logins {
		t.Errorf("version = %d after %d activations", c.Version, logins)
	}
	for _, id := range ids {
		if f.connection(id, "hub").ID != c.ID {
			t.Error("one account became two connections")
		}
	}
}

func TestALegNeedsAUser(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	_, err := f.StageLeg(t.Context(), leg(f.begin(), "hub", hubRealm, "x"))
	wantReason(t, err, reason.PrimaryRequired)
}

func TestASessionNeverChangesItsUser(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.begin()
	f.stage(id, "alice")
	_, err := f.StageLeg(t.Context(), primaryLeg(id, "mallory"))
	wantReason(t, err, reason.IdentityInvalid)
	_, err = f.StageLeg(t.Context(), primaryLeg(id, "alice"))
	must(t, err)
}

func TestAnAbandonedChainLeavesWhatWorksAlone(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	working := f.login("alice", "alice-hub")
	before := f.connection(working.ID, "hub")

	id := f.begin()
	f.stage(id, "alice", "alice-hub")
	ended, err := f.EndSession(t.Context(), id, "chain_failed", audit.Record{Action: audit.SessionEnded, Outcome: "chain_failed", SessionID: id})
	must(t, err)
	if len(ended.Staged) != 2 {
		t.Errorf("erased %d staged legs, want 2", len(ended.Staged))
	}
	after := f.connection(working.ID, "hub")
	if after.Version != before.Version || string(after.Sealed.Ciphertext) != string(before.Sealed.Ciphertext) {
		t.Error("a failed chain changed a connection that worked")
	}
	_, err = f.activate(t.Context(), id)
	wantReason(t, err, reason.SessionEnded)
}

// The authserver repeats a call whose answer was lost.
func TestTheLegThatEndedALoginIsOnRecordOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.begin()
	f.stage(id, "alice")
	failed := audit.Record{Action: audit.LegFailed, Outcome: "DECLINED", Provider: "hub"}
	for i, want := range []int{1, 0} {
		ended, err := f.EndSession(t.Context(), id, "CHAIN_FAILED", audit.Record{Action: audit.SessionEnded, Outcome: "CHAIN_FAILED"}, failed)
		must(t, err)
		if len(ended.Failed) != want || ended.Changed != (i == 0) {
			t.Errorf("call %d kept %d records, changed %v", i+1, len(ended.Failed), ended.Changed)
		}
	}
	var action, provider, outcome, client string
	must(t, f.pool.QueryRow(t.Context(), `SELECT action, provider, outcome, client_id FROM tokenbroker.audit WHERE session_id = $1 AND action = 'leg.failed'`, id).
		Scan(&action, &provider, &outcome, &client))
	if provider != "hub" || outcome != "DECLINED" || client == "" {
		t.Errorf("record: %s, %s, client %q", provider, outcome, client)
	}
}

func TestAnotherAccountIsAnotherConnectionAndIsReported(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	first := f.login("alice", "work")
	id := f.begin()
	f.stage(id, "alice")
	staged, err := f.StageLeg(t.Context(), leg(id, "hub", hubRealm, "private"))
	must(t, err)
	if staged.Previous == nil || staged.Previous.Subject != "work" {
		t.Fatalf("previous account = %+v, want work", staged.Previous)
	}
	if _, err := f.activate(t.Context(), id); err != nil {
		t.Fatal(detail(err))
	}
	if f.connection(first.ID, "hub").ID == f.connection(id, "hub").ID {
		t.Error("another account took over the first one's connection")
	}
	if got := f.connection(first.ID, "hub").Subject; got != "work" {
		t.Errorf("the first session now acts as %q", got)
	}
}

func TestAnAccountOfASecondProviderInTheSameRealmIsNoChange(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.login("alice", "work")
	id := f.begin()
	f.stage(id, "alice")
	l := leg(id, "hub-private", hubRealm, "private")
	l.Configured = []string{"corp", "hub", "hub-private"}
	staged, err := f.StageLeg(t.Context(), l)
	must(t, err)
	if staged.Previous != nil {
		t.Errorf("a second provider's account is reported as a change of %+v", staged.Previous)
	}
	l = leg(id, "hub-renamed", hubRealm, "private")
	l.Configured = []string{"corp", "hub-renamed"}
	if staged, err = f.StageLeg(t.Context(), l); err != nil || staged.Previous == nil {
		t.Errorf("after a rename the account before is not known: %+v, %v", staged.Previous, err)
	}
}

func TestActivatingTwiceAnswersTheSame(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.login("alice", "alice-hub")
	again, err := f.activate(t.Context(), s.ID)
	must(t, err)
	if !again.EndsAt.Equal(s.EndsAt) || again.UserID != s.UserID || len(again.Links) != len(s.Links) {
		t.Errorf("second activation: %+v, first: %+v", again, s)
	}
	records, err := f.ListAudit(t.Context(), store.AuditFilter{SessionID: s.ID, Action: string(audit.SessionActivated), Limit: 10})
	if err != nil || len(records) != 1 {
		t.Errorf("%d records of one activation (%v)", len(records), err)
	}
}

func TestAReconnectionStaysStagedUntilItIsActivated(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.login("alice")
	if _, err := f.StageLeg(t.Context(), leg(s.ID, "hub", hubRealm, "alice-hub")); err != nil {
		t.Fatal(detail(err))
	}
	o, err := f.Open(t.Context(), s.ID, "hub")
	must(t, err)
	if o.Connection != nil {
		t.Fatal("staged tokens can be used before the activation")
	}
	if _, err := f.activate(t.Context(), s.ID); err != nil {
		t.Fatal(detail(err))
	}
	f.connection(s.ID, "hub")
}

func TestSkippingErasesWhatWasStaged(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.begin()
	f.stage(id, "alice", "alice-hub")
	skipped, err := f.SkipProvider(t.Context(), id, "hub", "unavailable", audit.Record{Action: audit.LegSkipped, Outcome: audit.Success})
	must(t, err)
	if skipped.Erased == nil || skipped.Erased.Subject != "alice-hub" {
		t.Errorf("erased %+v", skipped.Erased)
	}
	s, err := f.activate(t.Context(), id)
	must(t, err)
	if len(s.Links) != 2 || !s.Links[1].Skipped || s.Links[1].Provider != "hub" {
		t.Errorf("links = %+v, want hub skipped", s.Links)
	}
}

func TestALegThatRanAgainIsNotPromotedFromAnOldPlan(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.begin()
	f.stage(id, "alice", "first")
	plan, err := f.PlanActivation(t.Context(), id, time.Minute)
	must(t, err)
	_, err = f.StageLeg(t.Context(), leg(id, "hub", hubRealm, "second"))
	must(t, err)
	if _, err := f.Activate(t.Context(), activation(plan)); !store.IsStale(err) {
		t.Fatalf("err = %v, want stale", err)
	}
	if _, err := f.activate(t.Context(), id); err != nil {
		t.Fatal(detail(err))
	}
	if got := f.connection(id, "hub").Subject; got != "second" {
		t.Errorf("promoted %q", got)
	}
}

func TestTouchingNeverPassesTheAbsoluteEnd(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.login("alice")
	endsAt, err := f.TouchSession(t.Context(), s.ID, clientID, 10000*time.Hour)
	must(t, err)
	if !endsAt.Equal(s.EndsAt) {
		t.Errorf("absolute end moved from %v to %v", s.EndsAt, endsAt)
	}
	_, err = f.TouchSession(t.Context(), s.ID, "client-2", time.Hour)
	wantReason(t, err, reason.ClientMismatch)
	_, err = f.TouchSession(t.Context(), "ses_none", clientID, time.Hour)
	wantReason(t, err, reason.SessionNotFound)
	f.exec(`UPDATE tokenbroker.users SET locked_at = now()`)
	_, err = f.TouchSession(t.Context(), s.ID, clientID, time.Hour)
	wantReason(t, err, reason.SessionLocked)
}

func TestAnEndedSessionIsOverForEverything(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.login("alice", "alice-hub")
	end := func() store.Ended {
		ended, err := f.EndSession(t.Context(), s.ID, "signed_out", audit.Record{Action: audit.SessionEnded, Outcome: audit.Success, SessionID: s.ID})
		must(t, err)
		return ended
	}
	if !end().Changed || end().Changed {
		t.Error("a session ends once")
	}
	_, err := f.EndSession(t.Context(), "ses_none", "operator", audit.Record{})
	must(t, err)
	_, err = f.Open(t.Context(), s.ID, "hub")
	wantReason(t, err, reason.SessionEnded)
	_, err = f.TouchSession(t.Context(), s.ID, clientID, time.Hour)
	wantReason(t, err, reason.SessionEnded)
	_, err = f.StageLeg(t.Context(), leg(s.ID, "hub", hubRealm, "x"))
	wantReason(t, err, reason.SessionEnded)
	events, _, err := f.EventsAfter(t.Context(), 0, 100)
	must(t, err)
	if len(events) != 1 || events[0].SessionID != s.ID {
		t.Errorf("events = %+v, want one end", events)
	}
}

func TestALoginUnlocksTheUser(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.login("alice")
	f.exec(`UPDATE tokenbroker.users SET locked_at = now()`)
	a, err := f.ActiveSession(t.Context(), s.ID)
	if err != nil || !a.Locked {
		t.Fatalf("locked = %v, %v", a.Locked, err)
	}
	f.login("alice")
	if a, err = f.ActiveSession(t.Context(), s.ID); err != nil || a.Locked {
		t.Errorf("after a login: locked = %v, %v", a.Locked, err)
	}
}

// Somebody who is disabled must not get out of the lock by a login that they had begun
// before, in another tab.
func TestALoginFromBeforeTheLockUnlocksNobody(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.login("alice")
	before := f.begin()
	f.stage(before, "alice")
	f.exec(`UPDATE tokenbroker.users SET locked_at = clock_timestamp()`)
	_, err := f.activate(t.Context(), before)
	wantReason(t, err, reason.SessionLocked)
	if a, err := f.ActiveSession(t.Context(), s.ID); err != nil || !a.Locked {
		t.Errorf("locked = %v, %v", a.Locked, err)
	}
	if pending, err := f.LoadSession(t.Context(), before); err != nil || pending.State != store.SessionPending {
		t.Errorf("the login is %s, %v", pending.State, err)
	}
	f.login("alice")
	if a, err := f.ActiveSession(t.Context(), s.ID); err != nil || a.Locked {
		t.Errorf("after a login: locked = %v, %v", a.Locked, err)
	}
}

func TestLoadingWhileLegsCommitSeesOneMoment(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.begin()
	f.stage(id, "alice")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		defer cancel()
		for range 30 {
			if _, err := f.StageLeg(t.Context(), leg(id, "hub", hubRealm, "x")); err != nil {
				t.Error(detail(err))
			}
		}
	})
	for ctx.Err() == nil {
		s, err := f.LoadSession(t.Context(), id)
		must(t, err)
		if len(s.Links) == 0 {
			t.Fatal("a committed leg was not seen")
		}
	}
	wg.Wait()
}
