package store_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

func ending(user string) store.SessionsToEnd {
	return store.SessionsToEnd{
		UserID: user, Everybody: user == "", Reason: "OPERATOR",
		Record: audit.Record{Action: audit.SessionEnded, Peer: "operator"},
	}
}

func TestAnOperatorEndsEverySession(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	alice, bob := f.login("alice", "alice-hub"), f.login("bob")
	pending := f.begin()
	f.stage(pending, "alice")
	nobodys := f.begin()
	var legs int
	which := ending("")
	which.Each = func(ended []store.Ended) {
		for i := range ended {
			legs += len(ended[i].Staged)
		}
	}
	position := f.head()
	count, err := f.EndSessions(t.Context(), which)
	if want := (store.EndedSessions{Active: 2, Pending: 2}); err != nil || count != want {
		t.Fatalf("count = %+v, %v; want %+v", count, err, want)
	}
	if legs != 1 {
		t.Errorf("%d legs to revoke", legs)
	}
	for _, id := range []string{alice.ID, bob.ID, pending, nobodys} {
		s, err := f.LoadSession(t.Context(), id)
		if err != nil || s.State != store.SessionEnded || len(s.Links) != 0 {
			t.Errorf("session %s: %+v, %v", id, s, err)
		}
		records, err := f.ListAudit(t.Context(), store.AuditFilter{SessionID: id, Action: string(audit.SessionEnded), Limit: 10})
		if id == nobodys {
			if err != nil || len(records) != 0 {
				t.Errorf("a session that nobody had is on record: %+v, %v", records, err)
			}
			continue
		}
		if err != nil || len(records) != 1 || records[0].Outcome != "OPERATOR" || records[0].Peer != "operator" || records[0].UserID != s.UserID {
			t.Errorf("records of %s: %+v, %v", id, records, err)
		}
	}
	events, _, err := f.EventsAfter(t.Context(), position, 100)
	must(t, err)
	var told []string
	for _, e := range events {
		told = append(told, e.SessionID)
	}
	if len(told) != 2 || !slices.Contains(told, alice.ID) || !slices.Contains(told, bob.ID) {
		t.Errorf("watchers were told of %v", told)
	}
	if count, err = f.EndSessions(t.Context(), ending("")); err != nil || count != (store.EndedSessions{}) {
		t.Errorf("a second time: %+v, %v", count, err)
	}
}

func TestAnOperatorEndsTheSessionsOfOnePerson(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	alice, bob := f.login("alice"), f.login("bob")
	count, err := f.EndSessions(t.Context(), ending(alice.UserID))
	if err != nil || count != (store.EndedSessions{Active: 1}) {
		t.Errorf("count = %+v, %v", count, err)
	}
	if _, err := f.ActiveSession(t.Context(), bob.ID); err != nil {
		t.Error("somebody else was logged out:", err)
	}
	for _, which := range []store.SessionsToEnd{{}, {UserID: alice.UserID, Everybody: true}} {
		if _, err := f.EndSessions(t.Context(), which); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%+v: %v", which, err)
		}
	}
	if _, err := f.ActiveSession(t.Context(), bob.ID); err != nil {
		t.Error("a name that was left out ended everybody's sessions:", err)
	}
}

// manySessions makes active sessions of one person without their logins.
func (f *fixture) manySessions(user string, n int) {
	f.t.Helper()
	f.exec(`
		INSERT INTO tokenbroker.sessions (id, state, client_id, user_id, activated_at, ends_at, expires_at)
		SELECT 'many_' || i, 'active', 'c', $1, now(), now() + interval '1 day', now() + interval '1 day'
		FROM generate_series(1, $2) i`, user, n)
}

func TestEndingManySessionsCanBeInterruptedAndRunAgain(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	user := f.login("alice").UserID
	const sessions = 1201
	f.manySessions(user, sessions-1)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	which := ending("")
	batches := 0
	which.Each = func(ended []store.Ended) {
		if batches++; len(ended) > 500 {
			t.Errorf("%d sessions in one transaction", len(ended))
		}
		interrupt()
	}
	first, err := f.EndSessions(ctx, which)
	if err == nil || batches != 1 || first.Active == 0 || first.Active == sessions {
		t.Fatalf("interrupted after %d batches: %+v, %v", batches, first, err)
	}
	which.Each = nil
	second, err := f.EndSessions(t.Context(), which)
	if err != nil || first.Active+second.Active != sessions {
		t.Errorf("ended %d, then %d of %d: %v", first.Active, second.Active, sessions, err)
	}
	if head := f.head(); head != sessions {
		t.Errorf("%d events of %d ends", head, sessions)
	}
}

func TestOperatorsWhoEndSessionsAtOnceEndEachOnce(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	user := f.login("alice").UserID
	f.manySessions(user, 1500)
	var wg sync.WaitGroup
	counts := make([]store.EndedSessions, 4)
	for i := range counts {
		wg.Go(func() {
			var err error
			if counts[i], err = f.EndSessions(t.Context(), ending("")); err != nil {
				t.Error(detail(err))
			}
		})
	}
	// People log out, and log in, meanwhile.
	for i := range 50 {
		_, err := f.EndSession(t.Context(), fmt.Sprintf("many_%d", 1500-i), "SIGNED_OUT", audit.Record{Action: audit.SessionEnded, Outcome: "SIGNED_OUT"})
		must(t, err)
	}
	wg.Wait()
	var left, events, ends int
	must(t, f.pool.QueryRow(t.Context(), `
		SELECT (SELECT count(*) FROM tokenbroker.sessions WHERE state <> 'ended'),
			(SELECT count(*) FROM tokenbroker.events WHERE kind = 'session_ended'),
			(SELECT count(DISTINCT session_id) FROM tokenbroker.events WHERE kind = 'session_ended')`).Scan(&left, &events, &ends))
	if left != 0 || events != 1501 || ends != 1501 {
		t.Errorf("%d sessions go on; %d events about %d ends", left, events, ends)
	}
}
