package gatewaytest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/rpc"
	"chatelaine.dev/internal/rpc/rpctest"
	"chatelaine.dev/internal/telemetry"
	brokerv1 "chatelaine.dev/proto/broker/v1"
)

// Broker is a token broker.
type Broker struct {
	brokerv1.UnimplementedCredentialServiceServer
	brokerv1.UnimplementedMcpSessionServiceServer

	t       testing.TB
	ca      *rpctest.CA
	address string

	mu       sync.Mutex
	backends map[string]*Backend
	gets     map[string]int
	reports  int
	position int64
	events   []*brokerv1.WatchSessionsResponse
	watchers map[chan struct{}]bool
	mute     bool
	blobs    map[string]blob
	configs  func(digest string) bool // nil knows all
}

// Backend is what the broker knows of a backend.
type Backend struct {
	// Origin of its URL.
	Origin string
	// Error of GetCredential, when set.
	Error error
	// Static is true for a backend that takes no credential.
	Static bool
	// Stuck is true when a renewal gives nothing new.
	Stuck bool

	version map[string]int // by person
}

type blob struct {
	sealed  []byte
	version int64
}

// Token is what a backend gets for a person: it names both, and the version.
func Token(subject, backend string, version int) string {
	return fmt.Sprintf("%s@%s/%d", subject, backend, version)
}

// NewBroker starts a broker that ends with the test. The watch of sessions is
// complete at once, with a heartbeat each 100 ms.
func NewBroker(t testing.TB) *Broker {
	t.Helper()
	b := &Broker{
		t: t, ca: rpctest.NewCA(t), backends: map[string]*Backend{}, gets: map[string]int{},
		watchers: map[chan struct{}]bool{}, blobs: map[string]blob{}, position: 1,
	}
	server, err := rpc.NewServer(rpc.ServerConfig{
		TLS: b.ca.TLS("tokenbroker"), Telemetry: telemetry.Discard(), StopTimeout: time.Second,
		Peers: map[string][]string{
			brokerv1.CredentialService_ServiceDesc.ServiceName: {"gateway"},
			brokerv1.McpSessionService_ServiceDesc.ServiceName: {"gateway"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	brokerv1.RegisterCredentialServiceServer(server, b)
	brokerv1.RegisterMcpSessionServiceServer(server, b)
	b.address = rpctest.Serve(t, server)
	return b
}

// Files are the certificate of the peer with this name.
func (b *Broker) Files(name string) rpc.TLSFiles { return b.ca.Files(name) }

// Address is where it listens.
func (b *Broker) Address() string { return b.address }

// Conn connects as the gateway.
func (b *Broker) Conn() *grpc.ClientConn { return b.ca.Dial(b.address, "tokenbroker", nil, "gateway") }

// Set makes a backend known, or changes it.
func (b *Broker) Set(name string, backend Backend) {
	b.mu.Lock()
	defer b.mu.Unlock()
	backend.version = map[string]int{}
	b.backends[name] = &backend
}

// Configs says which configurations the broker has.
func (b *Broker) Configs(has func(digest string) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.configs = has
}

// Gets returns how often a backend's credential was asked for.
func (b *Broker) Gets(backend string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.gets[backend]
}

// Reports returns how many credentials were reported as rejected.
func (b *Broker) Reports() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reports
}

// EndSession tells the watchers that a session ended.
func (b *Broker) EndSession(id string) {
	b.publish(&brokerv1.WatchSessionsResponse{Event: &brokerv1.WatchSessionsResponse_SessionEnded{
		SessionEnded: &brokerv1.SessionEnded{SessionId: id},
	}})
}

// Mute stops everything on the watch of sessions, heartbeats too.
func (b *Broker) Mute() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mute = true
}

func (b *Broker) publish(ev *brokerv1.WatchSessionsResponse) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.position++
	ev.Position = b.position
	b.events = append(b.events, ev)
	for wake := range b.watchers {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// GetCredential implements the service. It reads the token without verifying
// it, which a real broker would never do.
func (b *Broker) GetCredential(_ context.Context, in *brokerv1.GetCredentialRequest) (*brokerv1.GetCredentialResponse, error) {
	subject, session := who(in.GetAccessToken())
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gets[in.GetBackend()]++
	backend, ok := b.backends[in.GetBackend()]
	switch {
	case b.configs != nil && !b.configs(in.GetConfigDigest()):
		return nil, fault.New(fault.Precondition, "no such configuration").WithReason("CONFIG_UNKNOWN")
	case !ok:
		return nil, fault.New(fault.NotFound, "no such backend").WithReason("BACKEND_UNKNOWN")
	case backend.Error != nil:
		return nil, backend.Error
	case backend.Static:
		return &brokerv1.GetCredentialResponse{SessionId: session, ObservedPosition: b.position}, nil
	}
	version := backend.version[subject] + 1
	return &brokerv1.GetCredentialResponse{
		Headers: []*brokerv1.Header{{Name: "Authorization", Value: "Bearer " + Token(subject, in.GetBackend(), version)}},
		Origin:  backend.Origin, SessionId: session, ConnectionId: "connection-" + subject, Provider: "octohub",
		CredentialVersion: fmt.Sprint(version), ObservedPosition: b.position,
		ExpiresAt: timestamppb.New(time.Now().Add(time.Hour)),
	}, nil
}

// ReportRejected implements the service.
func (b *Broker) ReportRejected(_ context.Context, in *brokerv1.ReportRejectedRequest) (*brokerv1.ReportRejectedResponse, error) {
	subject, _ := who(in.GetAccessToken())
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reports++
	backend, ok := b.backends[in.GetBackend()]
	switch {
	case b.configs != nil && !b.configs(in.GetConfigDigest()):
		return nil, fault.New(fault.Precondition, "no such configuration").WithReason("CONFIG_UNKNOWN")
	case !ok:
		return nil, fault.New(fault.NotFound, "no such backend").WithReason("BACKEND_UNKNOWN")
	}
	if backend.Stuck {
		return &brokerv1.ReportRejectedResponse{}, nil
	}
	if in.GetCredentialVersion() == fmt.Sprint(backend.version[subject]+1) {
		backend.version[subject]++
	}
	return &brokerv1.ReportRejectedResponse{Renewed: true}, nil
}

// WatchSessions implements the service.
func (b *Broker) WatchSessions(in *brokerv1.WatchSessionsRequest, stream grpc.ServerStreamingServer[brokerv1.WatchSessionsResponse]) error {
	wake := make(chan struct{}, 1)
	b.mu.Lock()
	b.watchers[wake] = true
	next := 0
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.watchers, wake)
	}()
	heartbeat := time.NewTicker(100 * time.Millisecond)
	defer heartbeat.Stop()
	complete := false
	for {
		b.mu.Lock()
		pending, position, mute := b.events[next:], b.position, b.mute
		next = len(b.events)
		b.mu.Unlock()
		if mute {
			pending = nil
		}
		for _, ev := range pending {
			if ev.GetPosition() <= in.GetAfterPosition() {
				continue
			}
			if err := stream.Send(ev); err != nil {
				return err
			}
		}
		msg := &brokerv1.WatchSessionsResponse{Position: position, Event: &brokerv1.WatchSessionsResponse_Heartbeat{Heartbeat: &brokerv1.Heartbeat{}}}
		if !complete {
			msg.Event = &brokerv1.WatchSessionsResponse_SnapshotComplete{SnapshotComplete: &brokerv1.SnapshotComplete{}}
			complete = true
		}
		if !mute {
			if err := stream.Send(msg); err != nil {
				return err
			}
		}
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-wake:
		case <-heartbeat.C:
		}
	}
}

// GetBlob implements the service.
func (b *Broker) GetBlob(_ context.Context, in *brokerv1.GetBlobRequest) (*brokerv1.GetBlobResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	found, ok := b.blobs[in.GetKey()]
	if !ok {
		return nil, fault.New(fault.NotFound, "no such blob")
	}
	return &brokerv1.GetBlobResponse{Sealed: found.sealed, Version: found.version}, nil
}

// PutBlob implements the service.
func (b *Broker) PutBlob(_ context.Context, in *brokerv1.PutBlobRequest) (*brokerv1.PutBlobResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	version := b.blobs[in.GetKey()].version
	if in.GetExpectedVersion() != version {
		return nil, fault.New(fault.Conflict, "another version").WithReason("VERSION_MISMATCH")
	}
	b.blobs[in.GetKey()] = blob{in.GetSealed(), version + 1}
	return &brokerv1.PutBlobResponse{Version: version + 1}, nil
}

// who reads the claims sub and tsid.
func who(token string) (subject, session string) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", ""
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", ""
	}
	var claims struct{ Sub, Tsid string }
	if json.Unmarshal(payload, &claims) != nil {
		return "", ""
	}
	return claims.Sub, claims.Tsid
}
