package login_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
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
	"chatelaine.dev/services/tokenbroker/internal/deployment"
	"chatelaine.dev/services/tokenbroker/internal/login"
	"chatelaine.dev/services/tokenbroker/internal/schema"
	"chatelaine.dev/services/tokenbroker/internal/seal"
	"chatelaine.dev/services/tokenbroker/internal/store"
	"chatelaine.dev/services/tokenbroker/internal/upstream"
	"chatelaine.dev/services/tokenbroker/internal/upstream/optest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// resources have a real OpenID provider, a code host, and a provider that says
// nothing of who logged in.
const resources = `
apiVersion: chatelaine.dev/v1alpha1
kind: VirtualMCPServer
metadata: {name: demo}
spec:
  groupRef: {name: demo}
  authServerConfig:
    issuer: http://localhost:8080
    upstreamProviders:
      - name: corp
        type: oidc
        oidcConfig: {issuerUrl: $CORP, clientId: chatelaine, clientSecretRef: {name: corp-idp, key: client-secret}, scopes: [openid, offline_access]}
      - name: octohub
        type: oauth2
        optional: true
        oauth2Config:
          authorizationEndpoint: $HUB/authorize
          tokenEndpoint: $HUB/token
          clientId: chatelaine
          userInfo: {endpointUrl: "$HUB/user", fieldMapping: {subjectFields: [id]}}
      - name: nameless
        type: oauth2
        optional: true
        oauth2Config: {authorizationEndpoint: $HUB/nameless/authorize, tokenEndpoint: $HUB/nameless/token, clientId: chatelaine}
  incomingAuth:
    type: oidc
    oidcConfigRef: {name: demo, audience: "http://localhost:8000/mcp"}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPOIDCConfig
metadata: {name: demo}
spec: {type: inline, inline: {issuer: "http://localhost:8080"}}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPGroup
metadata: {name: demo}
`

const (
	clientID = "client-1"
	verifier = "a-pkce-verifier-that-is-long-enough-for-rfc-7636"
)

// hub grants what a test says, to whom a test says.
type hub struct {
	mu      sync.Mutex
	account string
	refresh string // empty: it gives none
	access  string
}

func (h *hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	answer := map[string]any{"access_token": h.access, "token_type": "bearer", "expires_in": 3600}
	switch {
	case r.URL.Path == "/user":
		answer = map[string]any{"id": h.account}
	case h.refresh != "":
		answer["refresh_token"] = h.refresh
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer)
}

// legs is the store, with what happens just before its calls.
type legs struct {
	*store.Store
	mu             sync.Mutex
	plans          int
	beforeStage    func()
	beforeActivate func()
}

func (l *legs) PlanActivation(ctx context.Context, sessionID string, maxAge time.Duration) (store.Plan, error) {
	l.mu.Lock()
	l.plans++
	l.mu.Unlock()
	return l.Store.PlanActivation(ctx, sessionID, maxAge)
}

func (l *legs) planned() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.plans
}

func (l *legs) StageLeg(ctx context.Context, leg store.NewLeg) (store.Staged, error) {
	if l.beforeStage != nil {
		l.beforeStage()
	}
	return l.Store.StageLeg(ctx, leg)
}

func (l *legs) Activate(ctx context.Context, a store.Activation) (store.Session, error) {
	if l.beforeActivate != nil {
		l.beforeActivate()
	}
	return l.Store.Activate(ctx, a)
}

// fixture is the service on a real database, with providers that really answer.
type fixture struct {
	*login.Service
	t      *testing.T
	store  *store.Store
	pool   *pgxpool.Pool
	sealer *seal.Sealer
	legs   *legs
	corp   *optest.OP
	hub    *hub
}

func newFixture(t *testing.T, change ...func(*login.Config)) *fixture {
	t.Helper()
	key := make([]byte, seal.KeySize)
	rand.Read(key)
	keys, err := seal.NewFileKeys(secret.NewBytes(key))
	must(t, err)
	pool := pgtest.New(t, schema.Migrations())
	f := &fixture{
		t: t, pool: pool, store: store.New(pool), sealer: seal.NewSealer(keys),
		corp: optest.Start(t), hub: &hub{account: "42", access: "at-1", refresh: "rt-1"},
	}
	f.legs = &legs{Store: f.store}
	server := httptest.NewServer(f.hub)
	t.Cleanup(server.Close)
	set, report := config.Parse(config.Source{
		Name: "set.yaml", Data: []byte(strings.NewReplacer("$CORP", f.corp.Issuer, "$HUB", server.URL).Replace(resources)),
	})
	must(t, report.Err())
	log := slog.New(slog.DiscardHandler)
	providers, err := upstream.NewRegistry(set.Deployment(), upstream.Config{Logger: log, Secrets: &secret.Resolver{
		LookupEnv: func(string) (string, bool) { return optest.ClientSecret, true },
	}})
	must(t, err)
	snapshot := &deployment.Snapshot{Digest: set.Digest(), Deployment: set.Deployment(), Providers: providers}
	cfg := login.Config{
		Sessions: f.store, Legs: f.legs, Sealer: f.sealer, Logger: log,
		Current: func() *deployment.Snapshot { return snapshot }, Audit: audit.NewRecorder(f.store, log),
	}
	for _, c := range change {
		c(&cfg)
	}
	f.Service = login.New(cfg)
	return f
}

// begin begins a chain and runs the primary leg.
func (f *fixture) begin() string {
	f.t.Helper()
	begun, err := f.BeginSession(f.t.Context(), &brokerv1.BeginSessionRequest{ClientId: clientID})
	must(f.t, err)
	_, err = f.RedeemCode(f.t.Context(), &brokerv1.RedeemCodeRequest{
		SessionId: begun.GetSessionId(), Provider: "corp", Code: f.corp.Code(f.t, verifier, "n"),
		CodeVerifier: verifier, Nonce: "n", RedirectUri: optest.RedirectURI,
	})
	must(f.t, err)
	return begun.GetSessionId()
}

// redeem runs a leg at the hub, which grants these tokens.
func (f *fixture) redeem(session, provider, account, access, refresh string) error {
	f.hub.mu.Lock()
	f.hub.account, f.hub.access, f.hub.refresh = account, access, refresh
	f.hub.mu.Unlock()
	_, err := f.RedeemCode(f.t.Context(), &brokerv1.RedeemCodeRequest{
		SessionId: session, Provider: provider, Code: "code", CodeVerifier: verifier,
		RedirectUri: "http://localhost:8080/oauth/callback/" + provider,
	})
	return err
}

// chain runs all legs but does not activate the session.
func (f *fixture) chain(provider, access, refresh string) string {
	f.t.Helper()
	id := f.begin()
	must(f.t, f.redeem(id, provider, "42", access, refresh))
	return id
}

func (f *fixture) activate(session string) error {
	_, err := f.ActivateSession(f.t.Context(), &brokerv1.ActivateSessionRequest{SessionId: session, ClientId: clientID})
	return err
}

// login completes a chain and returns the session.
func (f *fixture) login(provider, access, refresh string) string {
	f.t.Helper()
	id := f.chain(provider, access, refresh)
	must(f.t, f.activate(id))
	return id
}

// stored returns what a session has at a provider.
func (f *fixture) stored(session, provider string) (*store.Connection, seal.Tokens) {
	f.t.Helper()
	o, err := f.store.Open(f.t.Context(), session, provider)
	must(f.t, err)
	if o.Connection == nil {
		f.t.Fatalf("no connection to %s", provider)
	}
	tokens, err := f.sealer.OpenTokens(f.t.Context(), o.Connection.Sealed, o.Connection.Place())
	must(f.t, err)
	return o.Connection, tokens
}

// lease begins an attempt at renewing a connection.
func (f *fixture) lease(c *store.Connection, lasts time.Duration) (store.Lease, bool) {
	lease, ok, err := f.store.AcquireLease(context.WithoutCancel(f.t.Context()), store.LeaseRequest{
		ConnectionID: c.ID, Version: c.Version, Holder: rand.Text(), Duration: lasts, MaxDoubtful: 1,
	})
	if err != nil {
		f.t.Error(fault.Detail(err))
	}
	return lease, ok
}

// renew commits what the attempt brought, as package refresh does.
func (f *fixture) renew(c *store.Connection, access, refresh string) {
	sealed, err := f.sealer.SealTokens(f.t.Context(), seal.Tokens{
		AccessToken: secret.New(access), RefreshToken: secret.New(refresh),
	}, store.ConnectionPlace(c.ID, c.Version+1))
	must(f.t, err)
	committed, err := f.store.CommitRenewal(f.t.Context(), store.Renewal{
		ConnectionID: c.ID, PresentedVersion: c.Version, Grant: store.Grant{Refreshable: true, Sealed: sealed},
		Record: audit.Record{Action: audit.ConnectionRefreshed, Outcome: audit.Success},
	})
	must(f.t, err)
	if !committed {
		f.t.Fatal("the renewal lost what it was granted")
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(fault.Detail(err))
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
