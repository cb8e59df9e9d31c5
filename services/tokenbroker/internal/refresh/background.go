package refresh

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/process"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

const (
	lookEvery = 15 * time.Second
	batch     = 64
	parallel  = 4
	// drainWithin bounds the wait for attempts that are in flight: an attempt that is
	// cut off leaves a mark without a result.
	drainWithin = 15 * time.Second
)

// Run renews connections in use shortly before their tokens end, so that callers
// seldom wait.
func (r *Refresher) Run(ctx context.Context) error {
	outage := process.Outage{
		Logger: r.cfg.Logger, Fails: "cannot look for tokens to renew, callers wait for renewals until it can", Works: "tokens to renew are looked for again",
	}
	for pause(ctx, lookEvery) == nil {
		outage.Note(ctx, r.renewAhead(ctx))
	}
	return nil
}

// Drain waits, when nobody asks for tokens any more, for the attempts that are in
// flight, fifteen seconds at most.
func (r *Refresher) Drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, drainWithin)
	defer cancel()
	for r.inFlight.Load() > 0 {
		if pause(ctx, pollEvery/2) != nil {
			r.cfg.Logger.WarnContext(ctx, "stopping with renewals in flight",
				slog.Int64("count", r.inFlight.Load()))
			return
		}
	}
}

func (r *Refresher) renewAhead(ctx context.Context) error {
	due, err := r.cfg.Reader.DueConnections(ctx, r.watched(), batch)
	if err != nil {
		return err
	}
	var group errgroup.Group
	group.SetLimit(parallel)
	for _, c := range due {
		group.Go(func() error {
			_, err := r.renew(ctx, c.ID, c.Version, false)
			if err != nil { // the attempt has logged and remembered it
				r.cfg.Logger.LogAttrs(ctx, slog.LevelDebug, "not renewed ahead of expiry",
					slog.String("connection_id", c.ID), fault.Attr(err))
			}
			return nil
		})
	}
	return group.Wait()
}

// watched are the providers, of which the primary one is asked while a person uses
// any of their sessions: nobody may ever want its tokens, and what ends the person's
// grant there must lock the sessions all the same.
func (r *Refresher) watched() []store.ProviderRealm {
	providers := slices.Clone(r.cfg.Providers())
	primary, lock := r.cfg.PrimaryName(), r.cfg.LockOnPrimary()
	for i := range providers {
		providers[i].UsedBySession = lock && providers[i].Provider == primary
	}
	return providers
}
