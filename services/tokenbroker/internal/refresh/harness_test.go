package refresh_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/pgtest"
	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/refresh"
	"chatelaine.dev/services/tokenbroker/internal/schema"
	"chatelaine.dev/services/tokenbroker/internal/seal"
	"chatelaine.dev/services/tokenbroker/internal/store"
	"chatelaine.dev/services/tokenbroker/internal/upstream"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const realm = "https://corp.example"

// provider plays an upstream that rotates refresh tokens and detects reuse.
type provider struct {
	primary bool
	inDoubt string

	mu      sync.Mutex
	current string // the one refresh token that is good
	calls   int
	// before, when set, runs first, outside of mu: block, fail, or spend the token
	// and then fail.
	before func(ctx context.Context, p *provider, presented string) error
	// change edits the grant.
	change func(*upstream.Grant)
}

func (p *provider) Primary() bool          { return p.primary }
func (p *provider) RefreshInDoubt() string { return p.inDoubt }

func (p *provider) Refresh(ctx context.Context, r upstream.RefreshRequest) (upstream.Grant, error) {
	p.mu.Lock()
	p.calls++
	n, before := p.calls, p.before
	p.mu.Unlock()
	if before != nil {
		if err := before(ctx, p, r.RefreshToken.Reveal()); err != nil {
			return upstream.Grant{}, err
		}
	}
	if err := ctx.Err(); err != nil {
		return upstream.Grant{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.RefreshToken.Reveal() != p.current {
		return upstream.Grant{}, refused("invalid_grant")
	}
	p.current = fmt.Sprintf("rt-%d", n+1)
	g := upstream.Grant{
		Realm: realm, AccessToken: secret.New(fmt.Sprintf("at-%d", n+1)), RefreshToken: secret.New(p.current),
		Scopes: r.Scopes, ExpiresAt: time.Now().Add(time.Hour), HasExpiry: true,
	}
	if p.change != nil {
		p.change(&g)
	}
	return g, nil
}

func (p *provider) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls
}

// spend makes the provider believe that the token was used, as a request whose
// answer got lost does.
func (p *provider) spend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.current = "rt-lost"
}

func (p *provider) set(before func(context.Context, *provider, string) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.before = before
}

func refused(code string) error {
	return fault.New(fault.Precondition, "no").WithReason(reason.UpstreamRefused, reason.OAuthError, code)
}

func unreachable(sent string) error {
	return fault.New(fault.Unavailable, "down").WithReason(reason.UpstreamUnavailable, upstream.MetadataSent, sent)
}

// denied is an answer by which the provider has done nothing.
func denied() error {
	return fault.New(fault.Unavailable, "503").WithReason(reason.UpstreamUnavailable,
		upstream.MetadataSent, "true", upstream.MetadataDenied, "true")
}

// fixture is a person with one session and one connection, and as many replicas as
// a test wants.
type fixture struct {
	t        *testing.T
	url      secret.String
	pool     *pgxpool.Pool
	store    *store.Store
	sealer   *seal.Sealer
	upstream *provider
	session  store.Session
	// connection at the start.
	connection *store.Connection
	// granted is what the next login brings, beside an access token.
	granted seal.Tokens
}

// newFixture logs alice in; her token ends after ttl, zero means never.
func newFixture(t *testing.T, ttl time.Duration) *fixture {
	t.Helper()
	return newFixtureAt(t, pgtest.URL(t, schema.Migrations()), ttl)
}

// newFixtureAt is newFixture on a database that has the schema.
func newFixtureAt(t *testing.T, url secret.String, ttl time.Duration) *fixture {
	t.Helper()
	key := make([]byte, seal.KeySize)
	rand.Read(key)
	keys, err := seal.NewFileKeys(secret.NewBytes(key))
	must(t, err)
	f := &fixture{
		t: t, url: url, sealer: seal.NewSealer(keys),
		upstream: &provider{primary: true, inDoubt: config.RefreshInDoubtRetry, current: "rt-1"},
		granted: seal.Tokens{
			AccessToken: secret.New("at-1"), RefreshToken: secret.New("rt-1"), IDToken: secret.New("it-1"),
		},
	}
	f.pool = f.newPool()
	f.store = store.New(f.pool)
	f.login(ttl)
	return f
}

func (f *fixture) newPool() *pgxpool.Pool {
	f.t.Helper()
	pool, err := postgres.Open(context.Background(), postgres.Config{URL: f.url, MaxConns: 8})
	must(f.t, err)
	f.t.Cleanup(pool.Close)
	return pool
}

func (f *fixture) login(ttl time.Duration) {
	f.t.Helper()
	ctx := f.t.Context()
	id, _, err := f.store.BeginSession(ctx, "client", "Agent", time.Minute)
	must(f.t, err)
	leg := store.NewLeg{
		StagedLeg: store.StagedLeg{
			ID: store.NewLegID(), SessionID: id, Provider: "corp",
			Account: store.Account{Realm: realm, Subject: "alice", Name: "Alice"},
			Grant:   store.Grant{Scopes: []string{"openid"}, Refreshable: true, Sealed: seal.Sealed{KeyID: "x", WrappedKey: []byte{1}, Ciphertext: []byte{1}}},
		},
		Primary: &store.PrimaryIdentity{Realm: realm, SubjectField: "sub", Subject: "alice"},
		Record:  audit.Record{Action: audit.LegRedeemed, Outcome: audit.Success},
	}
	if ttl != 0 {
		ends := time.Now().Add(ttl)
		leg.Validity = store.Validity{EndsAt: ends, RenewAt: refresh.After(ends, ends.Add(-time.Hour))}
	}
	staged, err := f.store.StageLeg(ctx, leg)
	must(f.t, err)
	plan, err := f.store.PlanActivation(ctx, id, time.Minute)
	must(f.t, err)
	p := store.Promotion{
		LegID: leg.ID, ConnectionID: store.NewConnectionID(), Provider: "corp", Account: leg.Account, Grant: leg.Grant,
	}
	if e := plan.Legs[0].Existing; e != nil {
		p.ConnectionID, p.FromVersion = e.ID, e.Version
	}
	p.Refreshable = !f.granted.RefreshToken.IsZero()
	p.Sealed, err = f.sealer.SealTokens(ctx, f.granted, store.ConnectionPlace(p.ConnectionID, p.FromVersion+1))
	must(f.t, err)
	f.session, err = f.store.Activate(ctx, store.Activation{
		SessionID: id, UserID: staged.Session.UserID, Lifetime: time.Hour, Idle: time.Hour, LoginLeg: leg.ID,
		Promotions: []store.Promotion{p}, Record: audit.Record{Action: audit.SessionActivated, Outcome: audit.Success},
	})
	must(f.t, err)
	f.connection = f.read()
}

func (f *fixture) read() *store.Connection {
	f.t.Helper()
	o, err := f.store.Open(f.t.Context(), f.session.ID, "corp")
	must(f.t, err)
	return o.Connection
}

// tokens opens what is stored.
func (f *fixture) tokens() seal.Tokens {
	f.t.Helper()
	c := f.read()
	tokens, err := f.sealer.OpenTokens(f.t.Context(), c.Sealed, c.Place())
	must(f.t, err)
	return tokens
}

// replica is one more instance of the broker, with a pool of its own.
func (f *fixture) replica(change ...func(*refresh.Config)) *refresh.Refresher {
	f.t.Helper()
	st := store.New(f.newPool())
	log := slog.New(slog.DiscardHandler)
	cfg := refresh.Config{
		Reader: st, Leases: st, Sealer: f.sealer,
		Find: func(name, of string) (refresh.Provider, error) {
			if of != realm {
				return nil, fault.New(fault.NotFound, "no such provider")
			}
			return f.upstream, nil
		},
		Providers:   configured,
		PrimaryName: func() string { return "corp" }, LockOnPrimary: func() bool { return true },
		Audit: audit.NewRecorder(st, log), Logger: log,
	}
	for _, c := range change {
		c(&cfg)
	}
	return refresh.New(cfg)
}

func configured() []store.ProviderRealm {
	return []store.ProviderRealm{{Provider: "corp", Realm: realm}}
}

func (f *fixture) exec(sql string, args ...any) {
	f.t.Helper()
	_, err := f.pool.Exec(f.t.Context(), sql, args...)
	must(f.t, err)
}

// queued returns the refresh tokens that wait to be revoked.
func (f *fixture) queued() []string {
	f.t.Helper()
	list, err := f.store.ClaimRevocations(f.t.Context(), 100, 0)
	must(f.t, err)
	var found []string
	for _, r := range list {
		tokens, err := f.sealer.OpenTokens(f.t.Context(), r.Sealed, r.Place)
		must(f.t, err)
		found = append(found, tokens.RefreshToken.Reveal())
	}
	slices.Sort(found)
	return found
}

// actions returns the audit log, oldest first, as action/outcome.
func (f *fixture) actions() []string {
	f.t.Helper()
	records, err := f.store.ListAudit(f.t.Context(), store.AuditFilter{Limit: 100})
	must(f.t, err)
	var list []string
	for i := len(records) - 1; i >= 0; i-- {
		if a := records[i].Action; a != audit.LegRedeemed && a != audit.SessionActivated {
			list = append(list, string(a)+"/"+records[i].Outcome)
		}
	}
	return list
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(fault.Detail(err))
	}
}

func wantReason(t *testing.T, err error, want string) {
	t.Helper()
	if got := fault.ReasonOf(err); err == nil || got != want {
		t.Fatalf("reason = %q (%v), want %q", got, err, want)
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
