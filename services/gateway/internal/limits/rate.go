package limits

import (
	"sync"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/gateway/internal/aggregate/lru"
	"chatelaine.dev/services/gateway/internal/caller"
)

// rateCache bounds of how many people a Rate knows something.
const rateCache = 20_000

// Rate bounds how often one person does something: a burst, and one more each
// interval after that.
type Rate struct {
	burst   time.Duration // that many intervals
	every   time.Duration
	refused func()
	now     func() time.Time
	people  *lru.Cache[*bucket]
}

// bucket is what is left of one person's burst.
type bucket struct {
	mu   sync.Mutex
	full time.Time // when all of the burst is there again
}

func newRate(burst int, every time.Duration, refused func()) *Rate {
	whole := time.Duration(burst) * every
	return &Rate{burst: whole, every: every, refused: refused, now: time.Now, people: lru.New[*bucket](rateCache, 2*whole)}
}

// Take takes one. The error is Exhausted with reason ReasonSessions, and says
// when to come again.
func (r *Rate) Take(who *caller.Caller) error {
	if r == nil || who.Anonymous {
		return nil
	}
	b, _ := r.people.GetOrPut(who.Key, &bucket{}, 1)
	b.mu.Lock()
	defer b.mu.Unlock()
	now := r.now()
	full := b.full
	if full.Before(now) {
		full = now
	}
	full = full.Add(r.every)
	if wait := full.Sub(now) - r.burst; wait > 0 {
		r.refused()
		return fault.New(fault.Exhausted, "too many sessions were opened; try again later").
			WithReason(ReasonSessions).WithRetryAfter(wait)
	}
	b.full = full
	r.people.Put(who.Key, b, 1) // its age counts from here
	return nil
}
