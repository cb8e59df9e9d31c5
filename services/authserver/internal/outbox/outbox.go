package outbox

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/process"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/authserver/internal/store"
)

const (
	// batch is sent at once, so that a broker that hangs delays others by one call.
	batch       = 8
	callTimeout = 5 * time.Second
	// noteTimeout bounds writing down what became of an end, also while stopping.
	noteTimeout = 3 * time.Second
	// lease is how long the ends of a replica that crashed wait for another one. It
	// is longer than a batch can take.
	lease = 15 * time.Second
	// poll finds what other replicas left, and what became due.
	poll       = time.Second
	firstPause = time.Second
	maxPause   = 15 * time.Second
)

// Store has the ends that are due.
type Store interface {
	ClaimSessionEnds(ctx context.Context, limit int, lease time.Duration) ([]store.SessionEnd, error)
	SessionEndDone(ctx context.Context, sessionID string) error
	RetrySessionEnd(ctx context.Context, sessionID string, after time.Duration) error
}

// Broker ends sessions.
type Broker interface {
	EndSession(ctx context.Context, in *brokerv1.EndSessionRequest, opts ...grpc.CallOption) (*brokerv1.EndSessionResponse, error)
}

// Sender sends ends.
type Sender struct {
	store  Store
	broker Broker
	logger *slog.Logger
	wake   chan struct{}
}

// New returns a sender.
func New(store Store, broker Broker, logger *slog.Logger) *Sender {
	return &Sender{store: store, broker: broker, logger: logger, wake: make(chan struct{}, 1)}
}

// Wake makes Run look at once. It never blocks.
func (s *Sender) Wake() {
	select {
	case s.wake <- struct{}{}:
	default: // it is going to look anyway
	}
}

// Run sends what is due until ctx ends.
func (s *Sender) Run(ctx context.Context) error {
	outage := process.Outage{
		Logger: s.logger,
		Fails:  "the outbox of ended sessions cannot be read or written, they wait until it can",
		Works:  "the outbox of ended sessions can be read and written again",
	}
	for {
		more, err := s.Flush(ctx)
		if ctx.Err() != nil {
			return nil
		}
		outage.Note(ctx, err)
		if more && err == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-time.After(poll):
		}
	}
}

// Flush sends one batch; more says that there may be another one due. What could
// not be sent because ctx ended is due again at once, for another replica.
func (s *Sender) Flush(ctx context.Context) (more bool, err error) {
	ends, err := s.store.ClaimSessionEnds(ctx, batch, lease)
	if err != nil {
		return false, err
	}
	errs := make([]error, len(ends))
	var sending sync.WaitGroup
	for i, end := range ends {
		sending.Go(func() { errs[i] = s.send(ctx, end) })
	}
	sending.Wait()
	return len(ends) == batch, errors.Join(errs...)
}

// send tells the broker of one end and notes how that went. Its error is the
// store's: the lease brings the end back then.
func (s *Sender) send(ctx context.Context, end store.SessionEnd) error {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	in := &brokerv1.EndSessionRequest{SessionId: end.SessionID, Reason: end.Reason}
	if end.Failed.Provider != "" {
		in.FailedLeg = &brokerv1.FailedLeg{Provider: end.Failed.Provider, Reason: end.Failed.Reason}
	}
	_, err := s.broker.EndSession(call, in)
	stopping := ctx.Err() != nil
	ctx, cancelNote := context.WithTimeout(context.WithoutCancel(ctx), noteTimeout)
	defer cancelNote()
	switch {
	case err == nil:
		return s.store.SessionEndDone(ctx, end.SessionID)
	case stopping:
		return s.store.RetrySessionEnd(ctx, end.SessionID, 0)
	}
	pause := pauseAfter(end.Attempts)
	s.logger.WarnContext(ctx, "the broker was not told that a session has ended; trying again",
		slog.String("session_id", end.SessionID), slog.Int("attempt", end.Attempts), slog.Float64("retry_seconds", pause.Seconds()), fault.Attr(err))
	return s.store.RetrySessionEnd(ctx, end.SessionID, pause)
}

// pauseAfter doubles from one second to a quarter of a minute: a session that
// should be over is alive all that time.
func pauseAfter(attempts int) time.Duration {
	return min(firstPause<<min(max(attempts-1, 0), 16), maxPause)
}
