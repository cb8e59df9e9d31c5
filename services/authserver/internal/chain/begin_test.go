package chain_test

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"chatelaine.dev/internal/fault"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/authserver/internal/chain"
	"chatelaine.dev/services/authserver/internal/store"
)

// stuck is a store that lost the request to another click and then does not answer,
// and a broker that has begun a session for it.
type stuck struct {
	chain.Requests // the rest is not called
	chain.Ends
	chain.Broker
}

func (stuck) Request(context.Context, string, []byte) (*store.AuthorizationRequest, error) {
	return &store.AuthorizationRequest{ID: "r", ClientID: "c", Phase: store.PhaseConsent}, nil
}

func (stuck) ApproveRequest(context.Context, string, []byte, string) (*store.AuthorizationRequest, error) {
	return nil, fault.New(fault.Unavailable, "the database is not available")
}

func (stuck) Client(context.Context, string) (*store.Client, error) {
	return &store.Client{ID: "c"}, nil
}

func (stuck) BeginSession(context.Context, *brokerv1.BeginSessionRequest, ...grpc.CallOption) (*brokerv1.BeginSessionResponse, error) {
	return &brokerv1.BeginSessionResponse{SessionId: "s"}, nil
}

func (stuck) QueueChainEnd(ctx context.Context, _ string, _ store.FailedLeg) error {
	<-ctx.Done()
	return fault.Wrap(fault.Unavailable, ctx.Err(), "the database is not available")
}

// The session of a consent that came too late is ended for a browser that may be
// gone; a database that hangs must not keep that browser, or the stop, waiting.
func TestAConsentIsAnsweredAlthoughTheDatabaseHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := chain.New(chain.Config{Broker: stuck{}, Requests: stuck{}, Ends: stuck{}, Wake: func() {}, Logger: slog.New(slog.DiscardHandler)})
		done := make(chan error, 1)
		go func() {
			_, err := c.Approve(context.Background(), "r", nil)
			done <- err
		}()
		select {
		case err := <-done:
			if fault.KindOf(err) != fault.Unavailable {
				t.Errorf("Approve: %v", err)
			}
		case <-time.After(time.Minute):
			t.Fatal("it waits for the database without end")
		}
	})
}
