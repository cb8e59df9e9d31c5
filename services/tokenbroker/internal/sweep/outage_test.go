package sweep_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/store"
	"chatelaine.dev/services/tokenbroker/internal/sweep"
)

// away is a store that can be down, and has nothing to sweep.
type away struct{ down atomic.Bool }

func (a *away) ExpireSessions(context.Context, int, audit.Record) ([]store.Ended, error) {
	if a.down.Load() {
		return nil, fault.New(fault.Unavailable, "the database is not available")
	}
	return nil, nil
}

func (a *away) DropStagedLegs(context.Context, time.Duration, int) (int, error) { return 0, nil }

func (a *away) MarkUnlinked(context.Context) error { return nil }

func (a *away) EraseUnlinked(context.Context, time.Duration, int) ([]*store.Connection, error) {
	return nil, nil
}

func (a *away) Purge(context.Context, store.Retention, int) (int64, error) { return 0, nil }

// Of a database that is away for long the log has two lines.
func TestALongOutageIsToldOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		db := &away{}
		db.down.Store(true)
		s := sweep.New(sweep.Config{
			Sessions: db, Connections: db, Logger: slog.New(slog.NewTextHandler(&log, nil)),
			ConnectionRetention: func() time.Duration { return time.Hour }, Retention: func() store.Retention { return store.Retention{} },
		})
		go func() { _ = s.Run(t.Context()) }()
		time.Sleep(time.Hour) // the bubble's clock
		synctest.Wait()
		db.down.Store(false)
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := strings.Count(log.String(), "level=WARN"); n != 1 || strings.Count(log.String(), "the sweep finishes again") != 1 {
			t.Errorf("%d warnings in an hour:\n%.1000s", n, &log)
		}
	})
}
