package keys_test

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
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/authserver/internal/keys"
	"chatelaine.dev/services/authserver/internal/store"
)

// away is a store that can be down.
type away struct{ down atomic.Bool }

func (a *away) PublishKeys(_ context.Context, list []store.SigningKey, _ time.Duration) ([]store.SigningKey, error) {
	if a.down.Load() {
		return nil, fault.New(fault.Unavailable, "the database is not available")
	}
	return list, nil
}

// Of a database that is away for long the log has two lines.
func TestALongOutageIsToldOnce(t *testing.T) {
	t.Parallel()
	key := ecKey(t)
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		db := &away{}
		db.down.Store(true)
		set, err := keys.New(keys.Config{
			Keys: []*keys.Key{key}, MACKeys: []secret.Bytes{secret.NewBytes(make([]byte, 32))}, Store: db,
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
		})
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = set.Run(t.Context()) }()
		time.Sleep(time.Hour) // the bubble's clock
		synctest.Wait()
		db.down.Store(false)
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := strings.Count(log.String(), "level=WARN"); n != 1 || strings.Count(log.String(), "the signing keys are published") != 1 {
			t.Errorf("%d warnings in an hour:\n%.1000s", n, &log)
		}
	})
}
