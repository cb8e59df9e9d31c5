package inventory_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"testing"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/pgtest"
	"chatelaine.dev/services/tokenbroker/internal/inventory"
	"chatelaine.dev/services/tokenbroker/internal/schema"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// flaky is a real store that can be made to fail.
type flaky struct {
	*store.Store
	fail bool
}

func (f *flaky) CountKeys(ctx context.Context) ([]store.KeyCount, error) {
	if f.fail {
		return nil, errors.New("canceled")
	}
	return f.Store.CountKeys(ctx)
}

// An operator must see who has to log in again, and which key may be dropped; an old
// number would be worse than none.
func TestGaugesSayWhatIsStored(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t, schema.Migrations())
	_, err := pool.Exec(t.Context(), `
		INSERT INTO tokenbroker.users (id, realm, subject_field, subject) VALUES ('u', 'r', 'sub', 's');
		INSERT INTO tokenbroker.sessions (id, state, client_id, expires_at) VALUES ('ses', 'pending', 'c', clock_timestamp() + interval '1 hour');
		INSERT INTO tokenbroker.staged_legs (id, session_id, provider, realm, subject, refreshable, key_id, wrapped_key, sealed_tokens)
			VALUES ('leg', 'ses', 'corp', 'r', 's', true, 'new', 'w', 's');
		INSERT INTO tokenbroker.connections (id, user_id, provider, realm, subject, status, version, refreshable, tokens_at, key_id, wrapped_key, sealed_tokens)
			SELECT 'c' || n, 'u', 'corp', 'r', n, 'active', 1, true, clock_timestamp(), CASE WHEN n < 4 THEN 'old' ELSE 'new' END, 'w', 's'
			FROM generate_series(1, 5) n;
		INSERT INTO tokenbroker.connections (id, user_id, provider, realm, subject, status, version, refreshable, tokens_at, key_id, wrapped_key, sealed_tokens)
			VALUES ('again', 'u', 'hub', 'r', 's', 'reauthentication_required', 2, true, clock_timestamp(), 'old', 'w', 's'),
				('gone', 'u', 'hub', 'r', 't', 'disconnected', 2, false, clock_timestamp(), NULL, NULL, NULL);
		INSERT INTO tokenbroker.revocations (staged, provider, realm, subject, origin_table, origin_row, origin_version, key_id, wrapped_key, sealed_tokens, created_at)
			SELECT false, 'hub', 'r', 't', 'connections', 'gone', n, 'old', 'w', 's', clock_timestamp() - n * interval '30 minutes' FROM generate_series(1, 2) n`)
	if err != nil {
		t.Fatal(err)
	}
	reader := sdkmetric.NewManualReader()
	st := &flaky{Store: store.New(pool)}
	stock, err := inventory.New(inventory.Config{
		Store: st, Logger: slog.New(slog.DiscardHandler),
		Meter: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int64{}
	check(t, reader, want) // before the first count

	if err := stock.Count(t.Context()); err != nil {
		t.Fatal(fault.Detail(err))
	}
	check(t, reader, map[string]int64{
		"chatelaine.tokenbroker.connections{provider=corp,status=active}":                   5,
		"chatelaine.tokenbroker.connections{provider=hub,status=reauthentication_required}": 1,
		"chatelaine.tokenbroker.connections{provider=hub,status=disconnected}":              1,
		"chatelaine.tokenbroker.sealed.values{key_id=old}":                                  6,
		"chatelaine.tokenbroker.sealed.values{key_id=new}":                                  3,
		"chatelaine.tokenbroker.revocation.queue{}":                                         2,
		"chatelaine.tokenbroker.revocation.oldest{}":                                        3600,
	})

	st.fail = true
	if err := stock.Count(t.Context()); err == nil {
		t.Error("a count that failed is no error")
	}
	check(t, reader, want)
}

func check(t *testing.T, reader *sdkmetric.ManualReader, want map[string]int64) {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			gauge, ok := m.Data.(metricdata.Gauge[int64])
			if !ok {
				t.Errorf("%s is no gauge", m.Name)
			}
			for _, p := range gauge.DataPoints {
				labels := ""
				for i, kv := range p.Attributes.ToSlice() {
					if i > 0 {
						labels += ","
					}
					labels += fmt.Sprintf("%s=%s", kv.Key, kv.Value.String())
				}
				got[m.Name+"{"+labels+"}"] = p.Value
			}
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}
