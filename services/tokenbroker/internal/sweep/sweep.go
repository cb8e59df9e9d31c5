package sweep

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"chatelaine.dev/internal/process"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

const (
	every = time.Minute
	batch = 500
	// maxRounds bounds the work of one sweep; the rest waits for the next.
	maxRounds = 20
)

// Sessions ends what has expired.
type Sessions interface {
	ExpireSessions(ctx context.Context, limit int, rec audit.Record) ([]store.Ended, error)
	DropStagedLegs(ctx context.Context, maxAge time.Duration, limit int) (dropped int, err error)
}

// Connections erases what nobody uses.
type Connections interface {
	MarkUnlinked(ctx context.Context) error
	EraseUnlinked(ctx context.Context, retention time.Duration, limit int) ([]*store.Connection, error)
	Purge(ctx context.Context, r store.Retention, limit int) (deleted int64, err error)
}

// Config makes a Sweeper. All fields are required.
type Config struct {
	Sessions    Sessions
	Connections Connections
	Audit       *audit.Recorder
	Logger      *slog.Logger
	// ConnectionRetention is how long a connection outlives its last link.
	ConnectionRetention func() time.Duration
	// Retention of rows.
	Retention func() store.Retention
	// PendingLifetime is the age at which staged legs of a live session are dropped.
	PendingLifetime time.Duration
}

// Sweeper sweeps once a minute.
type Sweeper struct{ cfg Config }

// New returns a sweeper; Run does its work.
func New(cfg Config) *Sweeper { return &Sweeper{cfg} }

// Run sweeps until ctx ends. The first of failed sweeps is logged; all are tried again.
func (s *Sweeper) Run(ctx context.Context) error {
	outage := process.Outage{Logger: s.cfg.Logger, Fails: "the sweep did not finish, what is over stays until it does", Works: "the sweep finishes again"}
	for {
		// Replicas that were started together do not sweep together.
		timer := time.NewTimer(every/2 + rand.N(every)) //nolint:gosec // spreads load
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		outage.Note(ctx, s.Once(ctx))
	}
}

// Once sweeps once.
func (s *Sweeper) Once(ctx context.Context) error {
	for _, step := range []func(context.Context) (more bool, err error){
		s.expireSessions, s.dropLegs, s.markUnlinked, s.eraseConnections, s.purge,
	} {
		for range maxRounds {
			more, err := step(ctx)
			if err != nil {
				return err
			}
			if !more {
				break
			}
		}
	}
	return nil
}

func (s *Sweeper) expireSessions(ctx context.Context) (bool, error) {
	ended, err := s.cfg.Sessions.ExpireSessions(ctx, batch, audit.Record{Action: audit.SessionEnded, Outcome: store.EndExpired})
	if err != nil {
		return false, err
	}
	for i := range ended {
		s.cfg.Audit.Log(ctx, ended[i].Record)
	}
	return len(ended) == batch, nil
}

func (s *Sweeper) dropLegs(ctx context.Context) (bool, error) {
	dropped, err := s.cfg.Sessions.DropStagedLegs(ctx, s.cfg.PendingLifetime, batch)
	return dropped == batch, err
}

func (s *Sweeper) markUnlinked(ctx context.Context) (bool, error) {
	return false, s.cfg.Connections.MarkUnlinked(ctx)
}

func (s *Sweeper) eraseConnections(ctx context.Context) (bool, error) {
	erased, err := s.cfg.Connections.EraseUnlinked(ctx, s.cfg.ConnectionRetention(), batch)
	if err != nil {
		return false, err
	}
	var lost []error
	for _, c := range erased {
		if c.Status == store.ConnectionDisconnected {
			continue // its tokens went, with a record, when it was disconnected
		}
		lost = append(lost, s.cfg.Audit.Record(ctx, audit.Record{
			Action: audit.ConnectionDisconnected, Outcome: "RETENTION", UserID: c.UserID,
			Provider: c.Provider, ConnectionID: c.ID,
		}))
	}
	return len(erased) == batch, errors.Join(lost...)
}

func (s *Sweeper) purge(ctx context.Context) (bool, error) {
	deleted, err := s.cfg.Connections.Purge(ctx, s.cfg.Retention(), batch)
	return deleted >= batch, err
}
