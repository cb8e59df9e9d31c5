package store_test

import (
	"context"
	"crypto/rand"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/pgtest"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/authserver/internal/store"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// fixture is a store with a client, and the pool for looking behind it.
type fixture struct {
	*store.Store
	t    *testing.T
	pool *pgxpool.Pool
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	pool := pgtest.New(t, store.Migrations())
	f := &fixture{Store: store.New(pool), t: t, pool: pool}
	f.client("client-1")
	return f
}

func (f *fixture) client(id string) {
	f.t.Helper()
	f.must(f.CreateClient(f.t.Context(), &store.Client{
		ID: id, Name: "Example", AuthMethod: "none",
		RedirectURIs: []string{"https://client.example/cb"}, GrantTypes: []string{"authorization_code", "refresh_token"},
		Scopes: []string{"tools"},
	}))
}

func (f *fixture) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(fault.Detail(err))
	}
}

func (f *fixture) exec(sql string, args ...any) {
	f.t.Helper()
	_, err := f.pool.Exec(f.t.Context(), sql, args...)
	f.must(err)
}

func (f *fixture) count(sql string, args ...any) (n int) {
	f.t.Helper()
	f.must(f.pool.QueryRow(f.t.Context(), sql, args...).Scan(&n))
	return n
}

func (f *fixture) wantKind(err error, want fault.Kind) {
	f.t.Helper()
	if err == nil || fault.KindOf(err) != want {
		f.t.Fatalf("error %v, want kind %v", err, want)
	}
}

var browser = store.Digest("cookie")

func (f *fixture) request(id string) *store.AuthorizationRequest {
	f.t.Helper()
	r := &store.AuthorizationRequest{
		ID: id, ClientID: "client-1", BrowserHash: browser,
		Params: store.Params{
			RedirectURI: "https://client.example/cb", RedirectURISent: true, State: "xyz",
			Scopes: []string{"tools"}, Resources: []string{"https://gw.example/mcp"}, CodeChallenge: "challenge",
		},
		Progress: store.Progress{Providers: []store.Provider{{
			Name: "corp", OIDC: true, Primary: true, Scopes: []string{"openid"}, Parameters: map[string]string{"a": "b"}, State: store.LinkMissing,
		}}},
	}
	f.must(f.CreateRequest(f.t.Context(), r, 10*time.Minute))
	return r
}

// approved returns a request in PhaseLegs with session "session-"+id.
func (f *fixture) approved(id string) *store.AuthorizationRequest {
	f.t.Helper()
	f.request(id)
	r, err := f.ApproveRequest(f.t.Context(), id, browser, "session-"+id)
	f.must(err)
	return r
}

// code stores a pending grant with a code that lives for a minute.
func (f *fixture) code(id string) store.Grant {
	f.t.Helper()
	g := store.Grant{
		ID: id, SessionID: "session-" + id, UserID: "user-1", ClientID: "client-1", Status: store.GrantPending,
		Scopes: []string{"tools"}, Resources: []string{"https://gw.example/mcp"},
	}
	f.must(f.CreateCode(f.t.Context(), "code-"+id, g, store.Code{
		RedirectURI: "https://client.example/cb", CodeChallenge: "challenge", RequestedAt: time.Now(),
	}, time.Minute))
	return g
}

// active stores an active grant with refresh token "rt-"+id.
func (f *fixture) active(id string) store.Grant {
	f.t.Helper()
	g := f.code(id)
	f.must(f.ConsumeCode(f.t.Context(), "code-"+id))
	f.must(f.ActivateGrant(f.t.Context(), id, time.Now().Add(24*time.Hour), time.Now().Add(time.Hour)))
	f.must(f.CreateRefreshToken(f.t.Context(), "rt-"+id, id, time.Now().Add(2*time.Hour)))
	return g
}

func rotation(from, to string) store.Rotation {
	return store.Rotation{
		Old: from, New: to, ExpiresAt: time.Now().Add(time.Hour), TokensUntil: time.Now().Add(time.Hour), SealedAnswer: []byte("sealed"),
		Burst: 10, Every: time.Minute,
	}
}

// race runs fn in many goroutines at once and returns how many succeeded; every
// failure must be of the kind.
func race(t *testing.T, kind fault.Kind, fn func(ctx context.Context, i int) error) int {
	t.Helper()
	const runners = 12
	var wins atomic.Int32
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range runners {
		wg.Go(func() {
			<-start
			err := fn(t.Context(), i)
			switch {
			case err == nil:
				wins.Add(1)
			case fault.KindOf(err) != kind:
				t.Errorf("runner %d: %s", i, fault.Detail(err))
			}
		})
	}
	close(start)
	wg.Wait()
	return int(wins.Load())
}

func TestOfManyAtOnceExactlyOneGetsThrough(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	tests := map[string]struct {
		kind    fault.Kind
		prepare func()
		try     func(ctx context.Context, i int) error
	}{
		"approve a request": {fault.NotFound, func() { f.request("a") }, func(ctx context.Context, _ int) error {
			_, err := f.ApproveRequest(ctx, "a", browser, rand.Text())
			return err
		}},
		"take a request": {fault.NotFound, func() { f.request("b") }, func(ctx context.Context, _ int) error {
			_, err := f.TakeRequest(ctx, "b", browser)
			return err
		}},
		"take a leg": {fault.NotFound, func() {
			f.approved("c")
			f.must(f.StartLeg(t.Context(), "state-c", store.Leg{RequestID: "c", Provider: "corp", Sealed: []byte("x")}))
		}, func(ctx context.Context, _ int) error {
			_, _, err := f.TakeLeg(ctx, "state-c", []string{"corp"}, browser, time.Minute)
			return err
		}},
		"redeem a code": {fault.Conflict, func() { f.code("d") }, func(ctx context.Context, _ int) error {
			return f.InTx(ctx, func(ctx context.Context) error {
				if err := f.ConsumeCode(ctx, "code-d"); err != nil {
					return err
				}
				return f.ActivateGrant(ctx, "d", time.Now().Add(time.Hour), time.Now().Add(time.Hour))
			})
		}},
		"rotate a refresh token": {fault.Conflict, func() { f.active("e") }, func(ctx context.Context, _ int) error {
			return f.RotateRefreshToken(ctx, "e", rotation("rt-e", rand.Text()))
		}},
		"end a session": {fault.Conflict, func() { f.active("f") }, func(ctx context.Context, _ int) error {
			ended, err := f.EndSession(ctx, "session-f", brokerv1.SessionEndReason_SESSION_END_REASON_OPERATOR)
			if err == nil && !ended {
				err = fault.New(fault.Conflict, "")
			}
			return err
		}},
	}
	for name, tt := range tests {
		tt.prepare()
		if wins := race(t, tt.kind, tt.try); wins != 1 {
			t.Errorf("%s: %d got through, want 1", name, wins)
		}
	}
	if n := f.count(`SELECT count(*) FROM authserver.refresh_tokens WHERE grant_id = 'e' AND used_at IS NULL`); n != 1 {
		t.Errorf("%d living refresh tokens after the race, want 1", n)
	}
}

func TestWhatPostgresCannotStoreIsSimplyNotFound(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, id := range []string{"a\x00b", "\xff"} {
		_, err := f.Client(t.Context(), id)
		f.wantKind(err, fault.NotFound)
		_, err = f.Request(t.Context(), id, browser)
		f.wantKind(err, fault.NotFound)
		if _, alive, err := f.GrantAlive(t.Context(), id, id); err != nil || alive {
			t.Errorf("%q: %v, %v", id, alive, err)
		}
	}
}

func TestADatabaseThatIsDownIsNotTheClientsFault(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.pool.Close()
	_, err := f.Client(t.Context(), "client-1")
	if kind := fault.KindOf(err); kind == fault.NotFound {
		t.Errorf("kind %v: a client would register again", kind)
	}
}
