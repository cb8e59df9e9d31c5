package aggregate

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/gateway/internal/aggregate/lru"
	"chatelaine.dev/services/gateway/internal/aggregate/mcpclient"
	"chatelaine.dev/services/gateway/internal/caller"
	"chatelaine.dev/services/gateway/internal/sessionid"
)

const (
	// sessionCost is what an opened session takes beside its id, about.
	sessionCost = 4 << 10
	// saveAttempts is how often a join is written when replicas join at once.
	saveAttempts = 5
)

// sessions opens, makes and ends the sessions of clients.
type sessions struct {
	sealer  *sessionid.Sealer
	store   *store
	client  *mcpclient.Client
	opened  *lru.Cache[*session]
	logger  *slog.Logger
	now     func() time.Time
	timeout time.Duration // of a handshake
}

// create makes the session of a client whose backends have just been initialised.
func (m *sessions) create(ctx context.Context, who *caller.Caller, s *session) (id string, err error) {
	id, err = m.seal(who, s)
	if fault.ReasonOf(err) == sessionid.ReasonTooLarge {
		s.inBlob = true
		state, saveErr := m.store.save(ctx, s, &sessionState{joined: s.base})
		if saveErr != nil {
			return "", saveErr
		}
		s.state.Store(state)
		id, err = m.seal(who, s)
	}
	if err != nil {
		return "", err
	}
	s.checkedAt.Store(m.now().UnixNano())
	m.opened.Put(id, s, len(id)+sessionCost)
	return id, nil
}

// open returns the session of an id. With fresh, it asks whether the session was
// ended, on whatever replica; otherwise it is content with what it learned
// within the last half minute. When the store cannot be asked, a session that
// its id describes is taken to be alive: the caller's token was checked, and
// ending a session is good housekeeping, not a revocation.
func (m *sessions) open(ctx context.Context, who *caller.Caller, id string, fresh bool) (*session, error) {
	s, ok := m.opened.Get(id)
	if !ok {
		var err error
		if s, err = m.unseal(who, id); err != nil {
			return nil, err
		}
		s, _ = m.opened.GetOrPut(id, s, len(id)+sessionCost)
	}
	now := m.now()
	if s.owner != who.Key || now.Sub(s.sealed.CreatedAt) > maxSessionAge {
		return nil, errSessionUnknown()
	}
	if fresh || now.Sub(time.Unix(0, s.checkedAt.Load())) > recheck {
		if err := m.refresh(ctx, s); err != nil {
			return nil, err
		}
	}
	if s.state.Load().ended {
		return nil, errSessionUnknown()
	}
	return s, nil
}

// refresh reads what other replicas know of a session.
func (m *sessions) refresh(ctx context.Context, s *session) error {
	asked := m.now().UnixNano()
	state, err := m.store.load(ctx, s)
	if err != nil {
		if s.inBlob && s.state.Load().revision == 0 {
			return fault.Wrap(fault.Unavailable, err, "the session cannot be read at the moment")
		}
		m.logger.WarnContext(ctx, "session store cannot be asked", fault.Attr(err))
		return nil
	}
	if s.inBlob && state.revision == 0 { // the blob was the session, and it is gone
		return errSessionUnknown()
	}
	m.adopt(s, state)
	s.checkedAt.Store(asked)
	return nil
}

// adopt takes over a stored state unless a newer one is known.
func (m *sessions) adopt(s *session, state *sessionState) {
	for {
		old := s.state.Load()
		if old.ended || old.revision > state.revision {
			return
		}
		if state.revision == 0 && len(old.joined) > 0 { // joined while the store was down
			return
		}
		if s.state.CompareAndSwap(old, state) {
			return
		}
	}
}

// end ends a session: first on record, so that no replica opens it again, then
// at the backends.
func (m *sessions) end(ctx context.Context, who *caller.Caller, s *session, backends func(string) (*config.Backend, bool)) error {
	peers := s.peers()
	for attempt := 1; ; attempt++ {
		state, err := m.store.load(ctx, s)
		if err == nil {
			maps.Copy(peers, state.joined)
			_, err = m.store.save(ctx, s, &sessionState{revision: state.revision, ended: true})
		}
		if err == nil {
			break
		}
		if fault.KindOf(err) != fault.Conflict || attempt == saveAttempts {
			return fault.Wrap(fault.Unavailable, err, "the session cannot be ended at the moment")
		}
	}
	s.state.Store(&sessionState{ended: true})
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	var wg sync.WaitGroup
	for name, p := range peers {
		if b, ok := backends(name); ok {
			wg.Go(func() { m.endPeer(ctx, mcpclient.Target{Caller: who, Backend: b}, p) })
		}
	}
	wg.Wait()
	return nil
}

func (m *sessions) endPeer(ctx context.Context, to mcpclient.Target, p *mcpclient.Peer) {
	if err := m.client.End(ctx, to, p); err != nil {
		m.logger.InfoContext(ctx, "backend session could not be ended",
			slog.String("backend", to.Backend.Name), fault.Attr(err))
	}
}

// join lets a backend join a session: one that was down before, or, with stale,
// one that has lost the session it had. All replicas agree on the outcome.
func (m *sessions) join(ctx context.Context, s *session, to mcpclient.Target, stale *mcpclient.Peer) (*mcpclient.Peer, error) {
	return flight(ctx, &s.joins, to.Backend.Name, m.timeout+2*storeTimeout, func(ctx context.Context) (*mcpclient.Peer, error) {
		if err := m.refresh(ctx, s); err != nil {
			return nil, err
		}
		if s.state.Load().ended {
			return nil, errSessionUnknown()
		}
		if p := s.known(to.Backend.Name); p != nil && !same(p, stale) {
			return p, nil
		}
		p, err := m.handshake(ctx, s, to)
		if err != nil {
			return nil, err
		}
		return m.record(ctx, s, to, p, stale)
	})
}

func (m *sessions) handshake(ctx context.Context, s *session, to mcpclient.Target) (*mcpclient.Peer, error) {
	ctx, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	p, err := m.client.Join(ctx, to, s.hello)
	if err != nil || p.Stateless() {
		return p, err
	}
	return p, m.client.Initialized(ctx, to, p)
}

// record stores that a backend has joined, unless another replica was faster:
// then its session is the one, and ours is ended.
func (m *sessions) record(ctx context.Context, s *session, to mcpclient.Target, p, stale *mcpclient.Peer) (*mcpclient.Peer, error) {
	name := to.Backend.Name
	for attempt := 1; ; attempt++ {
		old := s.state.Load()
		next := &sessionState{revision: old.revision, joined: maps.Clone(old.joined)}
		if next.joined == nil {
			next.joined = make(map[string]*mcpclient.Peer, 1)
		}
		next.joined[name] = p
		saved, err := m.store.save(ctx, s, next)
		if err == nil {
			m.adopt(s, saved)
			return p, nil
		}
		if fault.KindOf(err) != fault.Conflict || attempt == saveAttempts {
			m.logger.WarnContext(ctx, "backend joined on this replica alone", slog.String("backend", name), fault.Attr(err))
			s.state.CompareAndSwap(old, next)
			return p, nil
		}
		if err := m.refresh(ctx, s); err != nil {
			return nil, err
		}
		state := s.state.Load()
		other := state.joined[name]
		if state.ended || other != nil && !same(other, stale) {
			m.endPeer(ctx, to, p)
			if state.ended {
				return nil, errSessionUnknown()
			}
			return other, nil
		}
	}
}

// same reports whether two peers are one session.
func same(a, b *mcpclient.Peer) bool {
	return a != nil && b != nil && a.SessionID == b.SessionID && a.Version == b.Version
}
