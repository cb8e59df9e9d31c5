package telemetry

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	noopmetric "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"

	"chatelaine.dev/internal/fault"
)

// RequestIDHeader carries the request's id in answers.
const RequestIDHeader = "X-Request-Id"

// HTTPConfig makes a middleware.
type HTTPConfig struct {
	// Server is put on metrics and logs, for services with several listeners.
	Server string
	// Public says that strangers call: a trace of theirs is linked to, not
	// continued, and a request id of theirs is not taken.
	Public bool
	// JoinTraces continues the traces of strangers all the same, so that one id
	// finds a request from their side to the last server. See Config.PublicTraces.
	JoinTraces bool
	// AccessLevel is the level of the access log; server errors are one level
	// up. The zero value is slog.LevelInfo.
	AccessLevel slog.Level
}

// durationBuckets in seconds; streams last minutes.
var durationBuckets = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 600}

// unmatched is the route of a request that no pattern took.
const unmatched = "unmatched"

// Middleware traces, measures, logs and guards each request. It passes writes
// on unbuffered; http.Flusher and http.ResponseController work. Put it around
// the http.ServeMux: the route's name is the pattern that the mux matched (or
// what SetRoute said).
//
// A panic is logged with its stack and answered with 500, or, when the answer
// had begun, by breaking the connection so that no client takes it for whole.
func (t *Telemetry) Middleware(cfg HTTPConfig) func(http.Handler) http.Handler {
	meter := t.Meter.Meter("chatelaine.dev/internal/telemetry")
	duration, err := meter.Float64Histogram("http.server.request.duration",
		metric.WithUnit("s"), metric.WithDescription("Time from a request's first byte to the end of its answer."),
		metric.WithExplicitBucketBoundaries(durationBuckets...))
	if err != nil {
		t.Logger.Error("metric", fault.Attr(err))
	}
	active, err := meter.Int64UpDownCounter("http.server.active_requests",
		metric.WithUnit("{request}"), metric.WithDescription("Requests being served."))
	if err != nil {
		t.Logger.Error("metric", fault.Attr(err))
	}
	m := &middleware{
		cfg: cfg, logger: t.Logger, duration: duration, active: active,
		server: attribute.String("server", cfg.Server),
	}
	opts := []otelhttp.Option{
		otelhttp.WithTracerProvider(t.Tracer),
		otelhttp.WithMeterProvider(noopmetric.NewMeterProvider()), // its labels have no bound
		otelhttp.WithPropagators(t.Propagator),
		otelhttp.WithSpanNameFormatter(spanName),
	}
	if cfg.Public && !cfg.JoinTraces {
		opts = append(opts, otelhttp.WithPublicEndpointFn(func(*http.Request) bool { return true }))
	}
	return func(next http.Handler) http.Handler {
		return otelhttp.NewMiddleware(cfg.Server, opts...)(m.wrap(next))
	}
}

type middleware struct {
	cfg      HTTPConfig
	logger   *slog.Logger
	duration metric.Float64Histogram
	active   metric.Int64UpDownCounter
	server   attribute.KeyValue
}

func (m *middleware) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, outer *http.Request) {
		start := time.Now()
		id := m.requestID(outer)
		route := &routeName{}
		ctx := context.WithValue(WithRequestID(outer.Context(), id), routeKey{}, route)
		r := outer.WithContext(ctx)
		rec := &recorder{ResponseWriter: w}
		w.Header().Set(RequestIDHeader, id)

		method := attribute.String("http.request.method", methodName(r.Method))
		inFlight := metric.WithAttributeSet(attribute.NewSet(m.server, method))
		m.active.Add(ctx, 1, inFlight)
		defer m.active.Add(ctx, -1, inFlight)

		defer func() {
			broken := m.recovered(ctx, rec, recover())
			outer.Pattern = r.Pattern // otelhttp names its span by it
			if route.name != "" {
				outer.Pattern = route.name
			}
			m.record(ctx, rec, r, route, method, time.Since(start))
			if broken {
				panic(http.ErrAbortHandler)
			}
		}()
		next.ServeHTTP(rec, r)
	})
}

// recovered deals with a panic's value; it reports whether the connection must break.
func (m *middleware) recovered(ctx context.Context, rec *recorder, v any) (broken bool) {
	if v == nil {
		return false
	}
	if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		return true
	}
	m.logger.ErrorContext(ctx, "panic in an HTTP handler",
		slog.String("panic", fmt.Sprint(v)), slog.String("stack", string(debug.Stack())))
	if rec.status != 0 {
		return true
	}
	http.Error(rec, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
	return false
}

func (m *middleware) record(ctx context.Context, rec *recorder, r *http.Request, route *routeName, method attribute.KeyValue, took time.Duration) {
	name, status := route.of(r), rec.code()
	trace.SpanFromContext(ctx).SetAttributes(attribute.String("http.route", name))
	m.duration.Record(ctx, took.Seconds(), metric.WithAttributeSet(attribute.NewSet(
		m.server, method, attribute.String("http.route", name), attribute.Int("http.response.status_code", status))))
	level := m.cfg.AccessLevel
	if status >= http.StatusInternalServerError {
		level += 4
	}
	if !m.logger.Enabled(ctx, level) {
		return
	}
	m.logger.LogAttrs(ctx, level, "request",
		slog.String("server", m.cfg.Server),
		slog.String("method", method.Value.AsString()),
		slog.String("route", name),
		slog.Int("status", status),
		slog.Int64("bytes", rec.bytes),
		slog.Float64("seconds", took.Seconds()))
}

func (m *middleware) requestID(r *http.Request) string {
	if !m.cfg.Public {
		if id := r.Header.Get(RequestIDHeader); validRequestID(id) {
			return id
		}
	}
	return rand.Text()
}

func validRequestID(id string) bool {
	if len(id) == 0 || len(id) > 64 {
		return false
	}
	odd := func(c rune) bool {
		letter, digit := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z', c >= '0' && c <= '9'
		return !letter && !digit && c != '-' && c != '_' && c != '.'
	}
	return !strings.ContainsFunc(id, odd)
}

type routeKey struct{}

type routeName struct{ name string }

// SetRoute names the route of the request for metrics, logs and the span. It is
// for handlers that no mux pattern names; name must be one of a fixed set.
func SetRoute(ctx context.Context, name string) {
	if r, ok := ctx.Value(routeKey{}).(*routeName); ok {
		r.name = name
	}
}

func (n *routeName) of(r *http.Request) string {
	switch {
	case n.name != "":
		return n.name
	case r.Pattern != "":
		return patternPath(r.Pattern)
	}
	return unmatched
}

// patternPath drops the method of a mux pattern.
func patternPath(pattern string) string {
	if _, path, ok := strings.Cut(pattern, " "); ok {
		return path
	}
	return pattern
}

func spanName(_ string, r *http.Request) string {
	if r.Pattern == "" {
		return methodName(r.Method)
	}
	return methodName(r.Method) + " " + patternPath(r.Pattern)
}

func methodName(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodOptions, http.MethodConnect, http.MethodTrace:
		return method
	}
	return "_OTHER"
}

// recorder notes status and size. Unwrap lets http.ResponseController reach the
// server's own writer.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= http.StatusOK { // 1xx are not the answer yet
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

// Flush implements http.Flusher for handlers that assert it. Writers that cannot
// flush do nothing, as the interface has no way to say so.
func (r *recorder) Flush() {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	_ = http.NewResponseController(r.ResponseWriter).Flush()
}

func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// code is the status that the client saw.
func (r *recorder) code() int {
	if r.status == 0 {
		return http.StatusOK // a handler that wrote nothing
	}
	return r.status
}
