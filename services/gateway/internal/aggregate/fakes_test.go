package aggregate_test

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"

	"chatelaine.dev/internal/fault"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/gateway/internal/caller"
	"chatelaine.dev/services/gateway/internal/credentials"
)

// credentialsOf is what the broker would say, by backend; nothing means no
// credential is needed.
type credentialsOf struct {
	mu     sync.Mutex
	faults map[string]error // backend, or backend/subject
	silent bool             // the broker takes questions and does not answer
}

func (c *credentialsOf) Get(ctx context.Context, who *caller.Caller, b string) (*credentials.Credential, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.silent {
		c.mu.Unlock()
		<-ctx.Done()
		c.mu.Lock()
		return nil, fault.New(fault.Unavailable, "the broker is silent").WithReason(credentials.ReasonBrokerUnavailable)
	}
	for _, key := range []string{b, b + "/" + who.Subject} {
		if err := c.faults[key]; err != nil {
			return nil, err
		}
	}
	return &credentials.Credential{}, nil
}

func (c *credentialsOf) Rejected(context.Context, *caller.Caller, string, *credentials.Credential) (bool, error) {
	return false, nil
}

func (c *credentialsOf) set(key string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.faults == nil {
		c.faults = make(map[string]error)
	}
	c.faults[key] = err
}

func (c *credentialsOf) silence(silent bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.silent = silent
}

// broker keeps blobs as the broker does: by compare-and-set.
type broker struct {
	mu    sync.Mutex
	blobs map[string]*brokerv1.GetBlobResponse
	down  bool
}

func (s *broker) GetBlob(_ context.Context, in *brokerv1.GetBlobRequest, _ ...grpc.CallOption) (*brokerv1.GetBlobResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return nil, fault.New(fault.Unavailable, "down").GRPCStatus().Err()
	}
	b, ok := s.blobs[in.GetKey()]
	if !ok {
		return nil, fault.New(fault.NotFound, "no blob").GRPCStatus().Err()
	}
	return &brokerv1.GetBlobResponse{Sealed: b.GetSealed(), Version: b.GetVersion()}, nil
}

func (s *broker) PutBlob(_ context.Context, in *brokerv1.PutBlobRequest, _ ...grpc.CallOption) (*brokerv1.PutBlobResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return nil, fault.New(fault.Unavailable, "down").GRPCStatus().Err()
	}
	if s.blobs == nil {
		s.blobs = make(map[string]*brokerv1.GetBlobResponse)
	}
	if s.blobs[in.GetKey()].GetVersion() != in.GetExpectedVersion() {
		return nil, fault.New(fault.Conflict, "changed").WithReason("VERSION_MISMATCH").GRPCStatus().Err()
	}
	if in.GetTimeToLive().AsDuration() <= 0 || in.GetTimeToLive().AsDuration() > 30*24*time.Hour || len(in.GetKey()) < 16 || len(in.GetKey()) > 128 {
		return nil, fault.New(fault.Invalid, "bad blob").GRPCStatus().Err()
	}
	s.blobs[in.GetKey()] = &brokerv1.GetBlobResponse{Sealed: in.GetSealed(), Version: in.GetExpectedVersion() + 1}
	return &brokerv1.PutBlobResponse{Version: in.GetExpectedVersion() + 1}, nil
}

func (s *broker) setDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}
