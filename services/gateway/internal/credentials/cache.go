package credentials

import (
	"hash/maphash"
	"sync"
	"time"
)

const shardCount = 64 // a power of two

// key names an entry: a caller (caller.CacheKey) and a backend.
type key struct{ caller, backend string }

// entry is a cached credential.
type entry struct {
	cred *Credential
	// confirmedAt is when the broker was asked.
	confirmedAt time.Time
	// renewedAt is when a backend last made us renew it; zero for never.
	renewedAt time.Time
	// spent marks a credential that a backend refused: it is kept for renewedAt.
	spent bool
}

// cache holds entries and the calls that are under way for them. All entries of
// a caller are in one shard.
type cache struct {
	seed   maphash.Seed
	max    int // entries of a shard
	shards [shardCount]shard
}

type shard struct {
	mu           sync.RWMutex
	entries      map[key]entry
	byConnection map[string]map[key]struct{}
	calls        map[key]*call
	// generation counts what voids the answers of calls under way.
	generation uint64
	_          [64]byte // keeps the locks of two shards off one cache line
}

func newCache(size int) *cache {
	c := &cache{seed: maphash.MakeSeed(), max: max(1, size/shardCount)}
	for i := range c.shards {
		s := &c.shards[i]
		s.entries = make(map[key]entry)
		s.byConnection = make(map[string]map[key]struct{})
		s.calls = make(map[key]*call)
	}
	return c
}

func (c *cache) shard(caller string) *shard {
	return &c.shards[maphash.String(c.seed, caller)&(shardCount-1)]
}

func (c *cache) get(k key) (entry, bool) {
	s := c.shard(k.caller)
	s.mu.RLock()
	e, ok := s.entries[k]
	s.mu.RUnlock()
	return e, ok
}

// putLocked stores e, making room if need be: entries that have expired go
// first, then any.
func (s *shard) putLocked(k key, e entry, limit int, now time.Time) {
	s.removeLocked(k)
	if len(s.entries) >= limit {
		for other, old := range s.entries {
			if old.spent || !old.cred.ExpiresAt.IsZero() && !now.Before(old.cred.ExpiresAt) {
				s.removeLocked(other)
			}
		}
	}
	for other := range s.entries {
		if len(s.entries) < limit {
			break
		}
		s.removeLocked(other)
	}
	s.entries[k] = e
	if id := e.cred.ConnectionID; id != "" {
		keys := s.byConnection[id]
		if keys == nil {
			keys = make(map[key]struct{}, 1)
			s.byConnection[id] = keys
		}
		keys[k] = struct{}{}
	}
}

func (s *shard) removeLocked(k key) {
	e, ok := s.entries[k]
	if !ok {
		return
	}
	delete(s.entries, k)
	id := e.cred.ConnectionID
	delete(s.byConnection[id], k)
	if len(s.byConnection[id]) == 0 {
		delete(s.byConnection, id)
	}
}

// dropConnection forgets what came from a connection, but not that a backend's 401
// had it renewed: the renewal itself is such a change.
func (c *cache) dropConnection(id string) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		for k := range s.byConnection[id] {
			if e := s.entries[k]; !e.renewedAt.IsZero() {
				e.spent = true
				s.entries[k] = e
				continue
			}
			s.removeLocked(k)
		}
		s.mu.Unlock()
	}
}

// dropCaller forgets what belongs to a caller.
func (c *cache) dropCaller(caller string) {
	s := c.shard(caller)
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.entries {
		if k.caller == caller {
			s.removeLocked(k)
		}
	}
}

// clear forgets everything, and the answers of calls that are under way.
func (c *cache) clear() {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.generation++
		clear(s.entries)
		clear(s.byConnection)
		s.mu.Unlock()
	}
}

// dropBefore forgets what is about somebody and had not observed position.
func (c *cache) dropBefore(position int64) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		for k, e := range s.entries {
			if (e.cred.ConnectionID != "" || e.cred.SessionID != "") && e.cred.ObservedPosition < position {
				s.removeLocked(k)
			}
		}
		s.mu.Unlock()
	}
}

func (c *cache) len() int {
	n := 0
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		n += len(s.entries)
		s.mu.RUnlock()
	}
	return n
}
