package refresh_test

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
	"chatelaine.dev/services/tokenbroker/internal/refresh"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

// away is a store that can be down, and has nothing to renew.
type away struct {
	refresh.Reader // the rest is not called
	down           atomic.Bool
}

func (a *away) DueConnections(context.Context, []store.ProviderRealm, int) ([]*store.Connection, error) {
	if a.down.Load() {
		return nil, fault.New(fault.Unavailable, "the database is not available")
	}
	return nil, nil
}

// Of a database that is away for long the log has two lines.
func TestALongOutageIsToldOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		db := &away{}
		db.down.Store(true)
		r := refresh.New(refresh.Config{
			Reader: db, Providers: func() []store.ProviderRealm { return nil }, PrimaryName: func() string { return "corp" },
			LockOnPrimary: func() bool { return true }, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		})
		go func() { _ = r.Run(t.Context()) }()
		time.Sleep(time.Hour) // the bubble's clock
		synctest.Wait()
		db.down.Store(false)
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := strings.Count(log.String(), "level=WARN"); n != 1 || strings.Count(log.String(), "looked for again") != 1 {
			t.Errorf("%d warnings in an hour:\n%.1000s", n, &log)
		}
	})
}
