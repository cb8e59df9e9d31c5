package rpctest

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"

	"chatelaine.dev/internal/pki"
	"chatelaine.dev/internal/rpc"
	"chatelaine.dev/internal/telemetry"
)

// CA issues the certificates of one test.
type CA struct {
	t   testing.TB
	ca  *pki.CA
	dir string
}

// NewCA makes an authority in a folder that goes with the test.
func NewCA(t testing.TB) *CA {
	t.Helper()
	ca, err := pki.NewCA("test authority")
	if err != nil {
		t.Fatal(err)
	}
	return &CA{t: t, ca: ca, dir: t.TempDir()}
}

// Files issues a certificate with these DNS names (also good for 127.0.0.1) and
// returns its files. The first name is the folder: a second call with the same
// first name replaces the files in place.
func (c *CA) Files(names ...string) rpc.TLSFiles {
	c.t.Helper()
	leaf, err := c.ca.Issue(pki.Request{Names: names, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}})
	if err != nil {
		c.t.Fatal(err)
	}
	files, err := leaf.Write(filepath.Join(c.dir, names[0]))
	if err != nil {
		c.t.Fatal(err)
	}
	return rpc.TLSFiles{Cert: files.Cert, Key: files.Key, CA: files.CA}
}

// TLS issues a certificate with these DNS names and loads it.
func (c *CA) TLS(names ...string) *rpc.TLS {
	c.t.Helper()
	identity, err := rpc.LoadTLS(c.Files(names...), nil)
	if err != nil {
		c.t.Fatal(err)
	}
	return identity
}

// Serve runs the server on a loopback port until the test ends and returns its
// address.
func Serve(t testing.TB, s *rpc.Server) (address string) {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("gRPC server: %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Error("gRPC server did not stop")
		}
	})
	return ln.Addr().String()
}

// Dial connects to address as the peer with these names and closes with the test.
func (c *CA) Dial(address, serverName string, idempotent []string, names ...string) *grpc.ClientConn {
	c.t.Helper()
	conn, err := rpc.Dial(rpc.ClientConfig{
		Address: address, ServerName: serverName, TLS: c.TLS(names...),
		Telemetry: telemetry.Discard(), Idempotent: idempotent,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = conn.Close() })
	return conn
}
