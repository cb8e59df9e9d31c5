package exchange

import (
	"container/list"
	mathrand "math/rand/v2"
	"strings"
	"sync"
	"time"
)

const (
	// DefaultCacheSize is how many tokens are remembered.
	DefaultCacheSize = 10_000
	// rejectionPause is how long after a rejection another one of the next token
	// is taken for the subject's fault.
	rejectionPause = time.Minute
	// refusalPause is how long a token service's no is remembered, so that a wrong
	// configuration is not asked about with every call.
	refusalPause = 5 * time.Second
)

// Cache keeps exchanged tokens. It may be shared between configurations. It is
// safe for concurrent use.
type Cache struct {
	size int
	now  func() time.Time

	mu      sync.Mutex
	entries map[key]*list.Element
	// subjects has the keys of each subject.
	subjects map[string]map[key]struct{}
	order    *list.List // front: used last
}

// key is whose token it is, and what was asked for.
type key struct {
	subject  string // and who acts
	exchange [32]byte
}

// whose is the subject alone.
func (k key) whose() string {
	subject, _, _ := strings.Cut(k.subject, actorMark)
	return subject
}

// entry is a token, or the memory of a rejected one, or of a refusal.
type entry struct {
	key     key
	version int64
	// position of the events that the subject's tokens have taken into account.
	position int64
	token    Token // without a generation: none
	// rejections and rejectedAt are of this version.
	rejections int
	rejectedAt time.Time
	refusal    error
	refusedAt  time.Time
	// aheadAt is when the token is replaced in the background; zero: never.
	aheadAt time.Time
}

// NewCache returns a cache of at most size tokens; zero means DefaultCacheSize.
// A nil now means time.Now.
func NewCache(size int, now func() time.Time) *Cache {
	if size <= 0 {
		size = DefaultCacheSize
	}
	if now == nil {
		now = time.Now
	}
	return &Cache{
		size: size, now: now,
		entries: map[key]*list.Element{}, subjects: map[string]map[key]struct{}{}, order: list.New(),
	}
}

// Forget drops what was made of a subject's tokens, because of the event at that
// position. What was made of tokens that were read after the event stays.
func (c *Cache) Forget(subject string, position int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := range c.subjects[subject] {
		if element := c.entries[k]; element.Value.(*entry).position < position {
			c.remove(element)
		}
	}
}

// get returns a token that may be used now, or a refusal that is remembered.
func (c *Cache) get(k key, version int64) (token Token, refusal error, ok bool) { //nolint:revive // a remembered value
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.find(k, version)
	if e == nil {
		return Token{}, nil, false
	}
	now := c.now()
	if e.refusal != nil && now.Sub(e.refusedAt) < refusalPause {
		return Token{}, e.refusal, true
	}
	if e.token.Generation.ID == "" || !now.Before(e.token.ExpiresAt) {
		return Token{}, nil, false
	}
	return e.token, nil, true
}

// put keeps a token that was made of what was read at a position, and returns it with
// its generation.
func (c *Cache) put(k key, token Token, position int64) Token {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.make(k, token.Version)
	if e == nil {
		return token // of a version that is not the newest: for this caller only
	}
	token.Generation.Rejections = e.rejections
	if !token.Bounded {
		token.AheadAt = token.ExpiresAt.Add(-lastFifth(token.ExpiresAt.Sub(c.now())))
	}
	e.token, e.refusal, e.aheadAt, e.position = token, nil, token.AheadAt, position
	return token
}

// lastFifth is between a tenth and a fifth of a life, at random, so that tokens
// that were made together are not replaced together.
func lastFifth(life time.Duration) time.Duration {
	return time.Duration(float64(life) * (1 + mathrand.Float64()) / 10) //nolint:gosec // no secret
}

// minAhead is the least time between two tries to replace a token ahead of its end.
const minAhead = time.Second

// ahead reports whether the token should be replaced now, in the background. It
// says so to one caller; to the next one when half of what is left has passed, in
// case nothing came of it.
func (c *Cache) ahead(k key, version int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.find(k, version)
	now := c.now()
	if e == nil || e.token.Generation.ID == "" || e.aheadAt.IsZero() || now.Before(e.aheadAt) {
		return false
	}
	e.aheadAt = now.Add(max(minAhead, e.token.ExpiresAt.Sub(now)/2))
	return true
}

// refuse remembers a token service's certain no.
func (c *Cache) refuse(k key, version, position int64, refusal error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.make(k, version); e != nil {
		e.token, e.refusal, e.refusedAt, e.position = Token{}, refusal, c.now(), position
	}
}

// reject notes that a backend rejected the token of this generation. Replicas
// have caches of their own: what is not here may have been made elsewhere, and
// the generation says how many were rejected before.
func (c *Cache) reject(k key, version int64, g Generation) Rejection {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	e := c.find(k, version)
	if e == nil {
		if e = c.make(k, version); e == nil {
			return Stale
		}
		e.token.Generation = g // as if it had been made here
		e.rejections = g.Rejections
	}
	switch {
	case e.token.Generation.ID == g.ID: // the very one
	case e.token.Generation.ID != "" || e.rejections > g.Rejections:
		return Stale
	}
	spent := g.Rejections > 0 && (e.rejectedAt.IsZero() || now.Sub(e.rejectedAt) < rejectionPause)
	e.token = Token{}
	e.rejections, e.rejectedAt = g.Rejections+1, now
	if spent {
		return Spent
	}
	return Dropped
}

// find returns the entry of this version.
func (c *Cache) find(k key, version int64) *entry {
	element, ok := c.entries[k]
	if !ok || element.Value.(*entry).version != version {
		return nil
	}
	c.order.MoveToFront(element)
	return element.Value.(*entry)
}

// make returns the entry of this version, a new one if need be; nil when there
// is one of a newer version.
func (c *Cache) make(k key, version int64) *entry {
	if element, ok := c.entries[k]; ok {
		e := element.Value.(*entry)
		switch {
		case e.version > version:
			return nil
		case e.version == version:
			c.order.MoveToFront(element)
			return e
		}
		c.remove(element)
	}
	if c.order.Len() >= c.size {
		c.remove(c.order.Back())
	}
	e := &entry{key: k, version: version}
	c.entries[k] = c.order.PushFront(e)
	subject := k.whose()
	if c.subjects[subject] == nil {
		c.subjects[subject] = map[key]struct{}{}
	}
	c.subjects[subject][k] = struct{}{}
	return e
}

func (c *Cache) remove(element *list.Element) {
	e := c.order.Remove(element).(*entry)
	delete(c.entries, e.key)
	subject := e.key.whose()
	delete(c.subjects[subject], e.key)
	if len(c.subjects[subject]) == 0 {
		delete(c.subjects, subject)
	}
}
