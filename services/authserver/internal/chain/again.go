package chain

import (
	"context"
	"slices"
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
// on where the login is.
func (c *Chain) again(ctx context.Context, cb Callback, browserHash []byte, cause error) (Step, error) {
	var known *store.AuthorizationRequest
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
			return Step{}, fault.New(fault.Unavailable, "the answer of the provider is still being worked on").WithReason(ReasonBusy)
		}
		known = req
		select {
		case <-ctx.Done():
			return Step{}, fault.From(ctx.Err())
		case <-time.After(glance):
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
