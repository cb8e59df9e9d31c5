package watch

import (
	"context"
	"time"

	"google.golang.org/grpc"

	"chatelaine.dev/internal/fault"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

// leeway is added to the lifetime of access tokens: for clocks that differ.
const leeway = time.Minute

// Log reads the event log.
type Log interface {
	EndedSessions(ctx context.Context, within time.Duration) (ended []store.Event, head int64, err error)
	EventsAfter(ctx context.Context, position int64, limit int) (events []store.Event, head int64, err error)
}

// Stream is what a watch is sent on.
type Stream = grpc.ServerStreamingServer[brokerv1.WatchSessionsResponse]

// Watcher implements CredentialService.WatchSessions.
type Watcher struct {
	feed *Feed
	log  Log
	// lifetime of access tokens, as configured now.
	lifetime func() time.Duration
}

// NewWatcher returns the watcher. lifetime is that of access tokens: an ended
// session matters to a fresh watcher for as long as one of its tokens may live.
func NewWatcher(feed *Feed, log Log, lifetime func() time.Duration) *Watcher {
	return &Watcher{feed: feed, log: log, lifetime: lifetime}
}

// WatchSessions implements CredentialService. A position that cannot be resumed is
// Precondition with reason POSITION_UNKNOWN: the watcher forgets all it has cached
// and starts at 0.
func (w *Watcher) WatchSessions(req *brokerv1.WatchSessionsRequest, stream Stream) error {
	q, leave, err := w.feed.subscribe(stream.Context()) // before the snapshot: nothing falls in between
	if err != nil {
		return err
	}
	defer leave()
	seen, err := w.catchUp(req.GetAfterPosition(), stream)
	if err != nil {
		return err
	}
	if err := stream.Send(&brokerv1.WatchSessionsResponse{
		Position: seen,
		Event:    &brokerv1.WatchSessionsResponse_SnapshotComplete{SnapshotComplete: &brokerv1.SnapshotComplete{}},
	}); err != nil {
		return err
	}
	for {
		select {
		case <-stream.Context().Done():
			return fault.From(stream.Context().Err())
		case m, open := <-q.queue:
			switch {
			case !open:
				return q.err
			case m.heartbeat():
				err = stream.Send(&brokerv1.WatchSessionsResponse{
					Position: seen,
					Event:    &brokerv1.WatchSessionsResponse_Heartbeat{Heartbeat: &brokerv1.Heartbeat{}},
				})
			case m.Position > seen+1: // positions have no gaps: something was missed
				seen, err = w.resume(seen, stream)
			case m.Position > seen:
				seen = m.Position
				err = stream.Send(response(m.Event))
			}
			if err != nil {
				return err
			}
		}
	}
}

// catchUp sends what the watcher must know before it follows, and returns the
// position up to which it now knows everything.
func (w *Watcher) catchUp(after int64, stream Stream) (seen int64, err error) {
	ctx := stream.Context()
	if after == 0 {
		ended, head, err := w.log.EndedSessions(ctx, w.lifetime()+leeway)
		if err != nil {
			return 0, err
		}
		return head, sendAll(stream, ended)
	}
	return w.resume(after, stream)
}

// resume sends all events after a position, and returns the last one's.
func (w *Watcher) resume(after int64, stream Stream) (seen int64, err error) {
	for {
		events, head, err := w.log.EventsAfter(stream.Context(), after, readLimit)
		if err != nil {
			return 0, err
		}
		if err := sendAll(stream, events); err != nil {
			return 0, err
		}
		if len(events) < readLimit {
			return head, nil
		}
		after = events[len(events)-1].Position
	}
}

func sendAll(stream Stream, events []store.Event) error {
	for _, e := range events {
		if err := stream.Send(response(e)); err != nil {
			return err
		}
	}
	return nil
}

func response(e store.Event) *brokerv1.WatchSessionsResponse {
	r := &brokerv1.WatchSessionsResponse{Position: e.Position}
	switch {
	case e.SessionID != "":
		r.Event = &brokerv1.WatchSessionsResponse_SessionEnded{SessionEnded: &brokerv1.SessionEnded{SessionId: e.SessionID}}
	case e.ChangedSessionID != "":
		r.Event = &brokerv1.WatchSessionsResponse_SessionChanged{SessionChanged: &brokerv1.SessionChanged{SessionId: e.ChangedSessionID}}
	default:
		r.Event = &brokerv1.WatchSessionsResponse_ConnectionChanged{ConnectionChanged: &brokerv1.ConnectionChanged{ConnectionId: e.ConnectionID}}
	}
	return r
}
