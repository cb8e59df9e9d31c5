package vault

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/grpc"

	"chatelaine.dev/examples/stack"
	"chatelaine.dev/internal/pki"
	"chatelaine.dev/internal/rpc"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/internal/telemetry"
	brokerv1 "chatelaine.dev/proto/broker/v1"
)

// replicas is how many brokers share a database.
const replicas = 3

// house is brokers on one database, the providers, and the keys of the issuer
// whose access tokens the callers have.
type house struct {
	t      testing.TB
	dir    string
	url    secret.String // what the brokers connect to
	pool   *pgxpool.Pool // of the superuser, for looking
	strict *provider
	grace  *provider

	issuer *httptest.Server
	signer jose.Signer

	secrets string
	kek     []string // NAME/KEY of key-encryption keys, newest first
	brokers []*broker
	digest  string
}

// broker is one replica and the connections to it.
type broker struct {
	process
	base        []string // its arguments, without keys
	ports       stack.Ports
	login       brokerv1.LoginServiceClient
	connections brokerv1.ConnectionServiceClient
	credentials []brokerv1.CredentialServiceClient
}

// houseConfig says what differs from a house on the shared Postgres.
type houseConfig struct {
	url      secret.String // of an empty database; a fresh one by default
	args     []string      // of each broker
	backend  string        // where all backends are
	audience string
}

func newHouse(t testing.TB, cfg houseConfig) *house {
	t.Helper()
	h := &house{t: t, url: cfg.url}
	var err error
	h.dir, err = os.MkdirTemp(shared.dir, "house-")
	must(t, err)
	if h.url.IsZero() {
		name := "vault_" + strings.ToLower(rand.Text()[:12])
		must(t, shared.cluster.CreateDatabase(t.Context(), name))
		h.url = shared.cluster.URL(name)
	}
	h.strict, h.grace = startProvider(t, 0, replicas), startProvider(t, graceWindow, replicas)
	h.newIssuer()
	h.write("secrets/providers/client-secret", clientSecret)
	h.newKey("first")
	backend, aud := cfg.backend, cfg.audience
	if backend == "" {
		backend = "http://localhost:7001"
	}
	if aud == "" {
		aud = audience
	}
	h.write("resources.yaml", resourcesFor(h.strict.issuer, h.grace.issuer, backend, aud))
	h.secrets = filepath.Join(h.dir, "secrets")
	h.certificates()
	h.migrate()
	h.pool, err = pgxpool.New(context.Background(), h.url.Reveal())
	must(t, err)
	t.Cleanup(h.pool.Close)
	for i := range replicas {
		h.brokers = append(h.brokers, h.newBroker(i, cfg.args))
	}
	for _, b := range h.brokers {
		b.launch()
	}
	for _, b := range h.brokers {
		b.waitReady(time.Minute)
	}
	listed, err := h.brokers[0].login.ListProviders(t.Context(), &brokerv1.ListProvidersRequest{})
	must(t, err)
	h.digest = listed.GetConfigDigest()
	return h
}

func (h *house) write(name, text string) {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	must(h.t, os.MkdirAll(filepath.Dir(path), 0o700))
	must(h.t, os.WriteFile(path, []byte(text), 0o600))
}

// newKey makes a key-encryption key, the newest of the house.
func (h *house) newKey(name string) {
	h.t.Helper()
	key := make([]byte, 32)
	rand.Read(key)
	h.write("secrets/vault-kek/"+name, base64.StdEncoding.EncodeToString(key))
	h.kek = append([]string{"vault-kek/" + name}, h.kek...)
}

func (h *house) newIssuer() {
	h.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(h.t, err)
	keys := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "1", Algorithm: "ES256", Use: "sig"}}}
	h.issuer = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, keys) }))
	h.t.Cleanup(h.issuer.Close)
	h.signer, err = jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "1"}},
		(&jose.SignerOptions{}).WithType("at+jwt"))
	must(h.t, err)
}

func (h *house) certificates() {
	h.t.Helper()
	ca, err := pki.NewCA("Vault tests")
	must(h.t, err)
	for _, peer := range []string{"tokenbroker", "authserver", "gateway", "operator"} {
		leaf, err := ca.Issue(pki.Request{Names: []string{peer, "localhost"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}})
		must(h.t, err)
		_, err = leaf.Write(filepath.Join(h.dir, "tls"))
		must(h.t, err)
	}
}

func (h *house) tlsArgs(peer string) []string {
	tls := func(name string) string { return filepath.Join(h.dir, "tls", name) }
	return []string{"--tls-cert", tls(peer + ".crt"), "--tls-key", tls(peer + ".key"), "--tls-ca", tls("ca.crt")}
}

// run runs one of the broker's commands to its end.
func (h *house) run(args ...string) (output string, err error) {
	cmd := exec.CommandContext(h.t.Context(), binary("tokenbroker"), args...)
	cmd.Env = environment("CHATELAINE_DATABASE_URL="+h.url.Reveal(), "CHATELAINE_SECRETS_DIR="+h.secrets)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (h *house) migrate() {
	h.t.Helper()
	if out, err := h.run("migrate"); err != nil {
		h.t.Fatalf("migrate: %v\n%s", err, out)
	}
}

func (h *house) newBroker(i int, args []string) *broker {
	h.t.Helper()
	ports, err := stack.FreePorts(h.t.Context())
	must(h.t, err)
	b := &broker{ports: ports, process: process{
		t: h.t, path: binary("tokenbroker"), log: filepath.Join(h.dir, "tokenbroker-"+strconv.Itoa(i)+".log"),
		env:   environment("CHATELAINE_DATABASE_URL="+h.url.Reveal(), "CHATELAINE_SECRETS_DIR="+h.secrets),
		ready: "http://" + hostPort(ports.BrokerAdmin) + "/readyz",
	}}
	b.base = append([]string{
		"serve", "--config", filepath.Join(h.dir, "resources.yaml"), "--jwks-url", h.issuer.URL,
		"--grpc-address", hostPort(ports.Broker), "--rest-address", hostPort(ports.BrokerREST), "--admin-address", hostPort(ports.BrokerAdmin),
		"--dial", h.strict.dial(i), "--dial", h.grace.dial(i),
	}, h.tlsArgs("tokenbroker")...)
	b.base = append(b.base, args...)
	b.args = append(append([]string{}, b.base...), h.keyArgs()...)
	h.t.Cleanup(b.stop)
	b.login = brokerv1.NewLoginServiceClient(h.dial("authserver", hostPort(ports.Broker)))
	b.connections = brokerv1.NewConnectionServiceClient(h.dial("operator", hostPort(ports.Broker)))
	for range 4 { // a connection takes a thousand calls at a time
		b.credentials = append(b.credentials, brokerv1.NewCredentialServiceClient(h.dial("gateway", hostPort(ports.Broker))))
	}
	return b
}

func (h *house) keyArgs() []string {
	var args []string
	for _, ref := range h.kek {
		args = append(args, "--key-encryption-key", ref)
	}
	return args
}

// dial connects to a broker as one of the house's peers.
func (h *house) dial(peer, address string) *grpc.ClientConn {
	h.t.Helper()
	tls, err := rpc.LoadTLS(rpc.TLSFiles{
		Cert: filepath.Join(h.dir, "tls", peer+".crt"), Key: filepath.Join(h.dir, "tls", peer+".key"), CA: filepath.Join(h.dir, "tls", "ca.crt"),
	}, nil)
	must(h.t, err)
	conn, err := rpc.Dial(rpc.ClientConfig{Address: address, ServerName: "tokenbroker", TLS: tls, Telemetry: telemetry.Discard()})
	must(h.t, err)
	h.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// scan reads one row.
func (h *house) scan(sql string, args []any, into ...any) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 20*time.Second)
	defer cancel()
	if err := h.pool.QueryRow(ctx, sql, args...).Scan(into...); err != nil {
		h.t.Fatalf("%s: %v", sql, err)
	}
}

func (h *house) exec(sql string, args ...any) {
	h.t.Helper()
	if _, err := h.pool.Exec(h.t.Context(), sql, args...); err != nil {
		h.t.Fatalf("%s: %v", sql, err)
	}
}

func indexOf(text []byte, what string) int { return bytes.Index(text, []byte(what)) }
