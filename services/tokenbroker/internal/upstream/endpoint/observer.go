package endpoint

import (
	"context"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/tokenbroker/internal/reason"
)

const scope = "chatelaine.dev/services/tokenbroker/internal/upstream"

// Observer makes one span and one measurement of each request: rate, errors and
// duration by server and operation. It also counts exchanged tokens, cached ones
// too. A nil Observer does nothing.
type Observer struct {
	tracer     trace.Tracer
	propagator propagation.TextMapPropagator
	duration   metric.Float64Histogram
	exchanges  metric.Int64Counter
}

// NewObserver returns an observer. The propagator may be nil: then servers are
// not told the trace.
func NewObserver(tp trace.TracerProvider, mp metric.MeterProvider, p propagation.TextMapPropagator) (*Observer, error) {
	meter := mp.Meter(scope)
	duration, err := meter.Float64Histogram("chatelaine.tokenbroker.upstream.request.duration",
		metric.WithUnit("s"),
		metric.WithDescription("Duration of requests to identity providers and token services."),
		metric.WithExplicitBucketBoundaries(.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10))
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "cannot make the upstream metrics")
	}
	exchanges, err := meter.Int64Counter("chatelaine.tokenbroker.exchanges", metric.WithUnit("{exchange}"),
		metric.WithDescription("Exchanged tokens that were needed, by configuration, by source (cache or service) and by outcome."))
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "cannot make the upstream metrics")
	}
	return &Observer{tracer: tp.Tracer(scope), propagator: p, duration: duration, exchanges: exchanges}, nil
}

// Exchanged counts what a configuration's exchange came to. cached says that the
// token service was not asked.
func (o *Observer) Exchanged(ctx context.Context, configuration string, cached bool, err error) {
	if o == nil {
		return
	}
	source := "service"
	if cached {
		source = "cache"
	}
	o.exchanges.Add(context.WithoutCancel(ctx), 1, metric.WithAttributes(
		attribute.String("configuration", configuration), attribute.String("source", source),
		attribute.String("outcome", outcome(err))))
}

func (o *Observer) start(ctx context.Context, server, operation string) (context.Context, func(error)) {
	if o == nil {
		return ctx, func(error) {}
	}
	begin := time.Now()
	attrs := []attribute.KeyValue{attribute.String("server", server), attribute.String("operation", operation)}
	ctx, span := o.tracer.Start(ctx, server+" "+operation,
		trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attrs...))
	return ctx, func(err error) {
		result := outcome(err)
		attrs = append(attrs, attribute.String("outcome", result))
		// ctx may have ended; a measurement does not care.
		o.duration.Record(context.WithoutCancel(ctx), time.Since(begin).Seconds(), metric.WithAttributes(attrs...))
		span.SetAttributes(attrs[2:]...)
		if err != nil {
			span.SetStatus(codes.Error, fault.From(err).Error()) // the public text
		}
		span.End()
	}
}

func (o *Observer) inject(ctx context.Context, h http.Header) {
	if o == nil || o.propagator == nil {
		return
	}
	o.propagator.Inject(ctx, propagation.HeaderCarrier(h))
}

func outcome(err error) string {
	if err == nil {
		return "ok"
	}
	f := fault.From(err)
	switch {
	case f.Kind == fault.Canceled:
		return "canceled"
	case f.Reason == reason.UpstreamRefused:
		return "refused"
	case f.Reason == reason.IdentityInvalid:
		return "identity_invalid"
	case f.Reason == reason.UpstreamUnavailable:
		return "unavailable"
	}
	return "error"
}
