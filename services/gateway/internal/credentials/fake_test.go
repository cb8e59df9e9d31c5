package credentials

import (
	"context"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/internal/telemetry"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/gateway/internal/caller"
)

// fakeBroker is the broker's side, scripted by the test.
type fakeBroker struct {
	mu       sync.Mutex
	err      error                                       // of every call, when set
	answer   func(n int) *brokerv1.GetCredentialResponse // n counts from 1
	hold     chan struct{}                               // GetCredential waits for it, when set
	gets     int
	reports  []string
	renewed  bool
	watches  []*brokerv1.WatchSessionsRequest
	events   chan *brokerv1.WatchSessionsResponse // of the current stream
	refusing error                                // of WatchSessions
}

func (f *fakeBroker) GetCredential(ctx context.Context, _ *brokerv1.GetCredentialRequest, _ ...grpc.CallOption) (*brokerv1.GetCredentialResponse, error) {
	f.mu.Lock()
	f.gets++
	n, hold := f.gets, f.hold
	f.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, f.err
	}
	return f.answer(n), nil
}

func (f *fakeBroker) ReportRejected(_ context.Context, in *brokerv1.ReportRejectedRequest, _ ...grpc.CallOption) (*brokerv1.ReportRejectedResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reports = append(f.reports, in.GetCredentialVersion())
	return &brokerv1.ReportRejectedResponse{Renewed: f.renewed}, f.err
}

func (f *fakeBroker) WatchSessions(ctx context.Context, in *brokerv1.WatchSessionsRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[brokerv1.WatchSessionsResponse], error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watches = append(f.watches, in)
	if f.refusing != nil {
		return nil, f.refusing
	}
	f.events = make(chan *brokerv1.WatchSessionsResponse)
	return &fakeStream{ctx: ctx, events: f.events}, nil
}

type fakeStream struct {
	grpc.ClientStream // none of its methods is used
	ctx               context.Context
	events            chan *brokerv1.WatchSessionsResponse
}

func (s *fakeStream) Recv() (*brokerv1.WatchSessionsResponse, error) {
	select {
	case ev, ok := <-s.events:
		if !ok {
			return nil, io.EOF
		}
		return ev, nil
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

// send delivers an event to the stream that is open.
func (f *fakeBroker) send(ev *brokerv1.WatchSessionsResponse) {
	f.mu.Lock()
	events := f.events
	f.mu.Unlock()
	events <- ev
}

func (f *fakeBroker) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeBroker) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.gets
}

func snapshot(position int64) *brokerv1.WatchSessionsResponse {
	return &brokerv1.WatchSessionsResponse{Position: position, Event: &brokerv1.WatchSessionsResponse_SnapshotComplete{SnapshotComplete: &brokerv1.SnapshotComplete{}}}
}

func heartbeat(position int64) *brokerv1.WatchSessionsResponse {
	return &brokerv1.WatchSessionsResponse{Position: position, Event: &brokerv1.WatchSessionsResponse_Heartbeat{Heartbeat: &brokerv1.Heartbeat{}}}
}

func sessionEnded(position int64, id string) *brokerv1.WatchSessionsResponse {
	return &brokerv1.WatchSessionsResponse{Position: position, Event: &brokerv1.WatchSessionsResponse_SessionEnded{SessionEnded: &brokerv1.SessionEnded{SessionId: id}}}
}

func connectionChanged(position int64, id string) *brokerv1.WatchSessionsResponse {
	return &brokerv1.WatchSessionsResponse{Position: position, Event: &brokerv1.WatchSessionsResponse_ConnectionChanged{ConnectionChanged: &brokerv1.ConnectionChanged{ConnectionId: id}}}
}

func sessionChanged(position int64, id string) *brokerv1.WatchSessionsResponse {
	return &brokerv1.WatchSessionsResponse{Position: position, Event: &brokerv1.WatchSessionsResponse_SessionChanged{SessionChanged: &brokerv1.SessionChanged{SessionId: id}}}
}

// numbered answers with a token and a version that say which call it was.
func numbered(position int64) func(int) *brokerv1.GetCredentialResponse {
	return func(n int) *brokerv1.GetCredentialResponse {
		return &brokerv1.GetCredentialResponse{
			Headers: []*brokerv1.Header{{Name: "authorization", Value: fmt.Sprintf("Bearer token-%d", n)}},
			Origin:  "https://backend", SessionId: "s1", ConnectionId: "c1", Provider: "octohub",
			CredentialVersion: fmt.Sprintf("v%d", n), ObservedPosition: position,
			ExpiresAt: timestamppb.New(time.Now().Add(time.Hour)),
		}
	}
}

func alice() *caller.Caller {
	return caller.New(caller.Claims{Issuer: "https://issuer", Subject: "alice", SessionID: "s1"}, secret.New("token"))
}

func newManager(t *testing.T, broker Broker, change func(*Config)) *Manager {
	t.Helper()
	cfg := Config{Broker: broker, ConfigDigest: "digest", Sessions: true, TokenLifetime: time.Hour, Telemetry: telemetry.Discard()}
	if change != nil {
		change(&cfg)
	}
	m, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func mustGet(t *testing.T, m *Manager, wantVersion string) {
	t.Helper()
	cred, err := m.Get(t.Context(), alice(), "repos")
	if err != nil {
		t.Fatalf("Get: %s", fault.Detail(err))
	}
	if cred.Version != wantVersion {
		t.Fatalf("credential %s, want %s", cred.Version, wantVersion)
	}
}
