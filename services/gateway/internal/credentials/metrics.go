package credentials

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"chatelaine.dev/internal/fault"
)

func (m *Manager) instrument(meter metric.Meter) error {
	var err error
	m.requests, err = meter.Int64Counter("chatelaine.gateway.credential.requests",
		metric.WithDescription("Credentials that were asked for, by how they were had: hit, miss, confirm (the watch was silent)."))
	if err != nil {
		return fault.Wrap(fault.Internal, err, "cannot make a metric")
	}
	option := func(how string) metric.MeasurementOption {
		return metric.WithAttributeSet(attribute.NewSet(attribute.String("cache", how)))
	}
	m.hit, m.missed, m.confirms = option("hit"), option("miss"), option("confirm")
	return m.observe(meter)
}

// observe registers what is looked at when somebody asks.
func (m *Manager) observe(meter metric.Meter) error {
	for _, g := range []struct {
		name, unit, description string
		value                   func(now time.Time) (int64, bool)
	}{
		{
			"chatelaine.gateway.credential.entries", "", "Credentials in the cache.",
			func(time.Time) (int64, bool) { return int64(m.cache.len()), true },
		},
		{
			"chatelaine.gateway.session_watch.fresh", "", "1 while events of sessions arrive, 0 while cached credentials must be confirmed.",
			func(now time.Time) (int64, bool) { return oneIf(m.fresh(now)), m.cfg.Sessions },
		},
		{
			"chatelaine.gateway.config.known", "", "1 while the token broker answers for the configuration that the gateway runs with, 0 while it does not; nothing before it was asked.",
			func(time.Time) (int64, bool) {
				unknown := m.config.unknown.Load()
				return oneIf(!unknown), unknown || m.config.accepted.Load()
			},
		},
	} {
		_, err := meter.Int64ObservableGauge(g.name, metric.WithUnit(g.unit), metric.WithDescription(g.description),
			metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
				if v, ok := g.value(time.Now()); ok {
					o.Observe(v)
				}
				return nil
			}))
		if err != nil {
			return fault.Wrap(fault.Internal, err, "cannot make a metric")
		}
	}
	_, err := meter.Float64ObservableGauge("chatelaine.gateway.session_watch.age", metric.WithUnit("s"),
		metric.WithDescription("Time since the last message on the watch of sessions, a heartbeat each second; nothing while the watch is not complete."),
		metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
			if heard := m.watch.heard.Load(); heard != 0 {
				o.Observe(time.Since(time.Unix(0, heard)).Seconds())
			}
			return nil
		}))
	if err != nil {
		return fault.Wrap(fault.Internal, err, "cannot make a metric")
	}
	return nil
}

func oneIf(is bool) int64 {
	if is {
		return 1
	}
	return 0
}
