package credentials

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"chatelaine.dev/internal/fault"
	brokerv1 "chatelaine.dev/proto/broker/v1"
)

const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = time.Second
	// maxChanged bounds the connections whose last change is remembered.
	maxChanged = 4096
)

// watchState is what requests ask about the watch.
type watchState struct {
	// heard is when the last message came while the watch was complete, in
	// nanoseconds since 1970; 0 while it is not.
	heard atomic.Int64
	// position of the newest event that counts; only Run touches it.
	position int64
}

// fresh reports whether the cache may be trusted without asking.
func (m *Manager) fresh(now time.Time) bool {
	if !m.cfg.Sessions {
		return true
	}
	heard := m.watch.heard.Load()
	return heard != 0 && now.UnixNano()-heard < int64(m.cfg.MaxUnwatched) && !m.sessions.overflowing()
}

// Fresh reports whether the watch is alive, so that cached credentials need not
// be confirmed.
func (m *Manager) Fresh() bool { return m.fresh(time.Now()) }

// eventLog remembers what was heard, for answers that are still under way.
type eventLog struct {
	mu sync.RWMutex
	// changed has, by connection, the position of its newest change. Answers that
	// have observed less than floor are void, whatever connection they are about.
	changed map[string]int64
	floor   int64
}

func (l *eventLog) add(connection string, position int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changed == nil || len(l.changed) >= maxChanged {
		for _, p := range l.changed {
			l.floor = max(l.floor, p)
		}
		l.changed = make(map[string]int64)
	}
	l.changed[connection] = max(l.changed[connection], position)
}

// void reports whether an answer about a connection was overtaken. One that is
// about none can only be overtaken by the end of its session, which is asked
// for elsewhere.
func (l *eventLog) void(connection string, observed int64) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return connection != "" && (observed < l.floor || observed < l.changed[connection])
}

func (l *eventLog) reset(floor int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.floor, l.changed = floor, nil
}

// Run watches until ctx ends. Without sessions there is nothing to watch.
func (m *Manager) Run(ctx context.Context) error {
	if !m.cfg.Sessions {
		<-ctx.Done()
		return nil
	}
	backoff := minBackoff
	down := false
	for ctx.Err() == nil {
		began := m.watch.heard.Load()
		err := m.watchOnce(ctx, &down)
		if ctx.Err() != nil {
			break
		}
		if m.watch.heard.Load() != began { // it worked for a while
			backoff = minBackoff
		}
		if !down {
			down = true
			m.cfg.Telemetry.Logger.WarnContext(ctx, "the watch of sessions is broken, cached credentials will be confirmed", fault.Attr(err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(backoff + rand.N(backoff)):
		}
		backoff = min(2*backoff, maxBackoff)
	}
	return nil
}

// errSilent ends a stream that no message came on for too long.
var errSilent = errors.New("no message on the watch of sessions")

// watchOnce follows one stream to its end.
func (m *Manager) watchOnce(ctx context.Context, down *bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// A stream that has gone silent is given up for a new one: perhaps another
	// replica is there.
	patience := 2*m.cfg.MaxUnwatched + callPatience
	silence := time.AfterFunc(patience, func() { cancel(errSilent) })
	defer silence.Stop()

	after := m.watch.position
	stream, err := m.cfg.Broker.WatchSessions(ctx, &brokerv1.WatchSessionsRequest{AfterPosition: after})
	if err != nil {
		return err
	}
	complete := false
	for {
		msg, err := stream.Recv()
		if err != nil {
			m.lost(err)
			return ended(ctx, err)
		}
		silence.Reset(patience)
		m.apply(msg)
		if !complete {
			if msg.GetSnapshotComplete() == nil {
				continue // positions within the snapshot are not in order
			}
			complete = true
			m.synchronised(after, msg.GetPosition())
			if *down {
				*down = false
				m.cfg.Telemetry.Logger.InfoContext(ctx, "the watch of sessions works again", slog.Int64("position", msg.GetPosition()))
			}
		}
		m.watch.position = max(m.watch.position, msg.GetPosition())
		m.watch.heard.Store(time.Now().UnixNano())
	}
}

// callPatience is the time that a stream gets to start.
const callPatience = 4 * time.Second

func ended(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if errors.Is(err, io.EOF) {
		return errors.New("the broker ended the watch of sessions")
	}
	return err
}

// apply does what an event says: first it is remembered, for answers under way,
// then the cache forgets. See Manager.ask, which looks in the other order.
func (m *Manager) apply(msg *brokerv1.WatchSessionsResponse) {
	switch ev := msg.GetEvent().(type) {
	case *brokerv1.WatchSessionsResponse_SessionEnded:
		id := ev.SessionEnded.GetSessionId()
		m.sessions.end(id, time.Now())
		m.cache.dropCaller("s:" + id)
	case *brokerv1.WatchSessionsResponse_ConnectionChanged:
		id := ev.ConnectionChanged.GetConnectionId()
		m.events.add(id, msg.GetPosition())
		m.cache.dropConnection(id)
	}
}

// synchronised is called when a stream has told all that we missed. Which
// connections changed is told only to those who resume: after a fresh start, or
// when the broker's positions have gone back (another database), everything
// that has not observed the snapshot is void.
func (m *Manager) synchronised(after, position int64) {
	if after > 0 && position >= after {
		return
	}
	m.watch.position = position
	m.events.reset(position)
	if position < after {
		m.cache.clear()
		return
	}
	m.cache.dropBefore(position)
}

// lost looks at why a stream broke: a position that the broker does not take is
// given up, and with it all that is cached.
func (m *Manager) lost(err error) {
	switch fault.KindOf(err) {
	case fault.Invalid, fault.Precondition, fault.NotFound:
		m.watch.position = 0
		m.watch.heard.Store(0)
		m.cache.clear()
	}
}
