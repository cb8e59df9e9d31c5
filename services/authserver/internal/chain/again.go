package chain

import (
	"context"
	"slices"
	"sync"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/authserver/internal/store"
)

// How long a callback that comes again waits for the first one, and how often it looks.
const (
	patience = 10 * time.Second
	glance   = 250 * time.Millisecond
)

// again is for a callback whose state is not good any more, or never was. A browser
// that brings the answer of its last leg once more, as when a page is reloaded, goes
// on where the login is. One of them waits, the latest: that is the one which somebody
// looks at.
func (c *Chain) again(ctx context.Context, cb Callback, browserHash []byte, cause error) (Step, error) {
	var known *store.AuthorizationRequest
	var waiting <-chan struct{}
	for deadline := time.Now().Add(patience); ; {
		req, leg, err := c.cfg.Legs.SpentLeg(ctx, cb.State, cb.Providers, browserHash)
		switch {
		case err != nil && fault.KindOf(err) != fault.NotFound:
			return Step{}, err
		case err != nil && known == nil:
			return Step{}, c.notTaken(ctx, cb.State, browserHash, cause)
		case err != nil: // the next leg has begun meanwhile, or the login has ended
			if req, err = c.load(ctx, known.ID, browserHash); err != nil {
				return Step{}, err
			}
			return c.next(ctx, req)
		case leg.Retry, settled(req, leg.Provider):
			return c.next(ctx, req)
		case time.Now().After(deadline):
			return Step{}, busy()
		}
		if known == nil {
			var leave func()
			waiting, leave = c.waiters.enter(cb.State)
			defer leave()
		}
		known = req
		select {
		case <-ctx.Done():
			return Step{}, fault.From(ctx.Err())
		case <-waiting:
			return Step{}, busy()
		case <-time.After(glance):
		}
	}
}

func busy() error {
	return fault.New(fault.Unavailable, "the answer of the provider is still being worked on").WithReason(ReasonBusy)
}

// waiters are the callbacks that wait for an earlier one, by state.
type waiters struct {
	mu sync.Mutex
	by map[string]chan struct{}
}

// enter sends away who waits for the same state. The channel is closed when somebody
// else comes; leave must be called.
func (w *waiters) enter(state string) (sentAway <-chan struct{}, leave func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if before, ok := w.by[state]; ok {
		close(before)
	}
	me := make(chan struct{})
	if w.by == nil {
		w.by = map[string]chan struct{}{}
	}
	w.by[state] = me
	return me, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.by[state] == me {
			delete(w.by, state)
		}
	}
}

// settled reports whether the chain has done with a provider.
func settled(req *store.AuthorizationRequest, provider string) bool {
	return slices.ContainsFunc(req.Progress.Providers, func(p store.Provider) bool { return p.Name == provider && p.State != store.LinkMissing })
}

// notTaken tells a callback in another browser from a state that is no good.
func (c *Chain) notTaken(ctx context.Context, state string, browserHash []byte, cause error) error {
	elsewhere, err := c.cfg.Legs.LegElsewhere(ctx, state, browserHash)
	switch {
	case err != nil:
		return err
	case elsewhere:
		return fault.Wrap(fault.Denied, cause, "this sign-in was started in another browser").WithReason(ReasonOtherBrowser)
	}
	return unknownState(cause)
}
