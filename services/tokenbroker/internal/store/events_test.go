package store_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

// A reader that follows positions must see every event although many transactions
// commit at the same time, in whatever order.
func TestAReaderNeverSkipsAnEventOfConcurrentCommits(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const writers, each = 8, 12
	want := map[string]bool{}
	sessions := make([][]string, writers)
	for w := range sessions {
		for range each {
			id := f.login("alice").ID
			sessions[w] = append(sessions[w], id)
			want[id] = true
		}
	}
	head := func() int64 {
		_, head, err := f.EndedSessions(t.Context(), time.Hour)
		must(t, err)
		return head
	}
	position := head()

	var wg sync.WaitGroup
	for w := range sessions {
		wg.Go(func() {
			for _, id := range sessions[w] {
				if _, err := f.EndSession(t.Context(), id, "OPERATOR", audit.Record{Action: audit.SessionEnded, Outcome: "OPERATOR"}); err != nil {
					t.Error(detail(err))
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for finished := false; !finished || position < head(); {
		select {
		case <-done:
			finished = true
		default:
		}
		events, _, err := f.EventsAfter(t.Context(), position, 3)
		must(t, err)
		for _, e := range events {
			if e.Position != position+1 {
				t.Fatalf("after position %d came %d", position, e.Position)
			}
			position = e.Position
			delete(want, e.SessionID)
		}
	}
	if len(want) > 0 {
		t.Errorf("the reader never heard of %d ended sessions", len(want))
	}
}

func TestTheSnapshotOfEndedSessionsSaysWhatItKnows(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	old, fresh, alive := f.login("alice"), f.login("alice"), f.login("alice")
	for _, s := range []store.Session{old, fresh} {
		_, err := f.EndSession(t.Context(), s.ID, "OPERATOR", audit.Record{Action: audit.SessionEnded, Outcome: "OPERATOR"})
		must(t, err)
	}
	f.exec(`UPDATE tokenbroker.events SET created_at = created_at - interval '2 hours' WHERE session_id = $1`, old.ID)
	ended, head, err := f.EndedSessions(t.Context(), time.Hour)
	must(t, err)
	if len(ended) != 1 || ended[0].SessionID != fresh.ID || head != ended[0].Position {
		t.Errorf("ended = %+v, head %d", ended, head)
	}
	a, err := f.ActiveSession(t.Context(), alive.ID)
	if err != nil || a.Position != head {
		t.Errorf("position of an answer = %d, %v; head %d", a.Position, err, head)
	}
}

func TestAPositionThatCannotBeResumedIsRefused(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for range 3 {
		f.login("alice")
	}
	_, head, err := f.EventsAfter(t.Context(), 0, 10)
	must(t, err)
	if head != 2 {
		t.Fatalf("head = %d", head)
	}
	if events, _, err := f.EventsAfter(t.Context(), head, 10); err != nil || len(events) != 0 {
		t.Errorf("at the head: %v, %v", events, err)
	}
	_, _, err = f.EventsAfter(t.Context(), head+1, 10) // of another database
	wantReason(t, err, reason.PositionUnknown)
	f.exec(`DELETE FROM tokenbroker.events WHERE position = 1`)
	_, _, err = f.EventsAfter(t.Context(), 0, 10) // swept
	wantReason(t, err, reason.PositionUnknown)
	if events, _, err := f.EventsAfter(t.Context(), 1, 10); err != nil || len(events) != 1 {
		t.Errorf("after the swept part: %v, %v", events, err)
	}
}

func TestACommitWakesReaders(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.login("alice")
	conn, err := f.pool.Acquire(t.Context())
	must(t, err)
	defer conn.Release()
	_, err = conn.Exec(t.Context(), `LISTEN `+store.EventChannel)
	must(t, err)
	_, err = f.EndSession(t.Context(), s.ID, "OPERATOR", audit.Record{Action: audit.SessionEnded, Outcome: "OPERATOR"})
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := conn.Conn().WaitForNotification(ctx); err != nil {
		t.Error("no notification:", err)
	}
}

func TestAuditRecordsCannotBeChangedOrRemoved(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	must(t, f.InsertAudit(t.Context(), audit.Record{Action: audit.CredentialIssued, Outcome: audit.Success, UserID: "u"}))
	for _, sql := range []string{
		`UPDATE tokenbroker.audit SET outcome = 'x'`, `DELETE FROM tokenbroker.audit`, `TRUNCATE tokenbroker.audit`,
	} {
		if _, err := f.pool.Exec(t.Context(), sql); err == nil {
			t.Errorf("%s worked", sql)
		}
	}
}

func TestAuditRecordsAreFoundByEachFilter(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	rec := audit.Record{
		Action: audit.CredentialIssued, Outcome: audit.Success, UserID: "u1", SessionID: "s1", ClientID: "c1", Backend: "b",
		Provider: "p", ConnectionID: "con1", Strategy: "upstreamInject", Peer: "gateway", TraceID: "0123456789abcdef0123456789abcdef",
	}
	other := audit.Record{Action: audit.LegFailed, Outcome: "X", UserID: "u2", SessionID: "s2", TraceID: "f"}
	must(t, f.InsertAudit(t.Context(), rec, other))
	for name, filter := range map[string]store.AuditFilter{
		"user": {UserID: "u1"}, "session": {SessionID: "s1"}, "trace": {TraceID: rec.TraceID}, "action": {Action: "credential.issued"},
		"all": {UserID: "u1", SessionID: "s1", TraceID: rec.TraceID, Action: "credential.issued"},
	} {
		filter.Limit = 10
		found, err := f.ListAudit(t.Context(), filter)
		must(t, err)
		if len(found) != 1 {
			t.Errorf("%s: %d records", name, len(found))
			continue
		}
		got := found[0]
		got.ID, got.Time = 0, time.Time{}
		if got != rec {
			t.Errorf("%s: %+v, want %+v", name, got, rec)
		}
	}
	all, err := f.ListAudit(t.Context(), store.AuditFilter{Limit: 1})
	must(t, err)
	next, err := f.ListAudit(t.Context(), store.AuditFilter{Limit: 10, Before: all[0].ID})
	if err != nil || len(next) != 1 || next[0].UserID == all[0].UserID {
		t.Errorf("second page = %+v, %v", next, err)
	}
}
