package store_test

import (
	"testing"
	"time"

	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

// renew commits tokens for a version, as a renewal does.
func (f *fixture) renew(c *store.Connection, text string) bool {
	f.t.Helper()
	committed, err := f.CommitRenewal(f.t.Context(), store.Renewal{
		ConnectionID: c.ID, PresentedVersion: c.Version,
		Grant:  store.Grant{Scopes: c.Scopes, Refreshable: true, Sealed: sealedFor(text)},
		Record: audit.Record{Action: audit.ConnectionRefreshed, Outcome: audit.Success, ConnectionID: c.ID},
	})
	must(f.t, err)
	return committed
}

// lease begins an attempt at a version; the lease lasts as long as it says.
func (f *fixture) lease(c *store.Connection, holder string, lasts time.Duration) (store.Lease, bool) {
	f.t.Helper()
	lease, ok, err := f.AcquireLease(f.t.Context(), store.LeaseRequest{
		ConnectionID: c.ID, Version: c.Version, Holder: holder, Duration: lasts, MaxDoubtful: 1,
	})
	must(f.t, err)
	return lease, ok
}

// planned is what the activation of a session is prepared with now.
func (f *fixture) planned(session string) store.Activation {
	f.t.Helper()
	plan, err := f.PlanActivation(f.t.Context(), session, time.Minute)
	must(f.t, err)
	return activation(plan)
}

func TestALoginDoesNotOverwriteTokensThatWereRenewedAfterItWasPlanned(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	before := f.connection(f.login("alice", "alice-hub").ID, "hub")
	id := f.begin()
	f.stage(id, "alice", "alice-hub")
	a := f.planned(id)
	if !f.renew(before, "renewed") {
		t.Fatal("the renewal was not committed")
	}
	if _, err := f.Activate(t.Context(), a); !store.IsStale(err) {
		t.Fatalf("err = %v, want stale", err)
	}
	if got := string(f.stored(before.ID).Sealed.Ciphertext); got != "renewed" {
		t.Errorf("stored tokens are %q", got)
	}
	if s, err := f.activate(t.Context(), id); err != nil || s.State != store.SessionActive {
		t.Errorf("planned again: %+v, %v", s, err)
	}
}

func (f *fixture) stored(connection string) *store.Connection {
	f.t.Helper()
	c, err := f.Connection(f.t.Context(), connection)
	must(f.t, err)
	return c
}

func TestAnActivationPlannedForOneUserDoesNothingForAnother(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	bob := f.login("bob").UserID
	id := f.begin()
	alice := f.stage(id, "alice", "alice-hub")
	a := f.planned(id)
	a.UserID = bob
	if _, err := f.Activate(t.Context(), a); !store.IsStale(err) {
		t.Fatalf("err = %v, want stale", err)
	}
	s, err := f.LoadSession(t.Context(), id)
	if err != nil || s.State != store.SessionPending || s.UserID != alice {
		t.Errorf("session = %+v, %v", s, err)
	}
}

func TestASessionPromotesNoLegOfAnother(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	theirs, ours := f.begin(), f.begin()
	f.stage(theirs, "alice", "alice-hub")
	f.stage(ours, "mallory")
	a, stolen := f.planned(ours), f.planned(theirs)
	for _, p := range stolen.Promotions {
		if p.Provider == "hub" {
			a.Promotions = append(a.Promotions, p)
		}
	}
	if _, err := f.Activate(t.Context(), a); !store.IsStale(err) {
		t.Fatalf("err = %v, want stale", err)
	}
	if _, err := f.activate(t.Context(), theirs); err != nil {
		t.Fatal(detail(err))
	}
	if got := f.connection(theirs, "hub").Subject; got != "alice-hub" {
		t.Errorf("their account = %q", got)
	}
}

// keeping is an activation of a session whose hub leg brought no refresh token, as
// package login prepares it.
func (f *fixture) keeping(session string) store.Activation {
	f.t.Helper()
	a := f.planned(session)
	for i := range a.Promotions {
		a.Promotions[i].KeepsRefreshToken = a.Promotions[i].Provider == "hub"
	}
	return a
}

func TestALoginKeepsNoRefreshTokenThatIsBeingSpent(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	c := f.connection(f.login("alice", "alice-hub").ID, "hub")
	id := f.begin()
	f.stage(id, "alice", "alice-hub")
	a := f.keeping(id)
	if _, ok := f.lease(c, "renewal", time.Minute); !ok {
		t.Fatal("no lease")
	}
	if _, err := f.Activate(t.Context(), a); !store.IsStale(err) {
		t.Fatalf("err = %v, want stale: the refresh token is spent when the renewal is done", err)
	}
	if !f.renew(c, "renewed") {
		t.Fatal("the renewal lost its only valid token")
	}
	if _, err := f.Activate(t.Context(), f.keeping(id)); err != nil {
		t.Fatal(detail(err))
	}
	// A login that brought a refresh token of its own waits for nobody.
	c = f.stored(c.ID)
	if _, ok := f.lease(c, "another", time.Minute); !ok {
		t.Fatal("no lease")
	}
	id = f.begin()
	f.stage(id, "alice", "alice-hub")
	if _, err := f.Activate(t.Context(), f.planned(id)); err != nil {
		t.Fatal(detail(err))
	}
	if now := f.stored(c.ID); now.Clock.LeaseRemaining != 0 {
		t.Error("the lease of an attempt at tokens that are gone is left")
	}
}

// Whoever presents the token next must know that it may be spent: a no is then no
// reason to lock the person.
func TestDoubtAboutARefreshTokenStaysWithIt(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(f *fixture, c *store.Connection){
		"a crash": func(f *fixture, c *store.Connection) {
			f.lease(c, "dead", time.Millisecond)
			f.exec(`UPDATE tokenbroker.connections SET lease_until = now() - interval '1 second' WHERE id = $1`, c.ID)
		},
		"a no that may be wrong": func(f *fixture, c *store.Connection) {
			f.lease(c, "told", time.Minute)
			must(f.t, f.FailRenewal(f.t.Context(), store.FailedRenewal{
				ConnectionID: c.ID, PresentedVersion: c.Version, Lease: store.Lease{Holder: "told"}, Result: store.Denied,
				Record: audit.Record{Action: audit.ConnectionRefreshFailed, Outcome: "x"},
			}))
		},
		"a lost answer": func(f *fixture, c *store.Connection) {
			f.lease(c, "deaf", time.Minute)
			must(f.t, f.FailRenewal(f.t.Context(), store.FailedRenewal{
				ConnectionID: c.ID, PresentedVersion: c.Version, Lease: store.Lease{Holder: "deaf"}, Backoff: time.Hour, Result: store.NoAnswer,
				Record: audit.Record{Action: audit.ConnectionRefreshFailed, Outcome: "x"},
			}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, kept := range []bool{true, false} {
				f := newFixture(t)
				c := f.connection(f.login("alice", "alice-hub").ID, "hub")
				leave(f, c)
				id := f.begin()
				f.stage(id, "alice", "alice-hub")
				a := f.planned(id)
				if kept {
					a = f.keeping(id)
				}
				_, err := f.Activate(t.Context(), a)
				must(t, err)
				lease, ok := f.lease(f.stored(c.ID), "next", time.Minute)
				if !ok || lease.Doubtful != kept {
					t.Errorf("token kept: %v, next attempt: %v, doubtful: %v", kept, ok, lease.Doubtful)
				}
			}
		})
	}
}

func TestReconnectingVoidsWhatCachesHoldOfTheSession(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	s := f.login("alice")
	position := f.head()
	connect := func(account string) []store.Event {
		t.Helper()
		_, err := f.StageLeg(t.Context(), leg(s.ID, "hub", hubRealm, account))
		must(t, err)
		_, err = f.activate(t.Context(), s.ID)
		must(t, err)
		events, head, err := f.EventsAfter(t.Context(), position, 100)
		must(t, err)
		position = head
		return events
	}
	if e := connect("work"); len(e) != 1 || e[0].ChangedSessionID != s.ID {
		t.Errorf("a first connection: %+v", e)
	}
	work := f.connection(s.ID, "hub").ID
	if e := connect("work"); len(e) != 1 || e[0].ConnectionID != work {
		t.Errorf("the same account again: %+v", e)
	}
	e := connect("private")
	if got := f.connection(s.ID, "hub").Subject; got != "private" {
		t.Fatalf("the session acts as %q", got)
	}
	if len(e) != 2 || e[0].ConnectionID != work || e[1].ChangedSessionID != s.ID {
		t.Errorf("another account: %+v", e)
	}
}

func TestASessionNeverOpensAnotherPersonsConnection(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	alice, bob := f.login("alice", "alice-hub"), f.login("bob", "bob-hub")
	f.exec(`UPDATE tokenbroker.session_links SET connection_id = $1 WHERE session_id = $2 AND provider = 'hub'`,
		f.connection(bob.ID, "hub").ID, alice.ID)
	o, err := f.Open(t.Context(), alice.ID, "hub")
	if err != nil || o.Connection != nil {
		t.Errorf("alice's session opened %+v, %v", o.Connection, err)
	}
}
