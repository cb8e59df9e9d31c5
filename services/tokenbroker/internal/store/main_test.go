package store_test

import (
	"context"
	"testing"
	"time"

	"chatelaine.dev/internal/pgtest"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/schema"
	"chatelaine.dev/services/tokenbroker/internal/seal"
	"chatelaine.dev/services/tokenbroker/internal/store"

	"github.com/jackc/pgx/v5/pgxpool"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// fixture is a store with the steps that most tests begin with.
type fixture struct {
	*store.Store
	t    *testing.T
	pool *pgxpool.Pool
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	pool := pgtest.New(t, schema.Migrations())
	return &fixture{store.New(pool), t, pool}
}

const (
	corpRealm = "https://corp.example"
	hubRealm  = "https://hub.example/token"
	clientID  = "client-1"
)

// sealedFor is a stand-in for sealed tokens: the store never opens them.
func sealedFor(text string) seal.Sealed {
	return seal.Sealed{KeyID: "key-1", WrappedKey: []byte("wrapped"), Ciphertext: []byte(text)}
}

func (f *fixture) begin() string {
	f.t.Helper()
	id, _, err := f.BeginSession(f.t.Context(), clientID, "Agent", 10*time.Minute)
	must(f.t, err)
	return id
}

func leg(session, provider, realm, subject string) store.NewLeg {
	return store.NewLeg{
		StagedLeg: store.StagedLeg{
			ID: store.NewLegID(), SessionID: session, Provider: provider,
			Account: store.Account{Realm: realm, Subject: subject, Name: subject + "-name"},
			Grant: store.Grant{
				Scopes: []string{"read"}, Refreshable: true, Sealed: sealedFor(provider + subject),
			},
		},
		Validity:   store.Validity{EndsAt: time.Now().Add(time.Hour), RenewAt: time.Now().Add(59 * time.Minute)},
		Configured: []string{"corp", "hub"},
		Record:     audit.Record{Action: audit.LegRedeemed, Outcome: audit.Success, SessionID: session, Provider: provider},
	}
}

func primaryLeg(session, subject string) store.NewLeg {
	l := leg(session, "corp", corpRealm, subject)
	l.Primary = &store.PrimaryIdentity{Realm: corpRealm, SubjectField: "sub", Subject: subject}
	return l
}

// stage stages the primary leg of subject and, for each hub account, one of the hub.
func (f *fixture) stage(session, subject string, hubAccounts ...string) string {
	f.t.Helper()
	staged, err := f.StageLeg(f.t.Context(), primaryLeg(session, subject))
	must(f.t, err)
	for _, a := range hubAccounts {
		_, err := f.StageLeg(f.t.Context(), leg(session, "hub", hubRealm, a))
		must(f.t, err)
	}
	return staged.Session.UserID
}

// activation turns a plan into what Activate takes, as package login does.
func activation(p store.Plan) store.Activation {
	a := store.Activation{
		SessionID: p.Session.ID, UserID: p.Session.UserID, Lifetime: 720 * time.Hour, Idle: 24 * time.Hour,
		Record: audit.Record{Action: audit.SessionActivated, Outcome: audit.Success, SessionID: p.Session.ID, UserID: p.Session.UserID},
	}
	for _, l := range p.Legs {
		promotion := store.Promotion{
			LegID: l.ID, ConnectionID: store.NewConnectionID(), Provider: l.Provider, Account: l.Account, Grant: l.Grant,
		}
		if l.Existing != nil {
			promotion.ConnectionID, promotion.FromVersion = l.Existing.ID, l.Existing.Version
		}
		if l.Provider == "corp" {
			a.LoginLeg, a.LoginName = l.ID, l.Name
		}
		a.Promotions = append(a.Promotions, promotion)
	}
	return a
}

func (f *fixture) activate(ctx context.Context, session string) (store.Session, error) {
	plan, err := f.PlanActivation(ctx, session, 10*time.Minute)
	if err != nil {
		return store.Session{}, err
	}
	return f.Activate(ctx, activation(plan))
}

// login completes a chain and returns the session.
func (f *fixture) login(subject string, hubAccounts ...string) store.Session {
	f.t.Helper()
	id := f.begin()
	f.stage(id, subject, hubAccounts...)
	session, err := f.activate(f.t.Context(), id)
	must(f.t, err)
	return session
}

// connection returns what a session has at a provider.
func (f *fixture) connection(session, provider string) *store.Connection {
	f.t.Helper()
	o, err := f.Open(f.t.Context(), session, provider)
	must(f.t, err)
	if o.Connection == nil {
		f.t.Fatalf("session has no connection to %s", provider)
	}
	return o.Connection
}

// head is the position of the newest event.
func (f *fixture) head() int64 {
	f.t.Helper()
	head, err := store.Head(f.t.Context(), f.pool)
	must(f.t, err)
	return head
}

func (f *fixture) exec(sql string, args ...any) {
	f.t.Helper()
	_, err := f.pool.Exec(f.t.Context(), sql, args...)
	must(f.t, err)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(detail(err))
	}
}
