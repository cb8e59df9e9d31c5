package store_test

import (
	"slices"
	"testing"
	"time"

	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

func TestNobodyAttemptsAVersionThatIsGone(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	old := f.connection(f.login("alice", "alice-hub").ID, "hub")
	f.renew(old, "renewed")
	if _, ok := f.lease(old, "late", time.Minute); ok {
		t.Error("a token that is spent is presented again")
	}
	now := f.stored(old.ID)
	if _, ok := f.lease(now, "next", time.Minute); !ok {
		t.Error("the newest version cannot be renewed")
	}
}

func TestALateNoDoesNotEndTokensThatWereRenewedMeanwhile(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.login("alice", "alice-hub")
	old := f.connection(s.ID, "hub")
	f.renew(old, "renewed")
	changed, err := f.RequireReauthentication(t.Context(), refusal(old, true))
	if err != nil || changed {
		t.Errorf("changed = %v, %v", changed, err)
	}
	if now := f.stored(old.ID); now.Status != store.ConnectionActive {
		t.Errorf("status = %s", now.Status)
	}
	if a, err := f.ActiveSession(t.Context(), s.ID); err != nil || a.Locked {
		t.Errorf("locked = %v, %v", a.Locked, err)
	}
}

// The answer of an attempt that took too long must not undo the attempt that came
// after it: two at a time could spend the same refresh token.
func TestALateFailureLeavesTheNextAttemptAlone(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	c := f.connection(f.login("alice", "alice-hub").ID, "hub")
	fail := func(version int64, holder string) {
		t.Helper()
		must(t, f.FailRenewal(t.Context(), store.FailedRenewal{
			ConnectionID: c.ID, PresentedVersion: version, Lease: store.Lease{Holder: holder}, Backoff: time.Hour,
			Record: audit.Record{Action: audit.ConnectionRefreshFailed, Outcome: "x", ConnectionID: c.ID},
		}))
	}
	attempt := func() (holder string, failures int) {
		t.Helper()
		must(t, f.pool.QueryRow(t.Context(), `
			SELECT coalesce(lease_holder, ''), failures FROM tokenbroker.connections WHERE id = $1`, c.ID).Scan(&holder, &failures))
		return holder, failures
	}
	if _, ok := f.lease(c, "second", time.Minute); !ok {
		t.Fatal("no lease")
	}
	fail(c.Version, "first")
	if holder, failures := attempt(); holder != "second" || failures != 0 {
		t.Errorf("another attempt's failure: held by %q, %d failures", holder, failures)
	}
	f.renew(c, "renewed")
	if _, ok := f.lease(f.stored(c.ID), "second", time.Minute); !ok {
		t.Fatal("no lease of the new version")
	}
	fail(c.Version, "second")
	if holder, failures := attempt(); holder != "second" || failures != 0 {
		t.Errorf("the failure of a version that is gone: held by %q, %d failures", holder, failures)
	}
	fail(c.Version+1, "second")
	if holder, failures := attempt(); holder != "" || failures != 1 {
		t.Errorf("its own failure: held by %q, %d failures", holder, failures)
	}
}

func refusal(c *store.Connection, lock bool) store.Refusal {
	return store.Refusal{
		ConnectionID: c.ID, PresentedVersion: c.Version, LockUser: lock,
		Record: audit.Record{Action: audit.ConnectionRefreshFailed, Outcome: "x", ConnectionID: c.ID, UserID: c.UserID},
	}
}

// changedSessions returns the sessions, sorted, that watchers are told of after a position.
func (f *fixture) changedSessions(after int64) []string {
	f.t.Helper()
	events, _, err := f.EventsAfter(f.t.Context(), after, 1000)
	must(f.t, err)
	var ids []string
	for _, e := range events {
		if e.ChangedSessionID != "" {
			ids = append(ids, e.ChangedSessionID)
		}
	}
	slices.Sort(ids)
	return ids
}

// What a backend's static or minted credential is made of is no connection: only
// the session can tell that it is void.
func TestLockingAndUnlockingAPersonVoidsWhatTheirSessionsUse(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	first, second, ended := f.login("alice"), f.login("alice"), f.login("alice")
	f.login("bob")
	f.stage(f.begin(), "alice")
	_, err := f.EndSession(t.Context(), ended.ID, "OPERATOR", audit.Record{Action: audit.SessionEnded, Outcome: "OPERATOR"})
	must(t, err)
	want := []string{first.ID, second.ID}
	slices.Sort(want)

	position := f.head()
	changed, err := f.RequireReauthentication(t.Context(), refusal(f.connection(first.ID, "corp"), true))
	if err != nil || !changed {
		t.Fatalf("changed = %v, %v", changed, err)
	}
	if got := f.changedSessions(position); !slices.Equal(got, want) {
		t.Errorf("locked, told of %v; want %v", got, want)
	}
	position = f.head()
	third := f.login("alice")
	if got := f.changedSessions(position); !slices.Equal(got, want) {
		t.Errorf("unlocked, told of %v; want %v", got, want)
	}
	position = f.head()
	f.login("alice")
	if got := f.changedSessions(position); len(got) != 0 {
		t.Errorf("a login of somebody who was not locked voids %v", got)
	}
	// A connection that asks for a login by itself locks nobody.
	changed, err = f.RequireReauthentication(t.Context(), refusal(f.connection(third.ID, "corp"), false))
	if got := f.changedSessions(position); err != nil || !changed || len(got) != 0 {
		t.Errorf("told of %v; changed = %v, %v", got, changed, err)
	}
}
