package credentials

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"chatelaine.dev/internal/fault"
)

func (m *Manager) meter() metric.Meter {
	return m.cfg.Telemetry.Meter.Meter("chatelaine.dev/services/gateway")
}

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
	return nil
}

// observe registers what is looked at when somebody asks, until the registration
// ends. Only a manager that runs is looked at: gauges have the value of the last one.
func (m *Manager) observe(meter metric.Meter) (metric.Registration, error) {
	var failed error
	gauge := func(name, description string) metric.Int64ObservableGauge {
		g, err := meter.Int64ObservableGauge(name, metric.WithDescription(description))
		failed = errors.Join(failed, err)
		return g
	}
	entries := gauge("chatelaine.gateway.credential.entries", "Credentials in the cache.")
	fresh := gauge("chatelaine.gateway.session_watch.fresh",
		"1 while events of sessions arrive, 0 while cached credentials must be confirmed.")
	known := gauge("chatelaine.gateway.config.known",
		"1 while the token broker answers for the configuration that the gateway runs with, 0 while it does not; nothing before it was asked.")
	age, err := meter.Float64ObservableGauge("chatelaine.gateway.session_watch.age", metric.WithUnit("s"),
		metric.WithDescription("Time since the last message on the watch of sessions, a heartbeat each second; nothing while the watch is not complete."))
	if failed = errors.Join(failed, err); failed != nil {
		return nil, fault.Wrap(fault.Internal, failed, "cannot make a metric")
	}
	observed, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		o.ObserveInt64(entries, int64(m.cache.len()))
		if m.cfg.Sessions {
			o.ObserveInt64(fresh, oneIf(m.fresh(time.Now())))
		}
		if unknown := m.config.unknown.Load(); unknown || m.config.accepted.Load() {
			o.ObserveInt64(known, oneIf(!unknown))
		}
		if heard := m.watch.heard.Load(); heard != nil {
			o.ObserveFloat64(age, time.Since(*heard).Seconds())
		}
		return nil
	}, entries, fresh, known, age)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "cannot make a metric")
	}
	return observed, nil
}

func oneIf(is bool) int64 {
	if is {
		return 1
	}
	return 0
}
