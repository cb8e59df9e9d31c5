package store_test

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

func TestOfManyWritersOfABlobOneWins(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const key = "blob-key-0123456789"
	for expected := range int64(3) {
		var won atomic.Int32
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				version, err := f.PutBlob(t.Context(), key, fmt.Appendf(nil, "v%d-%d", expected, i), expected, time.Hour)
				switch {
				case err == nil && version == expected+1:
					won.Add(1)
				case fault.ReasonOf(err) != reason.VersionMismatch || fault.KindOf(err) != fault.Conflict:
					t.Errorf("version %d, %v", version, err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Fatalf("%d writers won version %d", won.Load(), expected+1)
		}
	}
}

func TestAnExpiredBlobIsGone(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const key = "blob-key-0123456789"
	_, err := f.PutBlob(t.Context(), key, []byte("x"), 0, time.Hour)
	must(t, err)
	b, err := f.Blob(t.Context(), key)
	if err != nil || !bytes.Equal(b.Sealed, []byte("x")) || b.Version != 1 {
		t.Fatalf("blob = %+v, %v", b, err)
	}
	f.exec(`UPDATE tokenbroker.mcp_blobs SET expires_at = now() - interval '1 second'`)
	if _, err := f.Blob(t.Context(), key); fault.KindOf(err) != fault.NotFound {
		t.Errorf("an expired blob can be read: %v", err)
	}
	_, err = f.PutBlob(t.Context(), key, []byte("y"), 1, time.Hour)
	wantReason(t, err, reason.VersionMismatch)
	version, err := f.PutBlob(t.Context(), key, []byte("z"), 0, time.Hour)
	if err != nil || version <= 1 {
		t.Errorf("made anew: version %d, %v; a writer that remembers version 1 must lose", version, err)
	}
	must(t, f.DeleteBlob(t.Context(), key))
	must(t, f.DeleteBlob(t.Context(), key))
}

func TestDisconnectingErasesTheTokensForEverySession(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	a, b := f.login("alice", "alice-hub"), f.login("alice", "alice-hub")
	c := f.connection(a.ID, "hub")
	rec := audit.Record{Action: audit.ConnectionDisconnected, Outcome: audit.Success, ConnectionID: c.ID}
	was, kept, err := f.Disconnect(t.Context(), c.ID, rec)
	must(t, err)
	if was == nil || was.Sealed.IsZero() || kept.UserID != a.UserID || kept.Provider != "hub" {
		t.Fatalf("was = %+v, record %+v", was, kept)
	}
	if again, _, err := f.Disconnect(t.Context(), c.ID, rec); err != nil || again != nil {
		t.Errorf("a second time: %+v, %v", again, err)
	}
	if _, _, err := f.Disconnect(t.Context(), "con_none", rec); fault.ReasonOf(err) != reason.ConnectionNotFound {
		t.Errorf("unknown connection: %v", err)
	}
	for _, s := range []store.Session{a, b} {
		if o, err := f.Open(t.Context(), s.ID, "hub"); err != nil || o.Connection != nil {
			t.Errorf("session %s still has %+v, %v", s.ID, o.Connection, err)
		}
	}
	now, err := f.Connection(t.Context(), c.ID)
	must(t, err)
	if !now.Sealed.IsZero() || now.Status != store.ConnectionDisconnected || now.Version <= c.Version {
		t.Errorf("after: %+v", now)
	}
	// Connecting again serves the new session alone.
	again := f.login("alice", "alice-hub")
	if f.connection(again.ID, "hub").ID != c.ID {
		t.Error("the account became a second connection")
	}
	if o, err := f.Open(t.Context(), a.ID, "hub"); err != nil || o.Connection != nil {
		t.Errorf("an old session has the new tokens: %+v, %v", o.Connection, err)
	}
}

func TestARevocationSparesGrantsThatAreInUse(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.login("alice", "alice-hub")
	check := func(user, subject string, want bool) {
		t.Helper()
		got, err := f.RealmInUse(t.Context(), user, store.Account{Realm: hubRealm, Subject: subject})
		if err != nil || got != want {
			t.Errorf("in use by %q as %q: %v, %v", user, subject, got, err)
		}
	}
	// A login that came to nothing gives way to whatever its user has: some
	// providers revoke what a client has of a person.
	check(s.UserID, "other", true)
	// An account that was disconnected does not: the person wants it gone, and their
	// second account is no reason to keep it.
	check("", "other", false)
	check("", "alice-hub", true)
	_, _, err := f.Disconnect(t.Context(), f.connection(s.ID, "hub").ID, audit.Record{Action: audit.ConnectionDisconnected, Outcome: audit.Success})
	must(t, err)
	check(s.UserID, "alice-hub", false)

	// A login that is under way counts, for its own account, until it is over.
	id := f.begin()
	f.stage(id, "alice", "alice-hub")
	check("", "alice-hub", true)
	check("", "other", false)
	f.exec(`UPDATE tokenbroker.sessions SET expires_at = now() - interval '1 second' WHERE id = $1`, id)
	check("", "alice-hub", false)
	f.exec(`UPDATE tokenbroker.sessions SET expires_at = now() + interval '1 minute' WHERE id = $1`, id)
	check("", "alice-hub", true)
	_, err = f.EndSession(t.Context(), id, "CHAIN_FAILED", audit.Record{Action: audit.SessionEnded, Outcome: "CHAIN_FAILED"})
	must(t, err)
	check("", "alice-hub", false)
}

func TestTheSweepEndsWhatTimeHasRunOutFor(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	alive := f.login("alice", "alice-hub")
	touched := f.login("alice")
	pending := f.begin()
	f.stage(pending, "bob")
	f.exec(`UPDATE tokenbroker.sessions SET expires_at = now() - interval '1 second' WHERE id = ANY($1)`, []string{touched.ID, pending})
	ended, err := f.ExpireSessions(t.Context(), 10, audit.Record{Action: audit.SessionEnded, Outcome: "EXPIRED"})
	must(t, err)
	if len(ended) != 2 {
		t.Fatalf("ended %d sessions", len(ended))
	}
	staged := len(ended[0].Staged) + len(ended[1].Staged)
	if staged != 1 {
		t.Errorf("%d staged legs came back for revocation", staged)
	}
	var reason string
	must(t, f.pool.QueryRow(t.Context(), `SELECT string_agg(DISTINCT end_reason, ',') FROM tokenbroker.sessions WHERE state = 'ended'`).Scan(&reason))
	if reason != "EXPIRED" {
		t.Errorf("their end reason is %q, and not SessionEndReason's", reason)
	}
	f.connection(alive.ID, "hub")
	events, _, err := f.EventsAfter(t.Context(), 0, 100)
	must(t, err)
	var told []string
	for _, e := range events {
		if e.SessionID != "" {
			told = append(told, e.SessionID)
		}
	}
	if len(told) != 1 || told[0] != touched.ID {
		t.Errorf("watchers were told of %v", told)
	}
}

func TestAConnectionOutlivesItsLastSessionByTheRetentionOnly(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.login("alice", "alice-hub")
	hub := f.connection(s.ID, "hub")
	erase := func() int {
		t.Helper()
		must(t, f.MarkUnlinked(t.Context()))
		erased, err := f.EraseUnlinked(t.Context(), time.Hour, 10)
		must(t, err)
		for _, c := range erased {
			if c.Sealed.IsZero() {
				t.Error("nothing left to revoke")
			}
		}
		return len(erased)
	}
	if n := erase(); n != 0 {
		t.Fatalf("erased %d linked connections", n)
	}
	_, err := f.EndSession(t.Context(), s.ID, "SIGNED_OUT", audit.Record{Action: audit.SessionEnded, Outcome: "SIGNED_OUT"})
	must(t, err)
	if n := erase(); n != 0 {
		t.Fatalf("erased %d connections within the retention", n)
	}
	f.login("alice", "alice-hub") // linked again: the time starts anew
	f.exec(`UPDATE tokenbroker.connections SET unlinked_at = now() - interval '2 hours' WHERE id = $1`, hub.ID)
	if n := erase(); n != 0 {
		t.Fatalf("erased %d connections that are linked again", n)
	}
	f.exec(`DELETE FROM tokenbroker.session_links`)
	must(t, f.MarkUnlinked(t.Context()))
	f.exec(`UPDATE tokenbroker.connections SET unlinked_at = now() - interval '2 hours'`)
	if n := erase(); n != 2 {
		t.Errorf("erased %d connections, want both", n)
	}
}

func TestStagedLegsOfAnAbandonedReconnectionGo(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.login("alice")
	_, err := f.StageLeg(t.Context(), leg(s.ID, "hub", hubRealm, "alice-hub"))
	must(t, err)
	if n, err := f.DropStagedLegs(t.Context(), time.Minute, 10); err != nil || n != 0 {
		t.Fatalf("dropped %d, %v", n, err)
	}
	f.exec(`UPDATE tokenbroker.staged_legs SET created_at = now() - interval '1 hour'`)
	if plan, err := f.PlanActivation(t.Context(), s.ID, time.Minute); err != nil || len(plan.Legs) != 0 {
		t.Errorf("an old leg is planned: %v, %v", plan.Legs, err)
	}
	n, err := f.DropStagedLegs(t.Context(), time.Minute, 10)
	must(t, err)
	queued, err := f.ClaimRevocations(t.Context(), 10, time.Minute)
	must(t, err)
	if n != 1 || len(queued) != 1 || queued[0].UserID != s.UserID || queued[0].Account.Subject != "alice-hub" || !queued[0].Staged || queued[0].Sealed.IsZero() {
		t.Errorf("dropped %d, queued %+v", n, queued)
	}
}

func TestOldRowsArePurgedAndYoungOnesStay(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.login("alice")
	f.stage(f.begin(), "nobody")
	_, err := f.EndSession(t.Context(), s.ID, "OPERATOR", audit.Record{Action: audit.SessionEnded, Outcome: "OPERATOR"})
	must(t, err)
	retention := store.Retention{Sessions: time.Hour, Events: time.Hour, Records: time.Minute, Users: time.Hour}
	if n, err := f.Purge(t.Context(), retention, 100); err != nil || n != 0 {
		t.Fatalf("purged %d young rows, %v", n, err)
	}
	f.exec(`UPDATE tokenbroker.sessions SET ended_at = now() - interval '2 hours' WHERE state = 'ended'`)
	f.exec(`UPDATE tokenbroker.sessions SET state = 'ended', ended_at = now(), end_reason = 'x' WHERE state = 'pending'`)
	f.exec(`UPDATE tokenbroker.events SET created_at = now() - interval '2 hours'`)
	f.exec(`UPDATE tokenbroker.users SET created_at = now() - interval '2 hours'`)
	n, err := f.Purge(t.Context(), retention, 100)
	must(t, err)
	if n != 3 { // the session, its event, and the user who never arrived
		t.Errorf("purged %d rows", n)
	}
	users, err := f.ListUsers(t.Context(), store.Cursor{}, 10)
	if err != nil || len(users) != 1 || users[0].Name != "alice-name" {
		t.Errorf("users = %+v, %v", users, err)
	}
}

func TestEveryKeyInUseIsFound(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.login("alice", "alice-hub")
	f.exec(`UPDATE tokenbroker.connections SET key_id = 'key-2' WHERE provider = 'hub'`)
	id := f.begin()
	f.stage(id, "bob")
	f.exec(`UPDATE tokenbroker.staged_legs SET key_id = 'key-3'`)
	uses, err := f.KeysInUse(t.Context())
	must(t, err)
	hub, staged := store.ConnectionPlace(f.connection(s.ID, "hub").ID, 0), uses[2].Sample.Place
	if len(uses) != 3 || uses[0].KeyID != "key-1" || uses[1].Sample.Place != hub || staged.Table != "staged_legs" || staged.Row == "" {
		t.Errorf("uses = %+v", uses)
	}
}

func TestPagesOfUsersAreWholeWhenPeopleArriveTogether(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for i := range 5 {
		f.login(fmt.Sprintf("user-%d", i))
	}
	f.exec(`UPDATE tokenbroker.users SET created_at = '2026-01-01'`)
	seen := map[string]bool{}
	var after store.Cursor
	for {
		page, err := f.ListUsers(t.Context(), after, 2)
		must(t, err)
		if len(page) == 0 {
			break
		}
		for _, u := range page {
			seen[u.ID] = true
		}
		last := page[len(page)-1]
		after = store.Cursor{CreatedAt: last.CreatedAt, ID: last.ID}
	}
	if len(seen) != 5 {
		t.Errorf("%d of 5 people were listed", len(seen))
	}
}

func TestIllegalRowsAreRefusedByTheDatabase(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.login("alice")
	for _, sql := range []string{
		`UPDATE tokenbroker.sessions SET user_id = NULL`,
		`UPDATE tokenbroker.sessions SET state = 'pending'`,
		`UPDATE tokenbroker.sessions SET state = 'ended'`,
		`UPDATE tokenbroker.sessions SET expires_at = ends_at + interval '1 second'`,
		`UPDATE tokenbroker.connections SET sealed_tokens = NULL`,
		`UPDATE tokenbroker.connections SET status = 'disconnected'`,
		`UPDATE tokenbroker.connections SET lease_holder = 'x'`,
		`UPDATE tokenbroker.session_links SET skip_reason = 'x'`,
		`INSERT INTO tokenbroker.event_head (only_row, position) VALUES (false, 1)`,
		`INSERT INTO tokenbroker.events (position, kind) VALUES (99, 'session_ended')`,
		`INSERT INTO tokenbroker.events (position, kind, session_id) VALUES (99, 'session_changed', 's')`,
		`INSERT INTO tokenbroker.events (position, kind, session_id, changed_session_id) VALUES (99, 'session_ended', 's', 's')`,
	} {
		if _, err := f.pool.Exec(t.Context(), sql); err == nil {
			t.Errorf("allowed: %s", sql)
		}
	}
	f.connection(s.ID, "corp")
}
