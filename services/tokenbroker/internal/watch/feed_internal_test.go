package watch

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

// A gateway that does not read must cost neither memory nor the others' events.
func TestASlowWatcherIsSentAwayAndTheOthersAreNot(t *testing.T) {
	t.Parallel()
	f := NewFeed(secret.String{}, slog.New(slog.DiscardHandler))
	f.started()
	slow, _, err := f.subscribe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	quick, leave, err := f.subscribe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer leave()
	const events = queueSize + 10
	for i := range int64(events) {
		f.send(message{store.Event{Position: i + 1, SessionID: "s"}})
		if m := <-quick.queue; m.Position != i+1 {
			t.Fatalf("position %d, want %d", m.Position, i+1)
		}
	}
	n := 0
	for m := range slow.queue {
		if n++; m.Position != int64(n) {
			t.Fatalf("position %d, want %d", m.Position, n)
		}
	}
	if n != queueSize || fault.KindOf(slow.err) != fault.Unavailable {
		t.Errorf("the slow watcher got %d events, then %v", n, slow.err)
	}
}

// What is committed before the feed's first look is sent to nobody: a watcher that
// was let in before would hold a session for alive that has ended.
func TestNobodyWatchesBeforeTheFeedKnowsItsPosition(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := NewFeed(secret.String{}, slog.New(slog.DiscardHandler))
		if _, _, err := f.subscribe(t.Context()); fault.KindOf(err) != fault.Unavailable {
			t.Errorf("let in before the first look: %v", err)
		}
		time.AfterFunc(time.Second, f.started)
		if _, _, err := f.subscribe(t.Context()); err != nil {
			t.Errorf("not let in after the first look: %v", err)
		}
		f.restart(fault.New(fault.Precondition, "the log was replaced"))
		if _, _, err := f.subscribe(t.Context()); fault.KindOf(err) != fault.Unavailable {
			t.Errorf("let in before the first look at another log: %v", err)
		}
	})
}

// events is a log without ended sessions before its head.
type events struct {
	head int64
	log  []store.Event
}

func (e events) EndedSessions(context.Context, time.Duration) ([]store.Event, int64, error) {
	return nil, e.head, nil
}

func (e events) EventsAfter(_ context.Context, position int64, _ int) ([]store.Event, int64, error) {
	return e.log[position:], int64(len(e.log)), nil
}

// sent is a stream that keeps what is sent on it.
type sent struct {
	grpc.ServerStream
	ctx      context.Context
	messages chan *brokerv1.WatchSessionsResponse
}

func (s *sent) Context() context.Context { return s.ctx }

func (s *sent) Send(m *brokerv1.WatchSessionsResponse) error {
	s.messages <- m
	return nil
}

func TestAWatcherCatchesUpWithWhatTheFeedLeftOutAndHearsNothingTwice(t *testing.T) {
	t.Parallel()
	log := []store.Event{{Position: 1, SessionID: "a"}, {Position: 2, SessionID: "b"}, {Position: 3, SessionID: "c"}, {Position: 4, SessionID: "d"}}
	f := NewFeed(secret.String{}, slog.New(slog.DiscardHandler))
	f.started()
	ctx, cancel := context.WithCancel(t.Context())
	s := &sent{ctx: ctx, messages: make(chan *brokerv1.WatchSessionsResponse, 10)}
	w := NewWatcher(f, events{1, log[:3]}, func() time.Duration { return time.Hour })
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = w.WatchSessions(&brokerv1.WatchSessionsRequest{}, s) // ends with ctx
	}()
	defer func() { cancel(); <-done }()
	if m := <-s.messages; m.GetSnapshotComplete() == nil {
		t.Fatalf("got %v", m)
	}
	f.send(message{log[0]}, message{log[2]}, message{log[1]}, message{log[3]})
	for _, e := range log[1:] {
		if m := <-s.messages; m.GetPosition() != e.Position || m.GetSessionEnded().GetSessionId() != e.SessionID {
			t.Errorf("got %v, want %+v", m, e)
		}
	}
}
