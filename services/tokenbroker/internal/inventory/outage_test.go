package inventory_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/metric/noop"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/tokenbroker/internal/inventory"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

// away is a store that can be down.
type away struct{ down atomic.Bool }

func (a *away) CountConnections(context.Context) ([]store.ConnectionCount, error) {
	if a.down.Load() {
		return nil, fault.New(fault.Unavailable, "the database is not available")
	}
	return nil, nil
}

func (a *away) CountKeys(context.Context) ([]store.KeyCount, error) { return nil, nil }

func (a *away) CountRevocations(context.Context) (q store.RevocationQueue, err error) { return q, nil }

// Of a database that is away for long the log has two lines.
func TestALongOutageIsToldOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		db := &away{}
		db.down.Store(true)
		i, err := inventory.New(inventory.Config{
			Store: db, Meter: noop.NewMeterProvider(), Logger: slog.New(slog.NewTextHandler(&log, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = i.Run(t.Context()) }()
		time.Sleep(time.Hour) // the bubble's clock
		synctest.Wait()
		db.down.Store(false)
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := strings.Count(log.String(), "level=WARN"); n != 1 || strings.Count(log.String(), "what is stored is counted again") != 1 {
			t.Errorf("%d warnings in an hour:\n%.1000s", n, &log)
		}
	})
}
