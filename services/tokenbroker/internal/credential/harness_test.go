package credential_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/pgtest"
	"chatelaine.dev/internal/secret"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/credential"
	"chatelaine.dev/services/tokenbroker/internal/deployment"
	"chatelaine.dev/services/tokenbroker/internal/login"
	"chatelaine.dev/services/tokenbroker/internal/refresh"
	"chatelaine.dev/services/tokenbroker/internal/revoke"
	"chatelaine.dev/services/tokenbroker/internal/schema"
	"chatelaine.dev/services/tokenbroker/internal/seal"
	"chatelaine.dev/services/tokenbroker/internal/store"
	"chatelaine.dev/services/tokenbroker/internal/upstream"
	"chatelaine.dev/services/tokenbroker/internal/upstream/optest"
	"chatelaine.dev/services/tokenbroker/internal/watch"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const (
	issuerURL = "http://localhost:8080"
	audience  = "http://localhost:8000/mcp"
	clientID  = "client-1"
	// planted is part of every secret of these tests: it must never show in a log
	// or an error.
	planted = "planted-3e7"
)

// broker is a whole one, without its edges: real Postgres, a real OpenID provider
// for corp, servers of ours for octohub, the token service and the keys.
type broker struct {
	*credential.Service
	t      testing.TB
	pool   *pgxpool.Pool
	store  *store.Store
	source *deployment.Source
	login  *login.Service
	memory *credential.Memory
	log    *logBuffer

	op   *optest.OP
	hub  *hub
	sts  *sts
	keys *keys
	mint *minter
}

type options struct {
	resources string // default: authServerResources
	memory    int
	audit     credential.Auditor
	quiet     bool
	// now is the clock of exchanges and of the service; default: time.Now.
	now func() time.Time
	// tokens wraps what opens connections.
	tokens func(credential.Tokens) credential.Tokens
}

// logBuffer keeps what was logged.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func start(t testing.TB, o options) *broker {
	t.Helper()
	databaseURL := pgtest.URL(t, schema.Migrations())
	pool, err := pgxpool.New(t.Context(), databaseURL.Reveal())
	must(t, err)
	t.Cleanup(pool.Close)
	b := &broker{
		t: t, pool: pool, store: store.New(pool), log: &logBuffer{},
		op: optest.Start(t), hub: startHub(t), sts: startSTS(t), keys: startKeys(t), mint: &minter{},
	}
	logger := slog.New(slog.NewJSONHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if o.quiet {
		logger = slog.New(slog.DiscardHandler)
	}
	secrets := &secret.Resolver{LookupEnv: func(name string) (string, bool) {
		if name == "CORP_IDP_CLIENT_SECRET" {
			return optest.ClientSecret, true
		}
		return planted + "-" + name, true
	}}

	plans := credential.NewPlans(credential.PlansConfig{Secrets: secrets, JWKSURL: b.keys.url, Minter: b.mint, Now: o.now})
	if o.resources == "" {
		o.resources = authServerResources
	}
	set := b.load(o.resources)
	b.source, err = deployment.New(deployment.Config{
		Prepare: plans.Prepare,
		Providers: func(d *config.Deployment) (*upstream.Registry, error) {
			return upstream.NewRegistry(d, upstream.Config{Secrets: secrets, Logger: logger})
		},
	}, set)
	if err != nil {
		t.Fatal(fault.Detail(err))
	}

	key := make([]byte, seal.KeySize)
	_, err = rand.Read(key)
	must(t, err)
	keyring, err := seal.NewFileKeys(secret.NewBytes(key))
	must(t, err)
	sealer := seal.NewSealer(keyring)
	recorder := audit.NewRecorder(b.store, logger)
	refresher := refresh.New(refresh.Config{
		Reader: b.store, Leases: b.store, Sealer: sealer, Audit: recorder, Logger: logger,
		Find: func(name, realm string) (refresh.Provider, error) {
			return b.source.Current().Providers.Find(name, realm)
		},
		Providers:      b.realms,
		PrimaryName:    func() string { return "corp" },
		LockOnPrimary:  func() bool { return true },
		ForcedInterval: time.Millisecond,
	})
	revoker := revoke.New(revoke.Config{
		Find: func(name, realm string) (revoke.Provider, error) {
			return b.source.Current().Providers.Find(name, realm)
		},
		Queue: b.store, Opener: sealer, Audit: recorder, Logger: logger,
	})
	b.login = login.New(login.Config{
		Sessions: b.store, Legs: b.store, Sealer: sealer,
		Current: b.source.Current, Audit: recorder, Logger: logger,
	})
	feed := watch.NewFeed(databaseURL, logger)
	var tokens credential.Tokens = refresher
	if o.tokens != nil {
		tokens = o.tokens(refresher)
	}
	b.memory = credential.NewMemory(credential.MemoryConfig{
		Sessions: b.store, Tokens: tokens, Size: o.memory, Logger: logger,
		Watch: watch.NewWatcher(feed, b.store, func() time.Duration { return time.Hour }).WatchSessions,
	}, plans)
	if o.audit == nil {
		o.audit = recorder
	}
	b.Service = credential.New(credential.Config{
		Configs: b.source, Plans: plans, Memory: b.memory, Tokens: tokens,
		Audit: o.audit, Logger: logger, Now: o.now,
	})

	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var tasks sync.WaitGroup
	for _, run := range []func(context.Context) error{feed.Run, b.memory.Run, revoker.Run, refresher.Run} {
		tasks.Go(func() { _ = run(ctx) })
	}
	t.Cleanup(func() { stop(); tasks.Wait() })
	return b
}

func (b *broker) realms() []store.ProviderRealm {
	var list []store.ProviderRealm
	for _, p := range b.source.Current().Providers.Providers() {
		list = append(list, store.ProviderRealm{Provider: p.Name(), Realm: p.Realm()})
	}
	return list
}

// listened waits until the memory has heard of everything that was committed.
func (b *broker) listened() {
	b.t.Helper()
	head, err := store.Head(b.t.Context(), b.pool)
	must(b.t, err)
	eventually(b.t, "the newest event to be heard", func() bool { return b.memory.Heard() >= head })
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(fault.Detail(err))
	}
}

// load returns the set of resources whose placeholders are replaced by what the test runs.
func (b *broker) load(resources string) *config.Set {
	b.t.Helper()
	text := strings.NewReplacer(
		"$ISSUER", issuerURL, "$AUDIENCE", audience, "$OP", b.op.Issuer, "$HUB", b.hub.url, "$STS", b.sts.url,
		"$KEYS", b.keys.issuer,
	).Replace(resources)
	path := filepath.Join(b.t.TempDir(), "resources.yaml")
	must(b.t, os.WriteFile(path, []byte(text), 0o600))
	set, report := config.Load(path)
	must(b.t, report.Err())
	return set
}

// session is one completed login of a person with both providers.
type session struct {
	id, user, client string
}

// logIn runs the chain; octohub is skipped unless asked for.
func (b *broker) logIn(withHub bool) session {
	b.t.Helper()
	ctx := b.t.Context()
	begun, err := b.login.BeginSession(ctx, &brokerv1.BeginSessionRequest{ClientId: clientID, ClientName: "Agent"})
	must(b.t, err)
	verifier := strings.Repeat("v", 43)
	redeemed, err := b.login.RedeemCode(ctx, &brokerv1.RedeemCodeRequest{
		SessionId: begun.GetSessionId(), Provider: "corp", Code: b.op.Code(b.t, verifier, "n"),
		CodeVerifier: verifier, Nonce: "n", RedirectUri: optest.RedirectURI,
	})
	must(b.t, err)
	if withHub {
		_, err = b.login.RedeemCode(ctx, &brokerv1.RedeemCodeRequest{
			SessionId: begun.GetSessionId(), Provider: "octohub", Code: "code", CodeVerifier: verifier,
			RedirectUri: issuerURL + "/oauth/callback/octohub",
		})
	} else {
		_, err = b.login.SkipProvider(ctx, &brokerv1.SkipProviderRequest{
			SessionId: begun.GetSessionId(), Provider: "octohub", Reason: brokerv1.SkipReason_SKIP_REASON_DECLINED,
		})
	}
	must(b.t, err)
	_, err = b.login.ActivateSession(ctx, &brokerv1.ActivateSessionRequest{SessionId: begun.GetSessionId(), ClientId: clientID})
	must(b.t, err)
	return session{begun.GetSessionId(), redeemed.GetUserId(), clientID}
}

// token signs an access token for the session, with changes.
func (b *broker) token(s session, change map[string]any) string {
	now := time.Now()
	claims := map[string]any{
		"iss": issuerURL, "sub": s.user, "aud": []string{audience}, "exp": now.Add(time.Hour).Unix(), "iat": now.Unix(),
		"jti": rand.Text(), "client_id": s.client, "scope": "", "tsid": s.id,
	}
	maps.Copy(claims, change)
	return b.keys.sign(b.t, "at+jwt", claims)
}

func (b *broker) get(token, backend string) (*brokerv1.GetCredentialResponse, error) {
	return b.GetCredential(b.t.Context(), &brokerv1.GetCredentialRequest{
		AccessToken: token, Backend: backend, ConfigDigest: b.source.Current().Digest,
	})
}

func (b *broker) mustGet(token, backend string) *brokerv1.GetCredentialResponse {
	b.t.Helper()
	out, err := b.get(token, backend)
	must(b.t, err)
	return out
}

func (b *broker) reject(token, backend, version string) (bool, error) {
	out, err := b.ReportRejected(b.t.Context(), &brokerv1.ReportRejectedRequest{
		AccessToken: token, Backend: backend, ConfigDigest: b.source.Current().Digest, CredentialVersion: version,
	})
	return out.GetRenewed(), err
}

func value(out *brokerv1.GetCredentialResponse) string {
	if len(out.GetHeaders()) != 1 {
		return ""
	}
	return out.GetHeaders()[0].GetName() + ": " + out.GetHeaders()[0].GetValue()
}

func wantReason(t testing.TB, err error, want, provider string) {
	t.Helper()
	f, ok := fault.As(err)
	if !ok || f.Reason != want || f.Metadata["provider"] != provider {
		t.Fatalf("error %v (%s), want %s{%s}", err, fault.Detail(err), want, provider)
	}
}

func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("waited for nothing: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
