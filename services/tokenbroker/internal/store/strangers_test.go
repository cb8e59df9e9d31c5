package store_test

import (
	"testing"
	"time"

	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

// Anybody may begin logins without end; what is left of them must not grow with time.
func TestLoginsOfStrangersLeaveNothingForLong(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	ended := audit.Record{Action: audit.SessionEnded, Outcome: "CHAIN_FAILED"}
	failed := audit.Record{Action: audit.LegFailed, Provider: "corp"}
	count := func(sql string) (n int) {
		t.Helper()
		must(t, f.pool.QueryRow(t.Context(), `SELECT count(*) FROM tokenbroker.`+sql).Scan(&n))
		return n
	}

	abandoned := failed
	abandoned.Outcome = audit.Abandoned
	end, err := f.EndSession(t.Context(), f.begin(), "CHAIN_FAILED", ended, abandoned)
	must(t, err)
	if !end.Changed || len(end.Failed) != 1 || end.Failed[0].SessionID == "" {
		t.Errorf("the log is not told: %+v", end)
	}
	f.begin()
	f.exec(`UPDATE tokenbroker.sessions SET expires_at = now() - interval '1 second' WHERE state = 'pending'`)
	expired, err := f.ExpireSessions(t.Context(), 10, audit.Record{Action: audit.SessionEnded, Outcome: "EXPIRED"})
	if err != nil || len(expired) != 1 || expired[0].Record.Outcome != "EXPIRED" {
		t.Errorf("the log is not told: %+v, %v", expired, err)
	}
	if n := count(`audit`); n != 0 {
		t.Errorf("%d records of logins that nobody came back from", n)
	}

	// Who brings a refused code is on record for a day, as every leg that was answered.
	refused := failed
	refused.Outcome = "UPSTREAM_REFUSED"
	_, err = f.EndSession(t.Context(), f.begin(), "CHAIN_FAILED", ended, refused)
	must(t, err)
	known := f.begin()
	f.stage(known, "alice")
	_, err = f.EndSession(t.Context(), known, "CHAIN_FAILED", ended, abandoned)
	must(t, err)
	if n := count(`audit WHERE action = 'leg.failed'`); n != 2 {
		t.Errorf("%d records of failed legs, want that of a refused code and that of a person", n)
	}
	retention := store.Retention{Sessions: 168 * time.Hour, Events: time.Hour, Records: 2160 * time.Hour, Users: time.Hour}
	if n, err := f.Purge(t.Context(), retention, 100); err != nil || n != 0 {
		t.Errorf("purged %d young rows, %v", n, err)
	}
	f.exec(`UPDATE tokenbroker.sessions SET ended_at = now() - interval '26 hours' WHERE state = 'ended'`)
	f.exec(`ALTER TABLE tokenbroker.audit DISABLE TRIGGER audit_rows`)
	f.exec(`UPDATE tokenbroker.audit SET created_at = now() - interval '26 hours'`)
	f.exec(`ALTER TABLE tokenbroker.audit ENABLE TRIGGER audit_rows`)
	_, err = f.Purge(t.Context(), retention, 100)
	must(t, err)
	if n := count(`sessions`); n != 1 {
		t.Errorf("%d sessions are left, want that of the person", n)
	}
	if n, of := count(`audit`), count(`audit WHERE user_id <> ''`); n != of || of != 3 {
		t.Errorf("%d records are left, %d of them of the person", n, of)
	}
}
