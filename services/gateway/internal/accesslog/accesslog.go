// Package accesslog writes one line, and one measurement, for each MCP request.
//
// [Log.Wrap] puts a [Record] into the request's context; whoever learns
// something of the request writes it there:
//
//	Wrap ─▶ Record{Endpoint} ─▶ handler: From(ctx).Method = "tools/call" … ─▶ log line, metric
//
// A line has names, an outcome and a time: no body, header, token, or anything
// that says who the person is beyond a hash. Texts that come from the client
// are cut.
//
// What it leaves out: requests that are no MCP, which package telemetry counts.
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
	labels   sync.Map // labels → metric.MeasurementOption: few, and costly to make
}

type labels struct{ endpoint, method, outcome string }

// New returns a log.
func New(t *telemetry.Telemetry) (*Log, error) {
	duration, err := t.Meter.Meter("chatelaine.dev/services/gateway").Float64Histogram(
		"gateway.mcp.request.duration", metric.WithUnit("s"),
		metric.WithDescription("Time from the first byte of an MCP request to the end of its answer; streams last for as long as they are open."),
		metric.WithExplicitBucketBoundaries(.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 600))
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "cannot make a metric")
	}
	return &Log{logger: t.Logger, duration: duration}, nil
}

// Wrap logs the requests of an endpoint.
func (l *Log) Wrap(endpoint string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodOptions { // a browser's question, not an MCP request
			next.ServeHTTP(w, r)
			return
		}
		start := time.Now()
		rec := &Record{Endpoint: endpoint}
		ctx := context.WithValue(r.Context(), contextKey{}, rec)
		defer l.write(ctx, rec, start)
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

func (l *Log) write(ctx context.Context, rec *Record, start time.Time) {
	took := time.Since(start).Seconds()
	if rec.Outcome == "" {
		rec.Outcome = OutcomeOK
	}
	l.duration.Record(ctx, took, l.option(labels{rec.Endpoint, methodLabel(rec.Method), rec.Outcome}))
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
	attrs = append(attrs, slog.Float64("seconds", took))
	l.logger.LogAttrs(ctx, level, "mcp request", attrs...)
}

// option returns the measurement's labels. Endpoints, methods and outcomes are
// all from fixed sets, which bounds the map.
func (l *Log) option(k labels) metric.MeasurementOption {
	if o, ok := l.labels.Load(k); ok {
		return o.(metric.MeasurementOption) // nothing else is stored
	}
	o := metric.WithAttributeSet(attribute.NewSet(
		attribute.String("endpoint", k.endpoint), attribute.String("method", k.method), attribute.String("outcome", k.outcome)))
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
