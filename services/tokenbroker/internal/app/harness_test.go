package app_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"chatelaine.dev/internal/cli"
	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/pgtest"
	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/internal/rpc/rpctest"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/internal/telemetry"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/tokenbroker/internal/app"
	"chatelaine.dev/services/tokenbroker/internal/schema"
	"chatelaine.dev/services/tokenbroker/internal/upstream/optest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

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
        oidcConfig:
          issuerUrl: CORP
          clientId: chatelaine
          clientSecretRef: {name: corp-idp, key: client-secret}
          scopes: [openid, profile, email, offline_access]
          redirectUri: http://localhost:8080/oauth/callback/corp
      - name: octohub
        type: oauth2
        optional: true
        oauth2Config:
          authorizationEndpoint: HUB/authorize
          tokenEndpoint: HUB/token
          clientId: chatelaine
          clientSecretRef: {name: octohub, key: client-secret}
          scopes: [repo]
          userInfo: {endpointUrl: "HUB/user", fieldMapping: {subjectFields: [id], nameFields: [login]}}
  incomingAuth:
    type: oidc
    oidcConfigRef: {name: demo, audience: "http://localhost:8000/mcp"}
  outgoingAuth:
    source: inline
    backends:
      repos: {type: externalAuthConfigRef, externalAuthConfigRef: {name: as-octohub-user}}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPExternalAuthConfig
metadata: {name: as-octohub-user}
spec: {type: upstreamInject, upstreamInject: {providerName: octohub}}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPServerEntry
metadata: {name: repos}
spec: {groupRef: {name: demo}, remoteUrl: "http://localhost:7001/mcp", transport: streamable-http}
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

// logs collects log lines of all goroutines.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// broker is the whole service, running, with its callers' connections.
type broker struct {
	t    *testing.T
	ca   *rpctest.CA
	pool *pgxpool.Pool
	url  secret.String
	corp *optest.OP
	hub  *hub
	logs *logs
	// issuer publishes the key that signs access tokens, as the authserver does.
	issuer *httptest.Server
	signer jose.Signer

	key        string
	configPath string
	rest       string
	grpc       string
	admin      string
	stop       func() error

	login       brokerv1.LoginServiceClient
	credentials brokerv1.CredentialServiceClient
	connections brokerv1.ConnectionServiceClient
}

func newBroker(t *testing.T) *broker {
	t.Helper()
	return newBrokerOn(t, pgtest.URL(t, schema.Migrations()))
}

func newBrokerOn(t *testing.T, database secret.String) *broker {
	t.Helper()
	b := &broker{
		t: t, ca: rpctest.NewCA(t), url: database, corp: optest.Start(t), hub: newHub(t),
		logs: &logs{}, key: randomKey(), configPath: filepath.Join(t.TempDir(), "demo.yaml"),
	}
	b.newIssuer()
	text := strings.NewReplacer("CORP", b.corp.Issuer, "HUB", b.hub.URL).Replace(resources)
	must(t, os.WriteFile(b.configPath, []byte(text), 0o600))
	var err error
	b.pool, err = postgres.Open(context.Background(), postgres.Config{URL: b.url, MaxConns: 8})
	must(t, err)
	t.Cleanup(b.pool.Close)
	b.start(b.key)
	return b
}

func (b *broker) newIssuer() {
	b.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(b.t, err)
	jwks := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k1", Algorithm: "ES256", Use: "sig"}}}
	b.issuer = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(jwks)
	}))
	b.t.Cleanup(b.issuer.Close)
	b.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "k1"}},
		(&jose.SignerOptions{}).WithType("at+jwt"))
	must(b.t, err)
}

// accessToken signs what the authserver would give to the client of a session.
func (b *broker) accessToken(session, user string) string {
	b.t.Helper()
	payload, err := json.Marshal(map[string]any{
		"iss": "http://localhost:8080", "sub": user, "aud": []string{"http://localhost:8000/mcp"}, "client_id": "agent",
		"exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix(), "jti": rand.Text(), "tsid": session,
	})
	must(b.t, err)
	signed, err := b.signer.Sign(payload)
	must(b.t, err)
	token, err := signed.CompactSerialize()
	must(b.t, err)
	return token
}

func randomKey() string {
	key := make([]byte, 32)
	rand.Read(key)
	return base64.StdEncoding.EncodeToString(key)
}

// start runs the broker with key-encryption keys, newest first.
func (b *broker) start(keys ...string) {
	b.t.Helper()
	server, flags := b.make(keys...)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	var once sync.Once
	var result error
	b.stop = func() error {
		once.Do(func() { cancel(); result = <-done })
		return result
	}
	b.t.Cleanup(func() {
		if err := b.stop(); err != nil {
			b.t.Error(fault.Detail(err))
		}
	})
	b.grpc, b.rest, b.admin = flags.GRPCAddress, flags.RESTAddress, flags.AdminAddress
	b.login = brokerv1.NewLoginServiceClient(b.dial("authserver"))
	b.credentials = brokerv1.NewCredentialServiceClient(b.dial("gateway"))
	b.connections = brokerv1.NewConnectionServiceClient(b.dial("operator"))
	b.eventually("readiness", func() bool {
		resp, err := http.Get("http://" + flags.AdminAddress + "/readyz")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
}

func (b *broker) make(keys ...string) (*app.Server, *app.Flags) {
	b.t.Helper()
	env := map[string]string{"CORP_IDP_CLIENT_SECRET": optest.ClientSecret, "OCTOHUB_CLIENT_SECRET": "hub-client-secret"}
	flags := &app.Flags{
		GRPCAddress: freeAddress(b.t), RESTAddress: freeAddress(b.t),
		AuditRetention: 720 * time.Hour, EventRetention: 24 * time.Hour, MaxPendingSessions: 1000,
		UpstreamTimeout: 10 * time.Second, RefreshLease: 20 * time.Second, Drain: cli.Drain{DrainTimeout: 2 * time.Second},
	}
	flags.Path, flags.AdminAddress, flags.JWKSURL = b.configPath, freeAddress(b.t), b.issuer.URL
	for i, key := range keys {
		env[fmt.Sprintf("BROKER_KEK%d", i)] = key
		flags.KeyEncryptionKey = append(flags.KeyEncryptionKey, secret.Ref{Name: "broker", Key: fmt.Sprintf("kek%d", i)})
	}
	tel, err := telemetry.Start(b.t.Context(), telemetry.Config{Service: "tokenbroker", LogFormat: "json", LogOutput: b.logs})
	must(b.t, err)
	set, report := config.Load(b.configPath)
	must(b.t, report.Err())
	server, err := app.New(app.Config{
		Flags: flags, Set: set, Database: b.pool, ListenURL: b.url, Identity: b.ca.TLS("tokenbroker"), Telemetry: tel,
		Secrets: &secret.Resolver{LookupEnv: func(name string) (string, bool) { v, ok := env[name]; return v, ok }},
		Health:  telemetry.NewHealth(tel.Logger),
	})
	must(b.t, err)
	return server, flags
}

// metrics returns what the running broker shows to a scrape.
func (b *broker) metrics() string {
	b.t.Helper()
	resp, err := http.Get("http://" + b.admin + "/metrics")
	must(b.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(b.t, err)
	return string(text)
}

func (b *broker) dial(names ...string) *grpc.ClientConn {
	return b.ca.Dial(b.grpc, "tokenbroker", nil, names...)
}

// freeAddress returns a loopback address that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer ln.Close()
	return ln.Addr().String()
}

// call sends a REST request as the peer with these names; no names, no certificate.
func (b *broker) call(method, path, body string, names ...string) (status int, answer string) {
	b.t.Helper()
	resp, err := b.request(method, path, body, names...)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(b.t, err)
	return resp.StatusCode, string(text)
}

func (b *broker) request(method, path, body string, names ...string) (*http.Response, error) {
	b.t.Helper()
	identity := names
	if len(names) == 0 {
		identity = []string{"nobody"}
	}
	cfg := b.ca.TLS(identity...).ClientConfig("tokenbroker")
	if len(names) == 0 {
		cfg.Certificates = nil
	}
	transport := &http.Transport{TLSClientConfig: cfg}
	b.t.Cleanup(transport.CloseIdleConnections)
	req, err := http.NewRequestWithContext(b.t.Context(), method, "https://"+b.rest+path, strings.NewReader(body))
	must(b.t, err)
	req.Header.Set("Traceparent", "00-"+traceID+"-00f067aa0ba902b7-01")
	req.Header.Set("Grpc-Metadata-Chatelaine-Forwarded-Peer", "operator")
	return (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Do(req)
}

const traceID = "4bf92f3577b34da6a3ce929d0e0e4736"

func (b *broker) eventually(what string, ok func() bool) {
	b.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			b.t.Fatalf("waited in vain for %s\n%s", what, b.logs)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

const verifier = "a-pkce-verifier-that-is-long-enough-for-rfc-7636"

// begin starts a chain.
func (b *broker) begin() string {
	b.t.Helper()
	resp, err := b.login.BeginSession(b.t.Context(), &brokerv1.BeginSessionRequest{ClientId: "agent", ClientName: "Agent"})
	must(b.t, err)
	return resp.GetSessionId()
}

// redeemCorp runs the primary leg at a real OpenID provider.
func (b *broker) redeemCorp(session string) *brokerv1.RedeemCodeResponse {
	b.t.Helper()
	resp, err := b.login.RedeemCode(b.t.Context(), &brokerv1.RedeemCodeRequest{
		SessionId: session, Provider: "corp", Code: b.corp.Code(b.t, verifier, "nonce-1"), CodeVerifier: verifier,
		Nonce: "nonce-1", RedirectUri: optest.RedirectURI,
	})
	must(b.t, err)
	return resp
}

func (b *broker) redeemHub(session, account string) (*brokerv1.RedeemCodeResponse, error) {
	return b.login.RedeemCode(b.t.Context(), &brokerv1.RedeemCodeRequest{
		SessionId: session, Provider: "octohub", Code: "code-" + account, CodeVerifier: verifier,
		RedirectUri: "http://localhost:8080/oauth/callback/octohub",
	})
}

func (b *broker) activate(session string) (*brokerv1.ActivateSessionResponse, error) {
	return b.login.ActivateSession(b.t.Context(), &brokerv1.ActivateSessionRequest{SessionId: session, ClientId: "agent"})
}

// complete runs a whole chain.
func (b *broker) complete(hubAccount string) (session string, active *brokerv1.ActivateSessionResponse) {
	b.t.Helper()
	session = b.begin()
	b.redeemCorp(session)
	if hubAccount != "" {
		_, err := b.redeemHub(session, hubAccount)
		must(b.t, err)
	}
	active, err := b.activate(session)
	must(b.t, err)
	return session, active
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

func hour() *durationpb.Duration { return durationpb.New(time.Hour) }
