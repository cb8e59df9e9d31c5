package rpc_test

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/rpc"
	"chatelaine.dev/internal/rpc/rpctest"
	"chatelaine.dev/internal/telemetry"
)

// leafOf returns the certificate that t shows now.
func leafOf(t *testing.T, identity *rpc.TLS) string {
	t.Helper()
	return string(identity.ClientConfig("x").Certificates[0].Certificate[0])
}

func TestRenewedCertificatesAreUsedWithoutARestart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ca := rpctest.NewCA(t)
		files := ca.Files("gateway")
		identity, err := rpc.LoadTLS(files, nil)
		if err != nil {
			t.Fatal(err)
		}
		first := leafOf(t, identity)
		time.Sleep(time.Minute)
		if leafOf(t, identity) != first {
			t.Error("the certificate changed, its file did not")
		}
		ca.Files("gateway")
		if leafOf(t, identity) != first {
			t.Error("the files are read at each handshake")
		}
		time.Sleep(6 * time.Second)
		second := leafOf(t, identity)
		if second == first {
			t.Error("the new certificate is not used")
		}

		// In the middle of a rotation: a key that does not fit.
		good, err := os.ReadFile(files.Key)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(files.Key, []byte("half a file"), 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Second)
		if leafOf(t, identity) != second {
			t.Error("the last good certificate was dropped")
		}
		if err := os.WriteFile(files.Key, good, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(files.CA); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Second)
		if leafOf(t, identity) != second {
			t.Error("the last good certificate was dropped with the authority's file")
		}
	})
}

func TestUnusableTLSFilesAreNamedAtTheStart(t *testing.T) {
	t.Parallel()
	ca := rpctest.NewCA(t)
	good, other := ca.Files("gateway"), ca.Files("other")
	folder := t.TempDir() // cannot be read, even by root
	for name, tt := range map[string]struct {
		files rpc.TLSFiles
		flag  string
	}{
		"no certificate":         {rpc.TLSFiles{Cert: good.Cert + "x", Key: good.Key, CA: good.CA}, "--tls-cert"},
		"no key":                 {rpc.TLSFiles{Cert: good.Cert, Key: good.Key + "x", CA: good.CA}, "--tls-key"},
		"no authority":           {rpc.TLSFiles{Cert: good.Cert, Key: good.Key, CA: good.CA + "x"}, "--tls-ca"},
		"unreadable certificate": {rpc.TLSFiles{Cert: folder, Key: good.Key, CA: good.CA}, "--tls-cert"},
		"unreadable key":         {rpc.TLSFiles{Cert: good.Cert, Key: folder, CA: good.CA}, "--tls-key"},
		"unreadable authority":   {rpc.TLSFiles{Cert: good.Cert, Key: good.Key, CA: folder}, "--tls-ca"},
		"another's key":          {rpc.TLSFiles{Cert: good.Cert, Key: other.Key, CA: good.CA}, "--tls-key"},
		"authority is a key":     {rpc.TLSFiles{Cert: good.Cert, Key: good.Key, CA: good.Key}, "--tls-ca"},
		"nothing":                {rpc.TLSFiles{}, "--tls-cert"},
	} {
		_, err := rpc.LoadTLS(tt.files, nil)
		if fault.KindOf(err) != fault.Invalid || fault.ReasonOf(err) != "tls_files" || !strings.Contains(err.Error(), tt.flag) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnHTTPServerKnowsItsPeersToo(t *testing.T) {
	t.Parallel()
	ca := rpctest.NewCA(t)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", ca.TLS("tokenbroker").ServerConfig("http/1.1"))
	if err != nil {
		t.Fatal(err)
	}
	quiet := slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	server := &http.Server{ReadHeaderTimeout: time.Second, ErrorLog: quiet, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, strings.Join(rpc.PeerNames(*r.TLS), ","))
	})}
	go server.Serve(ln)
	defer server.Close()

	get := func(dial func(context.Context, string, string) (net.Conn, error)) (string, error) {
		client := &http.Client{Transport: &http.Transport{DialTLSContext: dial}, Timeout: 10 * time.Second}
		defer client.CloseIdleConnections()
		resp, err := client.Get("https://" + ln.Addr().String())
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return string(b), err
	}
	if got, err := get(ca.TLS("operator", "alice.operator").DialTLSContext("tokenbroker")); err != nil || got != "operator,alice.operator" {
		t.Errorf("peers %q, %v", got, err)
	}
	if _, err := get(rpctest.NewCA(t).TLS("operator").DialTLSContext("tokenbroker")); err == nil {
		t.Error("a stranger was served")
	}
	nobody := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext
	if _, err := get(nobody); err == nil {
		t.Error("a client without a certificate was served")
	}
	old := (&tls.Dialer{Config: func() *tls.Config {
		cfg := ca.TLS("operator").ClientConfig("tokenbroker")
		cfg.MinVersion, cfg.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
		return cfg
	}()}).DialContext
	if _, err := get(old); err == nil {
		t.Error("TLS 1.2 was spoken")
	}
	if names := rpc.PeerNames(tls.ConnectionState{}); names != nil {
		t.Errorf("an unverified connection has peers %v", names)
	}
}

func TestARotationDisturbsNobodyWhoIsConnected(t *testing.T) {
	t.Parallel()
	ca := rpctest.NewCA(t)
	files := ca.Files("tokenbroker")
	var log lockedBuffer
	identity, err := rpc.LoadTLS(files, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	var ahead atomic.Int64 // of the clock
	identity.SetClock(func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
	server, err := rpc.NewServer(rpc.ServerConfig{TLS: identity, Telemetry: telemetry.Discard(), Peers: map[string][]string{echoService: {"gateway"}}})
	if err != nil {
		t.Fatal(err)
	}
	parrot().register(server)
	address := rpctest.Serve(t, server)
	serves := func(who *grpc.ClientConn) {
		t.Helper()
		if _, err := call(t.Context(), who, "hi"); err != nil {
			t.Error(fault.Detail(err))
		}
	}
	shown := func() string {
		t.Helper()
		ahead.Add(int64(10 * time.Second))
		conn, err := ca.TLS("gateway").DialTLSContext("tokenbroker")(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return string(conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Raw)
	}
	connected := ca.Dial(address, "tokenbroker", nil, "gateway")
	serves(connected)
	first := shown()
	ca.Files("tokenbroker") // a new certificate in the same files
	second := shown()
	if second == first {
		t.Error("new clients see the old certificate")
	}
	serves(connected)
	if err := os.WriteFile(files.Cert, []byte("half a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if shown() != second {
			t.Error("a broken file changed the certificate")
		}
	}
	if n := strings.Count(log.String(), "keeping the last good TLS files"); n != 1 {
		t.Errorf("the broken file was logged %d times", n)
	}
	serves(connected)
	ca.Files("tokenbroker")
	if shown() == second {
		t.Error("the mended file is not used")
	}
	serves(ca.Dial(address, "tokenbroker", nil, "gateway"))
}
