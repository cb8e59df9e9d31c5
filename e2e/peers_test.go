package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"chatelaine.dev/internal/pki"
	brokerv1 "chatelaine.dev/proto/broker/v1"
)

func local(port int) string { return "localhost:" + strconv.Itoa(port) }

// operator is a client of the broker with the operator's certificate.
func operator(t *testing.T) brokerv1.ConnectionServiceClient {
	t.Helper()
	return brokerv1.NewConnectionServiceClient(peer(t, "operator"))
}

func peer(t *testing.T, name string) *grpc.ClientConn {
	t.Helper()
	conn, err := shared.stack.DialBroker(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// plainDial connects with grpc-go alone, so that a refusal is the server's.
func plainDial(t *testing.T, config *tls.Config) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(shared.stack.BrokerAddress(), grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestBrokerRefusesStrangers(t *testing.T) {
	t.Parallel()
	roots := x509.NewCertPool()
	ca, err := os.ReadFile(filepath.Join(shared.stack.TLSDir(), "ca.crt"))
	if err != nil || !roots.AppendCertsFromPEM(ca) {
		t.Fatalf("read the authority: %v", err)
	}
	foreign, err := pki.NewCA("somebody else")
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := foreign.Issue(pki.Request{Names: []string{"authserver"}})
	if err != nil {
		t.Fatal(err)
	}
	forged, err := tls.X509KeyPair(leaf.CertPEM, leaf.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	for name, config := range map[string]*tls.Config{
		"no certificate": {RootCAs: roots, ServerName: "tokenbroker"},
		"foreign CA":     {RootCAs: roots, ServerName: "tokenbroker", Certificates: []tls.Certificate{forged}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			conn := plainDial(t, config)
			if _, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}); status.Code(err) != codes.Unavailable {
				t.Errorf("health: %v, want a refused handshake", err)
			}
			if _, err := brokerv1.NewLoginServiceClient(conn).ListProviders(ctx, &brokerv1.ListProvidersRequest{}); status.Code(err) != codes.Unavailable {
				t.Errorf("LoginService: %v, want a refused handshake", err)
			}
			config := config.Clone()
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: config}, Timeout: 10 * time.Second}
			resp, err := client.Get("https://" + local(shared.stack.Ports().BrokerREST) + "/v1/users")
			if err == nil {
				resp.Body.Close()
				t.Errorf("REST answered %s to a stranger", resp.Status)
			}
		})
	}
}

func TestPeersReachOnlyTheirServices(t *testing.T) {
	t.Parallel()
	calls := map[string]func(context.Context, *grpc.ClientConn) error{
		"LoginService": func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := brokerv1.NewLoginServiceClient(c).ListProviders(ctx, &brokerv1.ListProvidersRequest{})
			return err
		},
		"CredentialService": func(ctx context.Context, c *grpc.ClientConn) error {
			stream, err := brokerv1.NewCredentialServiceClient(c).WatchSessions(ctx, &brokerv1.WatchSessionsRequest{})
			if err != nil {
				return err
			}
			_, err = stream.Recv()
			return err
		},
		"McpSessionService": func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := brokerv1.NewMcpSessionServiceClient(c).DeleteBlob(ctx, &brokerv1.DeleteBlobRequest{Key: "0123456789abcdef"})
			return err
		},
		"ConnectionService": func(ctx context.Context, c *grpc.ClientConn) error {
			_, err := brokerv1.NewConnectionServiceClient(c).ListUsers(ctx, &brokerv1.ListUsersRequest{PageSize: 1})
			return err
		},
	}
	allowed := map[string][]string{
		"LoginService":      {"authserver"},
		"CredentialService": {"gateway"},
		"McpSessionService": {"gateway"},
		"ConnectionService": {"operator", "authserver"},
	}
	for _, name := range []string{"authserver", "gateway", "operator", "tokenbroker"} {
		conn := peer(t, name)
		for service, do := range calls {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			err := do(ctx, conn)
			cancel()
			want := false
			for _, a := range allowed[service] {
				want = want || a == name
			}
			if want && err != nil {
				t.Errorf("%s at %s: %v", name, service, err)
			}
			if code := status.Code(err); !want && code != codes.PermissionDenied {
				t.Errorf("%s at %s: %v (%s), want PermissionDenied", name, service, err, code)
			}
		}
	}
}
