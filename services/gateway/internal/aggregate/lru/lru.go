package lru

import (
	"container/list"
	"hash/maphash"
	"sync"
	"time"
)

// shards is how many there are at the most.
const shards = 32

// Cache maps strings to values. It is safe for concurrent use.
type Cache[V any] struct {
	seed   maphash.Seed
	maxAge time.Duration
	now    func() time.Time
	shards []shard[V]
}

type shard[V any] struct {
	mu      sync.Mutex
	entries map[string]*list.Element
	order   list.List // most recently used first
	cost    int
	maxCost int
}

type entry[V any] struct {
	key   string
	value V
	cost  int
	putAt time.Time
}

// New returns a cache for a total cost of at most maxCost, whose entries are
// forgotten maxAge after they were put. A maxAge of zero means never.
func New[V any](maxCost int, maxAge time.Duration) *Cache[V] {
	return newCache[V](maxCost, shards, maxAge)
}

// NewLarge is New for values that cost up to largest each: a small cache has
// fewer shards, so that one of them still holds such a value.
func NewLarge[V any](maxCost, largest int, maxAge time.Duration) *Cache[V] {
	return newCache[V](maxCost, min(shards, max(1, maxCost/largest)), maxAge)
}

func newCache[V any](maxCost, count int, maxAge time.Duration) *Cache[V] {
	c := &Cache[V]{seed: maphash.MakeSeed(), maxAge: maxAge, now: time.Now, shards: make([]shard[V], count)}
	for i := range c.shards {
		c.shards[i].entries = make(map[string]*list.Element)
		c.shards[i].maxCost = max(1, maxCost/count)
	}
	return c
}

func (c *Cache[V]) shard(key string) *shard[V] {
	return &c.shards[maphash.String(c.seed, key)%uint64(len(c.shards))]
}

func (c *Cache[V]) old(e *entry[V]) bool {
	return c.maxAge > 0 && c.now().Sub(e.putAt) > c.maxAge
}

// Get returns the value of key and marks it as used.
func (c *Cache[V]) Get(key string) (V, bool) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	var none V
	el, ok := s.entries[key]
	if !ok {
		return none, false
	}
	e := el.Value.(*entry[V])
	if c.old(e) {
		s.remove(el)
		return none, false
	}
	s.order.MoveToFront(el)
	return e.value, true
}

// Put sets the value of key. A value that costs more than a shard may hold is
// not kept, and an older one under its key is dropped.
func (c *Cache[V]) Put(key string, value V, cost int) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if el, ok := s.entries[key]; ok {
		s.remove(el)
	}
	s.insert(&entry[V]{key: key, value: value, cost: cost, putAt: c.now()})
}

// GetOrPut returns the value of key, or puts the given one when there is none.
// loaded is true when the value was there.
func (c *Cache[V]) GetOrPut(key string, value V, cost int) (actual V, loaded bool) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if el, ok := s.entries[key]; ok {
		e := el.Value.(*entry[V])
		if !c.old(e) {
			s.order.MoveToFront(el)
			return e.value, true
		}
		s.remove(el)
	}
	s.insert(&entry[V]{key: key, value: value, cost: cost, putAt: c.now()})
	return value, false
}

// Delete forgets key.
func (c *Cache[V]) Delete(key string) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if el, ok := s.entries[key]; ok {
		s.remove(el)
	}
}

// Len returns how many entries there are, expired ones included.
func (c *Cache[V]) Len() int {
	n := 0
	for i := range c.shards {
		c.shards[i].mu.Lock()
		n += len(c.shards[i].entries)
		c.shards[i].mu.Unlock()
	}
	return n
}

func (s *shard[V]) insert(e *entry[V]) {
	if e.cost > s.maxCost {
		return
	}
	s.entries[e.key] = s.order.PushFront(e)
	s.cost += e.cost
	for s.cost > s.maxCost {
		s.remove(s.order.Back())
	}
}

func (s *shard[V]) remove(el *list.Element) {
	e := s.order.Remove(el).(*entry[V])
	delete(s.entries, e.key)
	s.cost -= e.cost
}
