package postgres

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"chatelaine.dev/internal/fault"
)

// measure makes the instruments of a pool, which are read when somebody reads the
// metrics. A process has one pool; two would be added up.
func measure(pool *pgxpool.Pool, provider metric.MeterProvider) error {
	meter := provider.Meter("chatelaine.dev/internal/postgres")
	gauge := func(name, about string) (metric.Int64ObservableGauge, error) {
		return meter.Int64ObservableGauge(name, metric.WithUnit("{connection}"), metric.WithDescription(about))
	}
	counter := func(name, about string) (metric.Int64ObservableCounter, error) {
		return meter.Int64ObservableCounter(name, metric.WithUnit("{wait}"), metric.WithDescription(about))
	}
	connections, err1 := gauge("chatelaine.database.connections", "Connections to the database, by state.")
	most, err2 := gauge("chatelaine.database.connections.max", "Connections to the database at most.")
	waits, err3 := counter("chatelaine.database.waits", "Times that no connection was free at once.")
	given, err4 := counter("chatelaine.database.waits.given_up", "Callers that went away before they had a connection.")
	waited, err5 := meter.Float64ObservableCounter("chatelaine.database.wait.duration",
		metric.WithUnit("s"), metric.WithDescription("Time spent waiting for connections, over all callers."))
	for _, err := range []error{err1, err2, err3, err4, err5} {
		if err != nil {
			return fault.Wrap(fault.Internal, err, "cannot make a metric")
		}
	}
	state := func(value string) metric.ObserveOption {
		return metric.WithAttributeSet(attribute.NewSet(attribute.String("state", value)))
	}
	used, idle, opening := state("used"), state("idle"), state("opening")
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		stat := pool.Stat()
		o.ObserveInt64(connections, int64(stat.AcquiredConns()), used)
		o.ObserveInt64(connections, int64(stat.IdleConns()), idle)
		o.ObserveInt64(connections, int64(stat.ConstructingConns()), opening)
		o.ObserveInt64(most, int64(stat.MaxConns()))
		o.ObserveInt64(waits, stat.EmptyAcquireCount())
		o.ObserveInt64(given, stat.CanceledAcquireCount())
		o.ObserveFloat64(waited, stat.EmptyAcquireWaitTime().Seconds())
		return nil
	}, connections, most, waits, given, waited)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "cannot make a metric")
	}
	return nil
}
