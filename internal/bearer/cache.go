package bearer

import (
	"container/list"
	"crypto/sha256"
	"sync"
	"time"
)

// cache remembers verified tokens by the SHA-256 of their text, so that the text
// itself, which opens things, is not kept. The least recently used goes first.
type cache struct {
	size int

	mu      sync.Mutex
	entries map[[sha256.Size]byte]*list.Element
	order   *list.List // front: most recently used
}

type entry struct {
	sum        [sha256.Size]byte
	claims     *Claims
	forget     time.Time
	generation uint64
}

func newCache(size int) *cache {
	return &cache{size: size, entries: make(map[[sha256.Size]byte]*list.Element), order: list.New()}
}

// get returns what was verified with the present generation of keys.
func (c *cache) get(sum [sha256.Size]byte, now time.Time, generation uint64) (*Claims, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	element, ok := c.entries[sum]
	if !ok {
		return nil, false
	}
	e := element.Value.(*entry)
	if e.generation != generation || now.After(e.forget) {
		c.order.Remove(element)
		delete(c.entries, sum)
		return nil, false
	}
	c.order.MoveToFront(element)
	return e.claims, true
}

func (c *cache) put(sum [sha256.Size]byte, claims *Claims, forget time.Time, generation uint64) {
	if c.size <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if element, ok := c.entries[sum]; ok {
		c.order.Remove(element)
	} else if c.order.Len() >= c.size {
		oldest := c.order.Back()
		c.order.Remove(oldest)
		delete(c.entries, oldest.Value.(*entry).sum)
	}
	c.entries[sum] = c.order.PushFront(&entry{sum, claims, forget, generation})
}
