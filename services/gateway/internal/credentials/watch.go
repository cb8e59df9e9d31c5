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
	// maxBackoff is short beside MaxUnwatched: a broker that is back must be heard before
	// requests under way are given up. An attempt costs nothing while it is away.
	maxBackoff = 250 * time.Millisecond
	// maxChanged bounds the connections whose last change is remembered.
	maxChanged = 4096
)

// watchState is what requests ask about the watch.
type watchState struct {
	// heard is when the last message came while the watch was complete; nil while
	// it is not. It keeps its monotonic reading: a clock that is set back must not
	// make the cache look fresher than it is.
	heard atomic.Pointer[time.Time]
	// position of the newest event that counts; only Run touches it.
	position int64
}

// fresh reports whether the cache may be trusted without asking.
func (m *Manager) fresh(now time.Time) bool {
	if !m.cfg.Sessions {
		return true
	}
	heard := m.watch.heard.Load()
	return heard != nil && now.Sub(*heard) < m.cfg.MaxUnwatched && !m.sessions.overflowing()
}

// Fresh reports whether the watch is alive, so that cached credentials need not
// be confirmed.
func (m *Manager) Fresh() bool { return m.fresh(time.Now()) }

// subject is what an event is about: a connection, or a session.
type subject struct {
	session bool
	id      string
}

// eventLog remembers what was heard, for answers that are still under way.
type eventLog struct {
	mu sync.RWMutex
	// changed has, by subject, the position of its newest change. Answers that
	// have observed less than floor are void, whatever they are about.
	changed map[subject]int64
	floor   int64
}

func (l *eventLog) add(what subject, position int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changed == nil || len(l.changed) >= maxChanged {
		for _, p := range l.changed {
			l.floor = max(l.floor, p)
		}
		l.changed = make(map[subject]int64)
	}
	l.changed[what] = max(l.changed[what], position)
}

// void reports whether an answer was overtaken by an event. One that is about
// nobody's session cannot be.
func (l *eventLog) void(c *Credential) bool {
	if c.SessionID == "" && c.ConnectionID == "" {
		return false
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	return c.ObservedPosition < max(l.floor, l.changed[subject{false, c.ConnectionID}], l.changed[subject{true, c.SessionID}])
}

func (l *eventLog) reset(floor int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.floor, l.changed = floor, nil
}

// Run watches until ctx ends. Without sessions there is nothing to watch.
func (m *Manager) Run(ctx context.Context) error {
	observed, err := m.observe(m.meter())
	if err != nil {
		return err
	}
	defer func() { _ = observed.Unregister() }() // another manager may follow
	if !m.cfg.Sessions {
		<-ctx.Done()
		return nil
	}
	var guard sync.WaitGroup
	guard.Go(func() { m.guard(ctx) })
	defer guard.Wait()
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

// guardEvery is how often guard looks, at the most.
const guardEvery = 500 * time.Millisecond

// guard closes the streams of sessions of which nobody could say any more that
// they ended: those that were attached before the watch was lost, and later ones
// when they are as old as the watch may be silent. Clients come back, and are
// confirmed by Get.
func (m *Manager) guard(ctx context.Context) {
	ticker := time.NewTicker(min(guardEvery, m.cfg.MaxUnwatched/4))
	defer ticker.Stop()
	var lost time.Time // zero while the watch is alive
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := time.Now()
		if m.fresh(now) {
			lost = time.Time{}
			continue
		}
		before := now.Add(-m.cfg.MaxUnwatched)
		if lost.IsZero() {
			lost = now
		}
		if lost.After(before) {
			before = lost
		}
		if n := m.sessions.closeBefore(before, errUnwatched()); n > 0 {
			m.cfg.Telemetry.Logger.WarnContext(ctx, "streams are closed, because nobody says whether their sessions have ended", slog.Int("streams", n))
		}
	}
}

func errUnwatched() error {
	return fault.New(fault.Unavailable, "the session cannot be confirmed at the moment; connect again").WithReason(ReasonBrokerUnavailable)
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
		now := time.Now()
		m.watch.heard.Store(&now)
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
		m.events.add(subject{id: id}, msg.GetPosition())
		m.cache.dropConnection(id)
	case *brokerv1.WatchSessionsResponse_SessionChanged:
		id := ev.SessionChanged.GetSessionId()
		m.events.add(subject{session: true, id: id}, msg.GetPosition())
		m.cache.dropCaller("s:" + id)
	}
}

// synchronised is called when a stream has told all that we missed. What changed
// is told only to those who resume: after a fresh start, or
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
		m.watch.heard.Store(nil)
		m.cache.clear()
	}
}
