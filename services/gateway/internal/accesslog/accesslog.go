package accesslog

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/telemetry"
	"chatelaine.dev/services/gateway/internal/aggregate/era"
)

// Outcomes of a request.
const (
	OutcomeOK = "ok"
	// OutcomeRefused: the request was not acceptable (malformed, no token …).
	OutcomeRefused = "refused"
	// OutcomeUser: a person must do something (connect a provider).
	OutcomeUser = "user_required"
	// OutcomeFailed: a backend, the broker or a provider failed.
	OutcomeFailed = "failed"
	// OutcomeCanceled: the client went away.
	OutcomeCanceled = "canceled"
)

// maxText bounds texts of the client, in bytes.
const maxText = 128

// Record is what is known of a request. It belongs to the request's goroutine.
type Record struct {
	// Endpoint is a backend's name, or "aggregate".
	Endpoint string
	// Backend that the request went to; empty for none or several.
	Backend string
	// Method of JSON-RPC, or "batch", "stream" (GET), "end" (DELETE).
	Method string
	// Tool, prompt or resource that the method is about.
	Tool string
	// Caller is the start of the hash that stands for the person.
	Caller string
	// Outcome; empty means OutcomeOK.
	Outcome string
	// Reason of an outcome that is not OK.
	Reason string

	era string
}

type contextKey struct{}

// From returns the record of a request. Outside of Wrap it is one that nobody
// reads.
func From(ctx context.Context) *Record {
	if r, ok := ctx.Value(contextKey{}).(*Record); ok {
		return r
	}
	return &Record{}
}

// Fail notes an outcome and why.
func (r *Record) Fail(outcome, reason string) { r.Outcome, r.Reason = outcome, reason }

// SetCaller notes who calls; key is caller.Caller's.
func (r *Record) SetCaller(key string) { r.Caller = key[:min(len(key), 12)] }

// Log writes the lines.
type Log struct {
	logger   *slog.Logger
	duration metric.Float64Histogram
	requests metric.Int64Counter
	// Labels of the two, few and costly to make: of type took and counted to
	// metric.MeasurementOption.
	labels sync.Map
}

// took are the labels of the duration, counted those of the number of requests.
// Together they would be too many.
type (
	took    struct{ endpoint, method, outcome string }
	counted struct{ endpoint, backend, era, outcome string }
)

// Eras of the protocol, as labels.
const (
	eraSession   = "session"
	eraStateless = "stateless"
)

// New returns a log.
func New(t *telemetry.Telemetry) (*Log, error) {
	meter := t.Meter.Meter("chatelaine.dev/services/gateway")
	duration, err := meter.Float64Histogram("chatelaine.gateway.request.duration", metric.WithUnit("s"),
		metric.WithDescription("Time from the first byte of an MCP request to the end of its answer; streams last for as long as they are open."),
		metric.WithExplicitBucketBoundaries(.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 600))
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "cannot make a metric")
	}
	requests, err := meter.Int64Counter("chatelaine.gateway.requests",
		metric.WithDescription("MCP requests, by endpoint, the backend that they went to (empty for none or several), era of the protocol and outcome."))
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "cannot make a metric")
	}
	return &Log{logger: t.Logger, duration: duration, requests: requests}, nil
}

// Wrap logs the requests of an endpoint.
func (l *Log) Wrap(endpoint string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodOptions { // a browser's question, not an MCP request
			next.ServeHTTP(w, r)
			return
		}
		start := time.Now()
		rec := &Record{Endpoint: endpoint, era: eraSession}
		if era.IsStateless(r.Header.Get("Mcp-Protocol-Version")) {
			rec.era = eraStateless
		}
		ctx := context.WithValue(r.Context(), contextKey{}, rec)
		defer l.write(ctx, rec, start)
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

func (l *Log) write(ctx context.Context, rec *Record, start time.Time) {
	seconds := time.Since(start).Seconds()
	if rec.Outcome == "" {
		rec.Outcome = OutcomeOK
	}
	l.duration.Record(ctx, seconds, l.took(took{rec.Endpoint, methodLabel(rec.Method), rec.Outcome}))
	l.requests.Add(ctx, 1, l.counted(counted{rec.Endpoint, rec.Backend, rec.era, rec.Outcome}))
	level := slog.LevelInfo
	if rec.Outcome == OutcomeFailed {
		level = slog.LevelWarn
	}
	if !l.logger.Enabled(ctx, level) {
		return
	}
	attrs := make([]slog.Attr, 0, 8)
	for _, a := range [...]slog.Attr{
		slog.String("endpoint", rec.Endpoint), slog.String("backend", rec.Backend),
		slog.String("method", cut(rec.Method)), slog.String("tool", cut(rec.Tool)),
		slog.String("caller", rec.Caller), slog.String("outcome", rec.Outcome), slog.String("reason", rec.Reason),
	} {
		if a.Value.String() != "" {
			attrs = append(attrs, a)
		}
	}
	attrs = append(attrs, slog.Float64("seconds", seconds))
	l.logger.LogAttrs(ctx, level, "mcp request", attrs...)
}

// took returns the duration's labels. Endpoints, methods and outcomes are all from
// fixed sets, which bounds the map.
func (l *Log) took(k took) metric.MeasurementOption {
	if o, ok := l.labels.Load(k); ok {
		return o.(metric.MeasurementOption) // nothing else is stored
	}
	o := metric.WithAttributeSet(attribute.NewSet(
		attribute.String("endpoint", k.endpoint), attribute.String("method", k.method), attribute.String("outcome", k.outcome)))
	l.labels.Store(k, o)
	return o
}

// counted returns the labels of the number of requests, which are from fixed sets
// as well.
func (l *Log) counted(k counted) metric.MeasurementOption {
	if o, ok := l.labels.Load(k); ok {
		return o.(metric.MeasurementOption)
	}
	o := metric.WithAttributeSet(attribute.NewSet(
		attribute.String("endpoint", k.endpoint), attribute.String("backend", k.backend),
		attribute.String("era", k.era), attribute.String("outcome", k.outcome)))
	l.labels.Store(k, o)
	return o
}

func cut(s string) string {
	if len(s) > maxText {
		return s[:maxText] + "…"
	}
	return s
}

// methodLabel keeps the metric's labels few: clients can name any method.
func methodLabel(method string) string {
	switch method {
	case "", "batch", "stream", "end", "answer",
		"initialize", "ping", "server/discover",
		"tools/call", "tools/list", "prompts/get", "prompts/list",
		"resources/read", "resources/list", "resources/templates/list", "resources/subscribe", "resources/unsubscribe",
		"completion/complete", "logging/setLevel", "subscriptions/listen",
		"notifications/initialized", "notifications/cancelled", "notifications/progress":
		return method
	}
	return "_OTHER"
}
