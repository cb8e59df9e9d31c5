package rpc_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/rpc"
	"chatelaine.dev/internal/rpc/rpctest"
	"chatelaine.dev/internal/telemetry"
)

func TestAClientGivesUpOnAServerThatHangs(t *testing.T) {
	t.Parallel()
	s := start(t, &echo{unary: func(ctx context.Context, _ string) (string, error) { <-ctx.Done(); return "", ctx.Err() }}, nil)
	conn, err := rpc.Dial(rpc.ClientConfig{
		Address: s.address, ServerName: "tokenbroker", TLS: s.ca.TLS("gateway"), Telemetry: telemetry.Discard(), Timeout: 50 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := call(context.Background(), conn, "hi"); fault.KindOf(err) != fault.Timeout {
		t.Errorf("error = %v", err)
	}
}

func TestOnlyIdempotentCallsAreSentAgain(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		idempotent []string
		kind       fault.Kind
		want       int32
	}{
		"declared":              {[]string{echoMethod}, fault.Unavailable, 4},
		"not declared":          {nil, fault.Unavailable, 1},
		"declared, other error": {[]string{echoMethod}, fault.Internal, 1},
		"declared, wrong input": {[]string{echoMethod}, fault.Invalid, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var calls atomic.Int32
			s := start(t, &echo{unary: func(context.Context, string) (string, error) {
				calls.Add(1)
				return "", fault.New(tt.kind, "no")
			}}, nil)
			if _, err := call(t.Context(), s.ca.Dial(s.address, "tokenbroker", tt.idempotent, "gateway"), "hi"); fault.KindOf(err) != tt.kind {
				t.Errorf("error = %v", err)
			}
			if calls.Load() != tt.want {
				t.Errorf("%d calls, want %d", calls.Load(), tt.want)
			}
		})
	}
}

func TestAServerThatIsNotThereFailsAtOnceAndIsFoundLater(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	ca := rpctest.NewCA(t)
	conn := ca.Dial(address, "tokenbroker", nil, "gateway")
	begin := time.Now()
	if _, err := call(t.Context(), conn, "hi"); fault.KindOf(err) != fault.Unavailable || strings.Contains(err.Error(), "127.0.0.1") {
		t.Errorf("error = %v", err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("the failure took %s", took)
	}
	if ln, err = net.Listen("tcp", address); err != nil {
		t.Fatalf("the port was taken meanwhile: %v", err)
	}
	server, err := rpc.NewServer(rpc.ServerConfig{
		TLS: ca.TLS("tokenbroker"), Telemetry: telemetry.Discard(), Peers: map[string][]string{echoService: {"gateway"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	parrot().register(server)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx, ln) }()
	waitFor(t, "the server to be found", func() bool {
		_, err := call(t.Context(), conn, "hi")
		return err == nil
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestACallFindsAServerThatComesBackAfterALongAbsence(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ca := rpctest.NewCA(t)
	conn := ca.Dial(ln.Addr().String(), "tokenbroker", []string{echoMethod}, "gateway")
	conn.Connect()
	for range 8 { // as many attempts as bring the pauses between them to their longest
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	server, err := rpc.NewServer(rpc.ServerConfig{
		TLS: ca.TLS("tokenbroker"), Telemetry: telemetry.Discard(), Peers: map[string][]string{echoService: {"gateway"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	parrot().register(server)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx, ln) }()
	if _, err := call(t.Context(), conn, "hi"); err != nil {
		t.Errorf("the first call after the server came back: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func waitFor(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestACallThatDoesNotEndIsCutAfterTheStopTimeout(t *testing.T) {
	t.Parallel()
	ca := rpctest.NewCA(t)
	server, err := rpc.NewServer(rpc.ServerConfig{
		TLS: ca.TLS("tokenbroker"), Telemetry: telemetry.Discard(), StopTimeout: 50 * time.Millisecond,
		Peers: map[string][]string{echoService: {"gateway"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	entered := make(chan struct{})
	(&echo{chat: func(ctx context.Context, _ func() (string, error), _ func(string) error) error {
		close(entered)
		<-ctx.Done() // the cut cancels it
		return ctx.Err()
	}}).register(server)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx, ln) }()
	chat := openChat(t, t.Context(), ca.Dial(ln.Addr().String(), "tokenbroker", nil, "gateway"))
	<-entered
	cancel()
	if err := chat.RecvMsg(newText("")); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a cut stream ends with %v", err)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the server did not stop")
	}
}

func TestAStreamEndsWithItsServer(t *testing.T) {
	t.Parallel()
	drain := make(chan struct{})
	s := start(t, &echo{chat: func(ctx context.Context, next func() (string, error), send func(string) error) error {
		if err := send("subscribed"); err != nil {
			return err
		}
		<-drain
		return nil
	}}, func(cfg *rpc.ServerConfig) { cfg.OnDrain = func() { close(drain) } })
	chat := openChat(t, t.Context(), s.dial("gateway"))
	if err := chat.RecvMsg(newText("")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // runs before Serve's own, which stops the server and checks that it does
		go func() { _ = chat.RecvMsg(newText("")) }()
	})
}

func TestAStreamPassesMessagesAndEndsWithEOF(t *testing.T) {
	t.Parallel()
	s := start(t, &echo{chat: func(_ context.Context, next func() (string, error), send func(string) error) error {
		for {
			text, err := next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			if err := send(text); err != nil {
				return err
			}
		}
	}}, nil)
	chat := openChat(t, t.Context(), s.dial("gateway"))
	for _, text := range []string{"a", "b"} {
		if err := chat.SendMsg(newText(text)); err != nil {
			t.Fatal(err)
		}
		out := newText("")
		if err := chat.RecvMsg(out); err != nil || textOf(out) != text {
			t.Errorf("%q, %v", textOf(out), err)
		}
	}
	if err := chat.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := chat.RecvMsg(newText("")); !errors.Is(err, io.EOF) {
		t.Errorf("the end of a stream is %v", err)
	}
}
