package outbox_test

import (
	"context"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/pgtest"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/authserver/internal/outbox"
	"chatelaine.dev/services/authserver/internal/store"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// deafBroker fails a number of times before it hears.
type deafBroker struct {
	mu       sync.Mutex
	failures int
	heard    []string
	at       []time.Time
}

func (b *deafBroker) EndSession(_ context.Context, in *brokerv1.EndSessionRequest, _ ...grpc.CallOption) (*brokerv1.EndSessionResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at = append(b.at, time.Now())
	if b.failures > 0 {
		b.failures--
		return nil, fault.New(fault.Unavailable, "down")
	}
	b.heard = append(b.heard, in.GetSessionId())
	return &brokerv1.EndSessionResponse{}, nil
}

// memory is an outbox with one row, on the test's clock.
type memory struct {
	left     bool
	attempts int
	due      time.Time
}

func (m *memory) ClaimSessionEnds(_ context.Context, _ int, lease time.Duration) ([]store.SessionEnd, error) {
	if !m.left || time.Now().Before(m.due) {
		return nil, nil
	}
	m.attempts++
	m.due = time.Now().Add(lease)
	return []store.SessionEnd{{SessionID: "s", Reason: brokerv1.SessionEndReason_SESSION_END_REASON_OPERATOR, Attempts: m.attempts}}, nil
}

func (m *memory) SessionEndDone(context.Context, string) error {
	m.left = false
	return nil
}

func (m *memory) RetrySessionEnd(_ context.Context, _ string, after time.Duration) error {
	m.due = time.Now().Add(after)
	return nil
}

func TestTheBrokerIsToldUntilItHasHeard(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		box, broker := &memory{left: true}, &deafBroker{failures: 12}
		s := outbox.New(box, broker, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		time.Sleep(time.Hour)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if len(broker.heard) != 1 || box.left {
			t.Fatalf("heard %v, left %v", broker.heard, box.left)
		}
		for i := 1; i < len(broker.at); i++ {
			pause := broker.at[i].Sub(broker.at[i-1])
			want := min(time.Second<<(i-1), 15*time.Second)
			if pause < want || pause > want+time.Second { // the outbox is looked at each second
				t.Errorf("pause %d is %v, want %v", i, pause, want)
			}
		}
	})
}

func TestAWakeIsFasterThanThePoll(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		box, broker := &memory{}, &deafBroker{}
		s := outbox.New(box, broker, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.Run(ctx) }()
		synctest.Wait()
		box.left = true
		s.Wake()
		s.Wake() // never blocks
		synctest.Wait()
		if len(broker.heard) != 1 {
			t.Error("the wake was not heard")
		}
		cancel()
		<-done
	})
}

// hangingBroker answers nothing before its caller gives up.
type hangingBroker struct{ called chan struct{} }

func (b hangingBroker) EndSession(ctx context.Context, _ *brokerv1.EndSessionRequest, _ ...grpc.CallOption) (*brokerv1.EndSessionResponse, error) {
	b.called <- struct{}{}
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestAStopLeavesNothingForLater(t *testing.T) {
	t.Parallel()
	db := store.New(pgtest.New(t, store.Migrations()))
	const ends = 5
	for i := range ends {
		if err := db.QueueSessionEnd(t.Context(), strconv.Itoa(i), brokerv1.SessionEndReason_SESSION_END_REASON_CLIENT_REVOKED); err != nil {
			t.Fatal(err)
		}
	}
	broker := hangingBroker{called: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- outbox.New(db, broker, slog.New(slog.DiscardHandler)).Run(ctx) }()
	for range ends { // all of them are under way at once
		<-broker.called
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	other := &deafBroker{}
	if _, err := outbox.New(db, other, slog.New(slog.DiscardHandler)).Flush(t.Context()); err != nil {
		t.Fatal(fault.Detail(err))
	}
	if len(other.heard) != ends {
		t.Errorf("another replica sends %d of %d ends right after the stop", len(other.heard), ends)
	}
}

// crashed is an outbox whose replica is gone after it has claimed.
type crashed struct {
	memory
	lease time.Duration
}

func (c *crashed) ClaimSessionEnds(ctx context.Context, limit int, lease time.Duration) ([]store.SessionEnd, error) {
	c.lease = lease
	return c.memory.ClaimSessionEnds(ctx, limit, lease)
}

func (c *crashed) SessionEndDone(context.Context, string) error {
	return fault.New(fault.Unavailable, "the database is away")
}

func TestACrashDelaysAnEndByLessThanHalfAMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		box, broker := &crashed{memory: memory{left: true}}, &deafBroker{}
		s := outbox.New(box, broker, slog.New(slog.DiscardHandler))
		if _, err := s.Flush(t.Context()); err == nil {
			t.Error("an end that could not be noted is reported as sent")
		}
		if box.lease > 20*time.Second || box.lease < 10*time.Second {
			t.Errorf("claimed for %v", box.lease)
		}
		time.Sleep(20 * time.Second)
		_, _ = s.Flush(t.Context())
		if len(broker.heard) != 2 {
			t.Errorf("told %d times, want again after the lease", len(broker.heard))
		}
	})
}

func TestAStolenSessionEndsBeforeLoginsThatWereGivenUp(t *testing.T) {
	t.Parallel()
	db := store.New(pgtest.New(t, store.Migrations()))
	chainFailed, reused := brokerv1.SessionEndReason_SESSION_END_REASON_CHAIN_FAILED, brokerv1.SessionEndReason_SESSION_END_REASON_REFRESH_TOKEN_REUSED
	for i := range 20 {
		if err := db.QueueSessionEnd(t.Context(), strconv.Itoa(i), chainFailed); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.QueueSessionEnd(t.Context(), "stolen", reused); err != nil {
		t.Fatal(err)
	}
	broker := &deafBroker{}
	more, err := outbox.New(db, broker, slog.New(slog.DiscardHandler)).Flush(t.Context())
	if err != nil || !more {
		t.Fatalf("more %v, %v", more, err)
	}
	if !slices.Contains(broker.heard, "stolen") {
		t.Errorf("the stolen session waits behind logins that were given up: %v", broker.heard)
	}
}

func TestReplicasShareTheOutboxOfARealDatabase(t *testing.T) {
	t.Parallel()
	db := store.New(pgtest.New(t, store.Migrations()))
	const ends = 120 // many batches
	for i := range ends {
		if err := db.QueueSessionEnd(t.Context(), strconv.Itoa(i), brokerv1.SessionEndReason_SESSION_END_REASON_EXPIRED); err != nil {
			t.Fatal(err)
		}
	}
	brokers := []*deafBroker{{}, {}}
	done := make(chan error)
	for _, b := range brokers {
		go func() {
			s := outbox.New(db, b, slog.New(slog.DiscardHandler))
			for {
				more, err := s.Flush(t.Context())
				if err != nil || !more {
					done <- err
					return
				}
			}
		}()
	}
	for range brokers {
		if err := <-done; err != nil {
			t.Error(fault.Detail(err))
		}
	}
	if n := len(brokers[0].heard) + len(brokers[1].heard); n != ends {
		t.Errorf("%d calls for %d sessions", n, ends)
	}
	left, err := db.ClaimSessionEnds(t.Context(), 10, time.Second)
	if err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}
