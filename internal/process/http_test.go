package process_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/pki"
	"chatelaine.dev/internal/process"
)

// serve runs s until stop is called; stop returns Run's error.
func serve(t *testing.T, s process.HTTPServer) (url string, stop context.CancelFunc, done <-chan error) {
	t.Helper()
	s.Address = "127.0.0.1:0"
	ln, err := s.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- s.Run(ctx) }()
	t.Cleanup(cancel)
	return "http://" + ln.Addr().String(), cancel, result
}

func await(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("the server did not stop")
		return nil
	}
}

func TestARequestInFlightIsAnsweredDuringTheStop(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	var drained atomic.Int32
	url, stop, done := serve(t, process.HTTPServer{
		OnDrain: func() { drained.Add(1); close(release) },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			close(entered)
			<-release
			if r.Context().Err() != nil {
				t.Error("the stop canceled a running request")
			}
			fmt.Fprint(w, "whole answer")
		}),
	})
	body := make(chan string, 1)
	go func() {
		resp, err := http.Get(url)
		if err != nil {
			body <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		body <- string(b)
	}()
	<-entered
	stop()
	if got := <-body; got != "whole answer" {
		t.Errorf("the client got %q", got)
	}
	if err := await(t, done); err != nil {
		t.Errorf("Run = %v", err)
	}
	if drained.Load() != 1 {
		t.Errorf("OnDrain ran %d times", drained.Load())
	}
}

func TestAStreamThatDoesNotEndIsCutAfterTheDrain(t *testing.T) {
	t.Parallel()
	entered := make(chan struct{})
	url, stop, done := serve(t, process.HTTPServer{
		DrainTimeout: 50 * time.Millisecond,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "data: 1\n\n")
			_ = http.NewResponseController(w).Flush()
			close(entered)
			<-r.Context().Done()
		}),
	})
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	<-entered
	stop()
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("a cut stream looks whole")
	}
	if err := await(t, done); err != nil {
		t.Errorf("Run = %v", err)
	}
}

func TestRequestsAreServedWhileLoadBalancersLookAway(t *testing.T) {
	t.Parallel()
	draining := make(chan struct{})
	url, stop, done := serve(t, process.HTTPServer{
		DrainDelay: 2 * time.Second,
		OnDrain:    func() { close(draining) },
		Handler:    http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") }),
	})
	stop()
	<-draining
	resp, err := http.Get(url)
	if err != nil {
		t.Fatalf("refused during the delay: %v", err)
	}
	_ = resp.Body.Close()
	if err := await(t, done); err != nil {
		t.Errorf("Run = %v", err)
	}
}

func TestOversizedHeadersAreRefused(t *testing.T) {
	t.Parallel()
	url, _, _ := serve(t, process.HTTPServer{Handler: http.NotFoundHandler()})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Big", strings.Repeat("x", process.DefaultMaxHeaderBytes+8<<10))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("status %d", resp.StatusCode)
	}
}

func TestATakenPortIsAStartUpError(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	s := process.HTTPServer{Address: ln.Addr().String()}
	if err := s.Run(t.Context()); fault.ReasonOf(err) != "listen_failed" || !strings.Contains(err.Error(), ln.Addr().String()) {
		t.Errorf("Run = %v", err)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	ca, err := pki.NewCA("test")
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Issue(pki.Request{Names: []string{"localhost"}})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(leaf.CertPEM, leaf.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	url, stop, done := serve(t, process.HTTPServer{
		TLS:     &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}},
		Handler: http.NotFoundHandler(),
	})
	conn, err := tls.Dial("tcp", strings.TrimPrefix(url, "http://"), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.Contains(line, "404") {
		t.Errorf("%q, %v", line, err)
	}
	_ = conn.Close()
	stop()
	if err := await(t, done); err != nil {
		t.Errorf("Run = %v", err)
	}
}
