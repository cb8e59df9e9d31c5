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
	"chatelaine.dev/services/authserver/internal/store"
	"chatelaine.dev/services/authserver/internal/sweep"
)

// away is a store that can be down.
type away struct{ down atomic.Bool }

func (a *away) Sweep(context.Context, store.SweepPolicy) (store.Swept, error) {
	if a.down.Load() {
		return store.Swept{}, fault.New(fault.Unavailable, "the database is not available")
	}
	return store.Swept{}, nil
}

// Of a database that is away for long the log has two lines.
func TestALongOutageIsToldOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		db := &away{}
		db.down.Store(true)
		s := &sweep.Sweeper{Store: db, Interval: sweep.DefaultInterval, Logger: slog.New(slog.NewTextHandler(&log, nil))}
		go func() { _ = s.Run(t.Context()) }()
		time.Sleep(time.Hour) // the bubble's clock
		synctest.Wait()
		db.down.Store(false)
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := strings.Count(log.String(), "level=WARN"); n != 1 || strings.Count(log.String(), "sweep works again") != 1 {
			t.Errorf("%d warnings in an hour:\n%.1000s", n, &log)
		}
	})
}
