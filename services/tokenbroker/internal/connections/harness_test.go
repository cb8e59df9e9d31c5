package connections_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"google.golang.org/grpc"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/pgtest"
	"chatelaine.dev/internal/rpc"
	"chatelaine.dev/internal/rpc/rpctest"
	"chatelaine.dev/internal/telemetry"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/connections"
	"chatelaine.dev/services/tokenbroker/internal/deployment"
	"chatelaine.dev/services/tokenbroker/internal/schema"
	"chatelaine.dev/services/tokenbroker/internal/store"
	"chatelaine.dev/services/tokenbroker/internal/upstream"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// operations is ConnectionService on a real database, over mutual TLS, by gRPC and
// by REST.
type operations struct {
	t       *testing.T
	ca      *rpctest.CA
	pool    *pgxpool.Pool
	grpc    string
	rest    *httptest.Server
	metrics *sdkmetric.ManualReader
}

func newOperations(t *testing.T) *operations {
	t.Helper()
	o := &operations{
		t: t, ca: rpctest.NewCA(t), pool: pgtest.New(t, schema.Migrations()),
		metrics: sdkmetric.NewManualReader(),
	}
	tel := telemetry.Discard()
	tel.Meter = sdkmetric.NewMeterProvider(sdkmetric.WithReader(o.metrics))
	identity := o.ca.TLS("tokenbroker")
	server, err := rpc.NewServer(rpc.ServerConfig{
		TLS: identity, Telemetry: tel, ReflectionPeers: []string{"operator"},
		Peers: map[string][]string{brokerv1.ConnectionService_ServiceDesc.ServiceName: connections.Peers()},
	})
	must(t, err)
	st := store.New(o.pool)
	brokerv1.RegisterConnectionServiceServer(server, connections.New(connections.Config{
		People: st, Store: st, Audit: audit.NewRecorder(st, slog.New(slog.DiscardHandler)),
		Current: func() *deployment.Snapshot { return &deployment.Snapshot{Providers: &upstream.Registry{}} },
	}))
	o.grpc = rpctest.Serve(t, server)
	conn, err := server.InProcess()
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	handler, err := connections.NewHandler(t.Context(), conn, tel.Propagator)
	must(t, err)
	o.rest = httptest.NewUnstartedServer(tel.Middleware(telemetry.HTTPConfig{Server: "rest"})(handler))
	o.rest.TLS = identity.ServerConfig("http/1.1")
	o.rest.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // refused handshakes
	o.rest.StartTLS()
	t.Cleanup(o.rest.Close)
	return o
}

// person inserts a user with as many connections, and returns their ids.
func (o *operations) person(name string, count int) (user string, connections []string) {
	o.t.Helper()
	user = "usr_" + name
	_, err := o.pool.Exec(o.t.Context(), `
		INSERT INTO tokenbroker.users (id, realm, subject_field, subject, name, last_login_at)
		VALUES ($1, 'https://corp.example', 'sub', $2, $2, clock_timestamp())`, user, name)
	must(o.t, err)
	for i := range count {
		id := fmt.Sprintf("con_%s_%d", name, i)
		_, err := o.pool.Exec(o.t.Context(), `
			INSERT INTO tokenbroker.connections (id, user_id, provider, realm, subject, name, status, version, refreshable,
				tokens_at, key_id, wrapped_key, sealed_tokens)
			VALUES ($1, $2, $3, 'https://realm.example/' || $3, $4, $4, 'active', 1, true, clock_timestamp(), 'key-1', 'wrapped', 'sealed')`,
			id, user, fmt.Sprintf("provider-%d", i), name)
		must(o.t, err)
		connections = append(connections, id)
	}
	return user, connections
}

func (o *operations) dial(names ...string) *grpc.ClientConn {
	return o.ca.Dial(o.grpc, "tokenbroker", nil, names...)
}

func (o *operations) client() brokerv1.ConnectionServiceClient {
	return brokerv1.NewConnectionServiceClient(o.dial("operator", "localhost"))
}

// restClient has the certificate of a peer with these names.
func (o *operations) restClient(names ...string) *http.Client {
	return o.httpClient(o.ca.TLS(names...).ClientConfig("tokenbroker"))
}

func (o *operations) httpClient(cfg *tls.Config) *http.Client {
	transport := &http.Transport{TLSClientConfig: cfg}
	o.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
}

// call sends a REST request as an operator's curl does.
func (o *operations) call(c *http.Client, method, path, body string) (status int, answer string) {
	o.t.Helper()
	req, err := http.NewRequestWithContext(o.t.Context(), method, o.rest.URL+path, strings.NewReader(body))
	must(o.t, err)
	if body != "" {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded") // what curl -d says
	}
	resp, err := c.Do(req)
	must(o.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(o.t, err)
	if got := resp.Header.Get("Content-Type"); got != "application/json" {
		o.t.Errorf("%s %s: content type %q: %s", method, path, got, text)
	}
	if resp.Header.Get("Cache-Control") != "no-store" {
		o.t.Errorf("%s %s: may be cached", method, path)
	}
	return resp.StatusCode, string(text)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(fault.Detail(err))
	}
}
