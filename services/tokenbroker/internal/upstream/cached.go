package upstream

import (
	"context"
	"errors"
	"sync"
	"time"
)

// cached is a document of a provider that is fetched when somebody needs it.
//
// While it is fresh it is served from memory. After that it is still served
// while one fetch in the background renews it, until it is too old to trust.
// Fetches that fail are repeated no sooner than after a growing pause.
type cached[T any] struct {
	// fetch gets the document. It bounds its own time.
	fetch func(context.Context) (T, error)
	// freshFor and usableFor are ages.
	freshFor, usableFor time.Duration
	now                 func() time.Time

	mu       sync.Mutex
	value    T
	at       time.Time // of the last success; zero: none
	retryAt  time.Time // no fetch before
	failures int
	err      error         // of the last fetch
	flight   chan struct{} // closed with the running fetch's end; nil: none
}

const (
	minFetchPause = time.Second
	maxFetchPause = time.Minute
	// rereadPause is the least time between a success and a fetch that somebody
	// wants because something is missing in the document.
	rereadPause = 5 * time.Second
)

// errJustRead is for a document that lacks something and was read too recently
// to be read again: what is missing may be there by now.
var errJustRead = errors.New("was read a moment ago and lacked it")

// get returns the document. missing, when not nil, says that the document lacks
// what the caller needs, which is a reason to fetch again, within limits. A
// document that lacks it is returned only when it was fetched for this purpose:
// when that fetch fails or is not allowed yet, nobody knows, which is an error.
func (c *cached[T]) get(ctx context.Context, missing func(T) bool) (T, error) {
	c.mu.Lock()
	now := c.now()
	age := now.Sub(c.at)
	usable := !c.at.IsZero() && age < c.usableFor
	lacking := usable && missing != nil && missing(c.value)
	if usable && age < c.freshFor && !lacking {
		defer c.mu.Unlock()
		return c.value, nil
	}
	if c.flight == nil && !now.Before(c.retryAt) && (!lacking || age >= rereadPause) {
		c.flight = make(chan struct{})
		go c.renew(context.WithoutCancel(ctx), c.flight)
	}
	flight := c.flight
	if (usable && !lacking) || flight == nil {
		defer c.mu.Unlock()
		switch {
		case !lacking && usable:
			return c.value, nil
		case c.err == nil:
			return *new(T), errJustRead
		}
		return *new(T), c.err
	}
	c.mu.Unlock()

	select {
	case <-flight:
	case <-ctx.Done():
		return *new(T), ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil && (c.at.IsZero() || c.now().Sub(c.at) >= c.usableFor || (missing != nil && missing(c.value))) {
		return *new(T), c.err
	}
	return c.value, nil
}

func (c *cached[T]) renew(ctx context.Context, flight chan struct{}) {
	value, err := c.fetch(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	defer close(flight)
	c.flight, c.err = nil, err
	now := c.now()
	if err != nil {
		pause := min(minFetchPause<<min(c.failures, 6), maxFetchPause)
		c.failures++
		c.retryAt = now.Add(pause)
		return
	}
	c.value, c.at, c.failures, c.retryAt = value, now, 0, time.Time{}
}
