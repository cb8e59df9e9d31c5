package rpc_test

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"chatelaine.dev/internal/rpc"
	"chatelaine.dev/internal/rpc/rpctest"
	"chatelaine.dev/internal/telemetry"
)

// replica is one of several servers; kill ends it with calls in it.
type replica struct {
	address string
	calls   atomic.Int64
	kill    func()
}

func newReplica(t *testing.T, ca *rpctest.CA, address string) *replica {
	t.Helper()
	server, err := rpc.NewServer(rpc.ServerConfig{
		TLS: ca.TLS("tokenbroker"), Telemetry: telemetry.Discard(), Peers: map[string][]string{echoService: {"gateway"}},
		StopTimeout: time.Nanosecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	r := &replica{}
	(&echo{unary: func(ctx context.Context, text string) (string, error) {
		r.calls.Add(1)
		select { // long enough for a kill to meet calls under way
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
		}
		return text, nil
	}}).register(server)
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	r.address = ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Run(ctx, ln); err != nil {
			t.Error(err)
		}
	}()
	r.kill = func() { cancel(); <-done }
	t.Cleanup(r.kill)
	return r
}

// hammer makes calls from several goroutines until until is closed.
func hammer(t *testing.T, conn *grpc.ClientConn, until <-chan struct{}) (failed func() int64) {
	t.Helper()
	var wg sync.WaitGroup
	var failures atomic.Int64
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-until:
					return
				default:
				}
				if _, err := call(context.Background(), conn, "hi"); err != nil {
					failures.Add(1)
					t.Log(err)
				}
			}
		})
	}
	return func() int64 { wg.Wait(); return failures.Load() }
}

func TestReplicasShareTheCallsAndOneThatDiesFailsNone(t *testing.T) {
	t.Parallel()
	ca := rpctest.NewCA(t)
	one, two := newReplica(t, ca, "127.0.0.1:0"), newReplica(t, ca, "127.0.0.1:0")
	conn := ca.Dial(one.address+", "+two.address, "tokenbroker", []string{echoMethod}, "gateway")
	waitFor(t, "both to be connected", func() bool {
		_, err := call(t.Context(), conn, "hi")
		return err == nil && one.calls.Load() > 0 && two.calls.Load() > 0
	})
	one.calls.Store(0)
	two.calls.Store(0)
	until := make(chan struct{})
	failed := hammer(t, conn, until)
	waitFor(t, "a thousand calls", func() bool { return one.calls.Load()+two.calls.Load() > 1000 })
	for _, r := range []*replica{one, two} {
		if share := float64(r.calls.Load()) / float64(one.calls.Load()+two.calls.Load()); share < 0.3 {
			t.Errorf("a replica has %.0f %% of the calls", 100*share)
		}
	}
	one.kill()
	alone := two.calls.Load()
	waitFor(t, "the other one to do the work", func() bool { return two.calls.Load() > alone+500 })
	again := newReplica(t, ca, one.address)
	waitFor(t, "the replica that is back to get calls", func() bool { return again.calls.Load() > 100 })
	close(until)
	if n := failed(); n != 0 {
		t.Errorf("%d calls failed", n)
	}
}

func TestEveryAddressOfAListIsLookedAt(t *testing.T) {
	t.Parallel()
	ca := rpctest.NewCA(t)
	for _, address := range []string{"", "broker", "a:1,broker", "a:1,", ","} {
		_, err := rpc.Dial(rpc.ClientConfig{Address: address, ServerName: "tokenbroker", TLS: ca.TLS("gateway"), Telemetry: telemetry.Discard()})
		if err == nil {
			t.Errorf("%q was taken", address)
		}
	}
}
