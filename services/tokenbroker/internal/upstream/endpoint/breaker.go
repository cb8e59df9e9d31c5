package endpoint

import (
	"sync"
	"time"
)

const (
	// breakerThreshold is how many calls in a row must find a server down.
	breakerThreshold = 5
	// breakerPause is how long a server that is down is left alone.
	breakerPause = 5 * time.Second
)

// Breaker stops calls to a server that is down. After breakerThreshold failures
// in a row it is open for breakerPause; then one call probes while the others
// are still refused, and its outcome closes or opens the breaker again.
type Breaker struct {
	now func() time.Time

	mu        sync.Mutex
	failures  int
	openUntil time.Time
	probing   bool
}

// NewBreaker returns a closed breaker. A nil now means time.Now.
func NewBreaker(now func() time.Time) *Breaker {
	if now == nil {
		now = time.Now
	}
	return &Breaker{now: now}
}

// health is what a call taught about the server.
type health int

const (
	healthUnknown health = iota // the caller gave up first
	healthUp
	healthDown
)

// allow reports whether a call may be made, and otherwise how long to wait.
// After an allowed call, report must be called once.
func (b *Breaker) allow() (ok bool, wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures < breakerThreshold {
		return true, 0
	}
	if wait := b.openUntil.Sub(b.now()); wait > 0 {
		return false, wait
	}
	if b.probing {
		return false, time.Second
	}
	b.probing = true
	return true, 0
}

func (b *Breaker) report(h health) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.probing = false
	switch h {
	case healthUp:
		b.failures = 0
	case healthDown:
		b.failures++
		if b.failures >= breakerThreshold {
			b.openUntil = b.now().Add(breakerPause)
		}
	case healthUnknown:
	}
}
