package app

import (
	"crypto/tls"
	"sync"
	"testing"
	"time"

	"chatelaine.dev/internal/rpc/rpctest"
)

// A gateway whose certificate was renewed must not come to the broker with the one
// that is about to expire.
func TestARenewedCertificateIsShownToTheBroker(t *testing.T) {
	ca := rpctest.NewCA(t)
	broker, err := tls.Listen("tcp", "127.0.0.1:0", ca.TLS("tokenbroker").ServerConfig("h2"))
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	var mu sync.Mutex
	shown := map[string]bool{}
	go func() { // takes a look at who comes, and hangs up: they come again
		for {
			conn, err := broker.Accept()
			if err != nil {
				return
			}
			if tlsConn := conn.(*tls.Conn); tlsConn.HandshakeContext(t.Context()) == nil {
				mu.Lock()
				shown[string(tlsConn.ConnectionState().PeerCertificates[0].Raw)] = true
				mu.Unlock()
			}
			_ = conn.Close()
		}
	}()
	certificates := func(n int) {
		t.Helper()
		for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			mu.Lock()
			got := len(shown)
			mu.Unlock()
			if got == n {
				return
			}
			if got > n || time.Now().After(deadline) {
				t.Fatalf("the broker saw %d certificates, want %d", got, n)
			}
		}
	}
	files := ca.Files("gateway")
	start(t, backendServer(), "--broker-address", broker.Addr().String(),
		"--tls-cert", files.Cert, "--tls-key", files.Key, "--tls-ca", files.CA)
	certificates(1)
	ca.Files("gateway")
	certificates(2)
}
