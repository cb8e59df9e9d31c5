package pki_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"chatelaine.dev/internal/pki"
)

func issue(t *testing.T, ca *pki.CA, req pki.Request) *pki.Leaf {
	t.Helper()
	leaf, err := ca.Issue(req)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func newCA(t *testing.T) *pki.CA {
	t.Helper()
	ca, err := pki.NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func TestLeavesSpeakMutualTLSUnderTheirNames(t *testing.T) {
	t.Parallel()
	ca := newCA(t)
	server := issue(t, ca, pki.Request{Names: []string{"tokenbroker", "broker.local"}, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}})
	client := issue(t, ca, pki.Request{Names: []string{"gateway"}})
	stranger := issue(t, newCA(t), pki.Request{Names: []string{"gateway"}})
	expired := issue(t, ca, pki.Request{Names: []string{"gateway"}, Lifetime: -time.Minute})

	for name, tt := range map[string]struct {
		client     *pki.Leaf
		serverName string
		wantOK     bool
	}{
		"by its first name":  {client, "tokenbroker", true},
		"by its second name": {client, "broker.local", true},
		"by its address":     {client, "127.0.0.1", true},
		"by another name":    {client, "gateway", false},
		"another authority":  {stranger, "tokenbroker", false},
		"an expired client":  {expired, "tokenbroker", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := handshake(t, ca, server, tt.client, tt.serverName); (err == nil) != tt.wantOK {
				t.Errorf("handshake: %v", err)
			}
		})
	}
}

// handshake returns the server's or the client's error.
func handshake(t *testing.T, ca *pki.CA, server, client *pki.Leaf, name string) error {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.CertPEM)
	pair := func(l *pki.Leaf) []tls.Certificate {
		cert, err := tls.X509KeyPair(l.CertPEM, l.KeyPEM)
		if err != nil {
			t.Fatal(err)
		}
		return []tls.Certificate{cert}
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	deadline := time.Now().Add(10 * time.Second)
	_, _ = a.SetDeadline(deadline), b.SetDeadline(deadline)
	result := make(chan error, 1)
	go func() {
		conn := tls.Server(a, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: pair(server), ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert})
		err := conn.Handshake()
		_ = a.Close()
		result <- err
	}()
	conn := tls.Client(b, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, Certificates: pair(client), ServerName: name})
	if err := conn.Handshake(); err != nil {
		return err
	}
	_, _ = conn.Read(make([]byte, 1)) // lets the server finish; in TLS 1.3 it judges last
	return <-result
}

func TestKeysAreReadableByTheirOwnerOnly(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made")
	leaf := issue(t, newCA(t), pki.Request{Names: []string{"gateway"}})
	files, err := leaf.Write(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{files.Cert, files.Key, files.CA} {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	if _, err := leaf.Write(dir); err != nil {
		t.Errorf("writing again: %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 3 {
		t.Errorf("the folder has %d files, %v", len(entries), err)
	}
}

func TestALeafNeedsAName(t *testing.T) {
	t.Parallel()
	if _, err := newCA(t).Issue(pki.Request{}); err == nil {
		t.Error("a nameless certificate was issued")
	}
}
