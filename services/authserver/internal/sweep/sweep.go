package sweep

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"chatelaine.dev/internal/process"
	"chatelaine.dev/services/authserver/internal/metrics"
	"chatelaine.dev/services/authserver/internal/store"
)

// DefaultInterval is the time between two sweeps.
const DefaultInterval = time.Minute

// Store removes.
type Store interface {
	Sweep(ctx context.Context, p store.SweepPolicy) (store.Swept, error)
}

// Sweeper sweeps.
type Sweeper struct {
	Store    Store
	Policy   store.SweepPolicy
	Interval time.Duration
	// Wake tells the outbox that there is work.
	Wake func()
	// Metrics may be nil.
	Metrics *metrics.Recorder
	Logger  *slog.Logger
}

// Run sweeps until ctx ends. A store that is down is logged once and tried again.
func (s *Sweeper) Run(ctx context.Context) error {
	outage := process.Outage{Logger: s.Logger, Fails: "sweep failed, what is over stays until it works", Works: "sweep works again"}
	for {
		swept, err := s.Store.Sweep(ctx, s.Policy)
		outage.Note(ctx, err)
		switch {
		case ctx.Err() != nil:
			return nil
		case swept != store.Swept{}:
			s.Logger.InfoContext(ctx, "swept", slog.Int64("requests", swept.Requests), slog.Int64("grants", swept.Grants),
				slog.Int64("records", swept.Records), slog.Int64("clients", swept.Clients), slog.Int64("keys", swept.Keys))
		}
		s.Metrics.LoginFinished(ctx, metrics.Abandoned, swept.Requests)
		if swept.Requests+swept.Grants > 0 {
			s.Wake()
		}
		// Not all replicas at the same moment.
		pause := s.Interval + rand.N(s.Interval/4) //nolint:gosec // no secret
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}
