package blobs_test

import (
	"bytes"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/protobuf/types/known/durationpb"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/pgtest"
	"chatelaine.dev/internal/rpc"
	"chatelaine.dev/internal/rpc/rpctest"
	"chatelaine.dev/internal/telemetry"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/tokenbroker/internal/blobs"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/schema"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const key = "0123456789abcdef"

func newService(t *testing.T) (brokerv1.McpSessionServiceClient, *pgxpool.Pool) {
	t.Helper()
	pool, ca := pgtest.New(t, schema.Migrations()), rpctest.NewCA(t)
	server, err := rpc.NewServer(rpc.ServerConfig{
		TLS: ca.TLS("tokenbroker"), Telemetry: telemetry.Discard(),
		Peers: map[string][]string{brokerv1.McpSessionService_ServiceDesc.ServiceName: {"gateway"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	brokerv1.RegisterMcpSessionServiceServer(server, blobs.New(store.New(pool)))
	conn := ca.Dial(rpctest.Serve(t, server), "tokenbroker", nil, "gateway")
	return brokerv1.NewMcpSessionServiceClient(conn), pool
}

func put(version int64, sealed string) *brokerv1.PutBlobRequest {
	return &brokerv1.PutBlobRequest{
		Key: key, Sealed: []byte(sealed), ExpectedVersion: version, TimeToLive: durationpb.New(time.Hour),
	}
}

// What one replica of the gateway wrote, another must read as it is, and never
// overwrite without having read it.
func TestReplicasDoNotOverwriteEachOther(t *testing.T) {
	t.Parallel()
	client, _ := newService(t)
	created, err := client.PutBlob(t.Context(), put(0, "first"))
	if err != nil || created.GetVersion() != 1 {
		t.Fatalf("%v, %v", created, err)
	}
	for _, stale := range []int64{0, 2} {
		if _, err := client.PutBlob(t.Context(), put(stale, "lost")); fault.KindOf(err) != fault.Conflict || fault.ReasonOf(err) != reason.VersionMismatch {
			t.Errorf("a write on version %d of 1: %v", stale, err)
		}
	}
	got, err := client.GetBlob(t.Context(), &brokerv1.GetBlobRequest{Key: key})
	if err != nil || string(got.GetSealed()) != "first" || got.GetVersion() != 1 || time.Until(got.GetExpiresAt().AsTime()) < 59*time.Minute {
		t.Errorf("%v, %v", got, err)
	}

	var won atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := client.PutBlob(t.Context(), put(1, "second")); err == nil {
				won.Add(1)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d of 8 writes on one version were accepted", won.Load())
	}
}

// A deleted session must not come back, neither by a late write nor after its time.
func TestABlobThatIsGoneStaysGone(t *testing.T) {
	t.Parallel()
	client, pool := newService(t)
	if _, err := client.PutBlob(t.Context(), put(0, "first")); err != nil {
		t.Fatal(fault.Detail(err))
	}
	for range 2 {
		if _, err := client.DeleteBlob(t.Context(), &brokerv1.DeleteBlobRequest{Key: key}); err != nil {
			t.Fatal(fault.Detail(err))
		}
	}
	gone := func(why string) {
		if _, err := client.GetBlob(t.Context(), &brokerv1.GetBlobRequest{Key: key}); fault.KindOf(err) != fault.NotFound {
			t.Errorf("%s: %v", why, err)
		}
		if _, err := client.PutBlob(t.Context(), put(1, "late")); fault.ReasonOf(err) != reason.VersionMismatch {
			t.Errorf("%s: a late write: %v", why, err)
		}
	}
	gone("deleted")
	if _, err := client.PutBlob(t.Context(), put(0, "again")); err != nil {
		t.Fatal(fault.Detail(err))
	}
	if _, err := pool.Exec(t.Context(), `UPDATE tokenbroker.mcp_blobs SET expires_at = clock_timestamp() - interval '1 second'`); err != nil {
		t.Fatal(err)
	}
	gone("expired")
	if again, err := client.PutBlob(t.Context(), put(0, "new")); err != nil || again.GetVersion() != 2 {
		t.Errorf("a new blob in the place of an expired one: %v, %v", again, err)
	}
}

func TestBlobsAreBounded(t *testing.T) {
	t.Parallel()
	client, _ := newService(t)
	largest := put(0, "")
	largest.Sealed = bytes.Repeat([]byte{0xff}, 64<<10)
	if _, err := client.PutBlob(t.Context(), largest); err != nil {
		t.Errorf("64 KiB: %v", err)
	}
	for name, change := range map[string]func(*brokerv1.PutBlobRequest){
		"more than 64 KiB": func(r *brokerv1.PutBlobRequest) { r.Sealed = bytes.Repeat([]byte{1}, 64<<10+1) },
		"nothing":          func(r *brokerv1.PutBlobRequest) { r.Sealed = nil },
		"a short key":      func(r *brokerv1.PutBlobRequest) { r.Key = "short" },
		"an endless key":   func(r *brokerv1.PutBlobRequest) { r.Key = strings.Repeat("k", 129) },
		"no end":           func(r *brokerv1.PutBlobRequest) { r.TimeToLive = nil },
		"a year":           func(r *brokerv1.PutBlobRequest) { r.TimeToLive = durationpb.New(365 * 24 * time.Hour) },
	} {
		req := put(0, "x")
		req.Key = "another-key-0123"
		change(req)
		if _, err := client.PutBlob(t.Context(), req); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}
