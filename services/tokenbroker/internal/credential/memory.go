package credential

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"

	"chatelaine.dev/internal/process"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/tokenbroker/internal/exchange"
	"chatelaine.dev/services/tokenbroker/internal/refresh"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

const (
	// sessionFreshFor makes sure that use is noted, and bounds what a replica of the
	// version before does not tell: that it locked a user.
	sessionFreshFor = 5 * time.Second
	// tokenFreshFor makes sure that use is noted and a renewal that is due is not
	// put off for long.
	tokenFreshFor = 30 * time.Second
	// expiryMargin is how long before its end a token is no longer handed out.
	expiryMargin = 10 * time.Second
	// maxSilence is how long no heartbeat may be heard; they come each second.
	maxSilence = 2 * time.Second
	// defaultMemorySize is in sessions, and in tokens.
	defaultMemorySize = 20_000

	rewatchAfter = 250 * time.Millisecond
)

// Sessions reads sessions.
type Sessions interface {
	// ActiveSession returns a session that may be used now; see package store.
	ActiveSession(ctx context.Context, id string) (store.ActiveSession, error)
}

// Tokens opens what sessions have at providers; see package refresh.
type Tokens interface {
	Token(ctx context.Context, sessionID, provider string) (refresh.Token, error)
	Renew(ctx context.Context, connectionID string, version int64) (renewed bool, err error)
}

// Watch follows the events of sessions and connections: WatchSessions of package watch.
type Watch func(*brokerv1.WatchSessionsRequest, grpc.ServerStreamingServer[brokerv1.WatchSessionsResponse]) error

// MemoryConfig makes a Memory. Sessions, Tokens and Watch are required.
type MemoryConfig struct {
	Sessions Sessions
	Tokens   Tokens
	Watch    Watch
	// Size is how many sessions, and how many tokens, are kept; zero means
	// 20,000, negative none: every call reads the database.
	Size   int
	Logger *slog.Logger
	// Now is time.Now, or a test's.
	Now func() time.Time
}

// Memory remembers sessions and tokens that were opened lately. Every entry
// carries the position of the newest event that it has taken into account, and
// is void when a later event about its session or connection was heard, however
// the two came to cross. While no events are heard nothing is served from it.
type Memory struct {
	cfg       MemoryConfig
	exchanged *exchange.Cache

	mu       sync.RWMutex
	heard    time.Time // the last message; zero: none since the watch began
	floor    int64     // where the watch began: earlier events may have been missed
	head     int64     // position of the newest event that was heard
	sessions map[string]remembered[store.ActiveSession]
	tokens   map[tokenKey]remembered[refresh.Token]
	events   map[string]heardEvent // by session or connection
}

// tokenKey has the realm too: a provider's name may come to mean another one.
type tokenKey struct{ session, provider, realm string }

type remembered[T any] struct {
	value    T
	position int64
	at       time.Time
}

type heardEvent struct {
	position int64
	at       time.Time
}

// NewMemory returns an empty memory; Run makes it useful. It also makes the
// exchanges of plans forget what events void.
func NewMemory(cfg MemoryConfig, plans *Plans) *Memory {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Size == 0 {
		cfg.Size = defaultMemorySize
	}
	m := &Memory{cfg: cfg, exchanged: plans.exchanged}
	m.clear()
	return m
}

func (m *Memory) clear() {
	m.heard, m.floor, m.head = time.Time{}, 0, 0
	m.sessions = map[string]remembered[store.ActiveSession]{}
	m.tokens = map[tokenKey]remembered[refresh.Token]{}
	m.events = map[string]heardEvent{}
}

// session returns an active session and the position that the answer has taken
// into account.
func (m *Memory) session(ctx context.Context, id string) (store.ActiveSession, int64, error) {
	now := m.cfg.Now()
	m.mu.RLock()
	e, ok := m.sessions[id]
	position, usable := m.usable(e.position, e.at, now, sessionFreshFor, id)
	m.mu.RUnlock()
	if ok && usable && now.Before(e.value.ExpiresAt) {
		return e.value, position, nil
	}
	s, err := m.cfg.Sessions.ActiveSession(ctx, id)
	if err != nil {
		return store.ActiveSession{}, 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.sessions) < m.cfg.Size {
		m.sessions[id] = remembered[store.ActiveSession]{s, s.Position, now}
	}
	return s, s.Position, nil
}

// token returns what a session may use at a provider, and the position that the
// answer has taken into account for the session and the connection.
func (m *Memory) token(ctx context.Context, k tokenKey) (refresh.Token, int64, error) {
	now := m.cfg.Now()
	m.mu.RLock()
	e, ok := m.tokens[k]
	position, usable := m.usable(e.position, e.at, now, tokenFreshFor, k.session, e.value.ConnectionID)
	m.mu.RUnlock()
	if ok && usable && (e.value.ExpiresAt.IsZero() || now.Before(e.value.ExpiresAt.Add(-expiryMargin))) {
		return e.value, position, nil
	}
	t, err := m.cfg.Tokens.Token(ctx, k.session, k.provider)
	if err != nil {
		return refresh.Token{}, 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.tokens) < m.cfg.Size && t.Realm == k.realm {
		m.tokens[k] = remembered[refresh.Token]{t, t.ObservedPosition, now}
	}
	return t, t.ObservedPosition, nil
}

// usable reports whether an entry still holds, and up to which event; m.mu is held.
func (m *Memory) usable(position int64, at, now time.Time, freshFor time.Duration, ids ...string) (int64, bool) {
	if position < m.floor || now.Sub(at) >= freshFor || m.heard.IsZero() || now.Sub(m.heard) >= maxSilence {
		return 0, false
	}
	for _, id := range ids {
		if m.events[id].position > position {
			return 0, false
		}
	}
	return max(position, m.head), true
}

// forget drops what a session has at a provider, because it is known to change.
func (m *Memory) forget(k tokenKey) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.tokens, k)
}

// Run listens to events until ctx ends.
func (m *Memory) Run(ctx context.Context) error {
	if m.cfg.Size < 0 {
		<-ctx.Done()
		return nil
	}
	outage := process.Outage{
		Logger: m.cfg.Logger, Fails: "credentials are read from the database: no events are heard", Works: "events are heard again: credentials are remembered",
	}
	hear := func(msg *brokerv1.WatchSessionsResponse) {
		m.hear(msg)
		if msg.GetSnapshotComplete() != nil {
			outage.Note(ctx, nil)
		}
	}
	for ctx.Err() == nil {
		err := m.cfg.Watch(&brokerv1.WatchSessionsRequest{}, &ear{ctx: ctx, hear: hear})
		m.mu.Lock()
		m.clear() // events may be missed from here on
		m.mu.Unlock()
		if ctx.Err() != nil {
			break
		}
		outage.Note(ctx, cmp.Or(err, errWatchEnded))
		timer := time.NewTimer(rewatchAfter)
		select {
		case <-ctx.Done():
			timer.Stop()
		case <-timer.C:
		}
	}
	return nil
}

var errWatchEnded = errors.New("the watch has ended")

// hear takes one message of the watch.
func (m *Memory) hear(msg *brokerv1.WatchSessionsResponse) {
	session := cmp.Or(msg.GetSessionEnded().GetSessionId(), msg.GetSessionChanged().GetSessionId())
	connection := msg.GetConnectionChanged().GetConnectionId()
	switch { // before the entry is void: what is exchanged next is of the new tokens
	case session != "":
		m.exchanged.Forget(exchange.SessionKey(session), msg.GetPosition())
	case connection != "":
		m.exchanged.Forget(exchange.ConnectionKey(connection), msg.GetPosition())
	}
	now := m.cfg.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.head = max(m.head, msg.GetPosition())
	switch {
	case session != "":
		m.events[session] = heardEvent{msg.GetPosition(), now}
	case connection != "":
		m.events[connection] = heardEvent{msg.GetPosition(), now}
	case msg.GetSnapshotComplete() != nil:
		m.heard, m.floor = now, msg.GetPosition()
	case msg.GetHeartbeat() != nil:
		m.heard = now
		m.sweep(now)
	}
}

// sweep drops what is too old to be used; m.mu is held. An event is kept for as
// long as an entry that it voids could be.
func (m *Memory) sweep(now time.Time) {
	for k, e := range m.sessions {
		if now.Sub(e.at) >= sessionFreshFor {
			delete(m.sessions, k)
		}
	}
	for k, e := range m.tokens {
		if now.Sub(e.at) >= tokenFreshFor {
			delete(m.tokens, k)
		}
	}
	for k, e := range m.events {
		if now.Sub(e.at) >= 2*tokenFreshFor {
			delete(m.events, k)
		}
	}
}

// ear is the watch's stream within the process.
type ear struct {
	grpc.ServerStream // nil: a watch only sends
	ctx               context.Context
	hear              func(*brokerv1.WatchSessionsResponse)
}

// Context implements grpc.ServerStream.
func (e *ear) Context() context.Context { return e.ctx }

// Send implements grpc.ServerStreamingServer.
func (e *ear) Send(msg *brokerv1.WatchSessionsResponse) error {
	e.hear(msg)
	return nil
}
