package credentials

import (
	"context"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"chatelaine.dev/services/gateway/internal/caller"
)

const (
	// clockLeeway is how much longer than its lifetime a token may be accepted.
	clockLeeway = time.Minute
	// maxEnded bounds the sessions that are remembered as ended. Beyond it the
	// cache is not trusted (see Manager.fresh): the broker knows them all.
	maxEnded = 1 << 20
	// pruneEvery is after how many additions a shard looks for old ones.
	pruneEvery = 256
)

// sessions knows the sessions that ended, and the requests of those that live.
type sessions struct {
	keep   time.Duration
	seed   maphash.Seed
	count  atomic.Int64 // ended ones, over all shards
	shards [shardCount]sessionShard
}

type sessionShard struct {
	mu      sync.RWMutex
	ended   map[string]time.Time // until when it is remembered
	added   int
	streams map[string]map[*stream]struct{}
	_       [64]byte // keeps the locks of two shards off one cache line
}

// stream is a request of a session that can be told to end.
type stream struct {
	cancel context.CancelCauseFunc
	since  time.Time
}

func newSessions(tokenLifetime time.Duration) *sessions {
	s := &sessions{keep: tokenLifetime + clockLeeway, seed: maphash.MakeSeed()}
	for i := range s.shards {
		s.shards[i].ended = make(map[string]time.Time)
		s.shards[i].streams = make(map[string]map[*stream]struct{})
	}
	return s
}

func (s *sessions) shard(id string) *sessionShard {
	return &s.shards[maphash.String(s.seed, id)&(shardCount-1)]
}

func (s *sessions) has(id string) bool {
	sh := s.shard(id)
	sh.mu.RLock()
	_, ok := sh.ended[id]
	sh.mu.RUnlock()
	return ok
}

// end remembers that a session ended and closes its streams.
func (s *sessions) end(id string, now time.Time) {
	sh := s.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.added++; sh.added%pruneEvery == 0 {
		s.pruneLocked(sh, now)
	}
	if _, known := sh.ended[id]; known || s.count.Load() < maxEnded {
		if !known {
			s.count.Add(1)
		}
		sh.ended[id] = now.Add(s.keep)
	} else {
		s.count.Store(maxEnded + 1) // full: see overflowing
	}
	for st := range sh.streams[id] {
		st.cancel(errSessionEnded())
	}
	delete(sh.streams, id)
}

func (s *sessions) pruneLocked(sh *sessionShard, now time.Time) {
	for id, until := range sh.ended {
		if now.After(until) {
			delete(sh.ended, id)
			s.count.Add(-1)
		}
	}
}

// overflowing reports whether there were too many sessions to remember.
func (s *sessions) overflowing() bool { return s.count.Load() > maxEnded }

// closeBefore ends the streams that were attached before a time, and returns how
// many these were.
func (s *sessions) closeBefore(before time.Time, cause error) int {
	n := 0
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.Lock()
		for id, all := range sh.streams {
			for st := range all {
				if st.since.Before(before) {
					st.cancel(cause)
					delete(all, st)
					n++
				}
			}
			if len(all) == 0 {
				delete(sh.streams, id)
			}
		}
		sh.mu.Unlock()
	}
	return n
}

func (s *sessions) attach(id string, st *stream) {
	sh := s.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	all := sh.streams[id]
	if all == nil {
		all = make(map[*stream]struct{}, 1)
		sh.streams[id] = all
	}
	all[st] = struct{}{}
}

func (s *sessions) detach(id string, st *stream) {
	sh := s.shard(id)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	delete(sh.streams[id], st)
	if len(sh.streams[id]) == 0 {
		delete(sh.streams, id)
	}
}

// Ended reports whether the caller's session is known to have ended. It makes
// no call and allocates nothing.
func (m *Manager) Ended(c *caller.Caller) bool {
	return c.SessionID != "" && m.sessions.has(c.SessionID)
}

// Attach returns a context for a request of the caller that ends, with a
// *fault.Error as its cause, when the caller's session does, and when nobody
// could say whether it has. detach must be called when the request is over. An
// error means that the session has ended.
func (m *Manager) Attach(ctx context.Context, c *caller.Caller) (attached context.Context, detach func(), err error) {
	if c.SessionID == "" {
		return ctx, func() {}, nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	st := &stream{cancel: cancel, since: time.Now()}
	m.sessions.attach(c.SessionID, st)
	// Only now: an end that came before is seen here, a later one closes st.
	if m.sessions.has(c.SessionID) {
		m.sessions.detach(c.SessionID, st)
		cancel(nil)
		return nil, nil, errSessionEnded()
	}
	return ctx, func() {
		m.sessions.detach(c.SessionID, st)
		cancel(nil)
	}, nil
}
