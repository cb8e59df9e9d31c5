package blobs

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

// Store keeps blobs.
type Store interface {
	Blob(ctx context.Context, key string) (store.Blob, error)
	PutBlob(ctx context.Context, key string, sealed []byte, expected int64, ttl time.Duration) (version int64, err error)
	DeleteBlob(ctx context.Context, key string) error
}

// Service implements broker.v1.McpSessionService.
type Service struct {
	brokerv1.UnimplementedMcpSessionServiceServer
	store Store
}

// New returns the service.
func New(store Store) *Service { return &Service{store: store} }

// GetBlob implements McpSessionService.
func (s *Service) GetBlob(ctx context.Context, req *brokerv1.GetBlobRequest) (*brokerv1.GetBlobResponse, error) {
	b, err := s.store.Blob(ctx, req.GetKey())
	if err != nil {
		return nil, err
	}
	return &brokerv1.GetBlobResponse{Sealed: b.Sealed, Version: b.Version, ExpiresAt: timestamppb.New(b.ExpiresAt)}, nil
}

// PutBlob implements McpSessionService.
func (s *Service) PutBlob(ctx context.Context, req *brokerv1.PutBlobRequest) (*brokerv1.PutBlobResponse, error) {
	version, err := s.store.PutBlob(ctx, req.GetKey(), req.GetSealed(), req.GetExpectedVersion(), req.GetTimeToLive().AsDuration())
	if err != nil {
		return nil, err
	}
	return &brokerv1.PutBlobResponse{Version: version}, nil
}

// DeleteBlob implements McpSessionService.
func (s *Service) DeleteBlob(ctx context.Context, req *brokerv1.DeleteBlobRequest) (*brokerv1.DeleteBlobResponse, error) {
	if err := s.store.DeleteBlob(ctx, req.GetKey()); err != nil {
		return nil, err
	}
	return &brokerv1.DeleteBlobResponse{}, nil
}
