package limits

import (
	"cmp"
	"context"
	"math"
	"runtime/debug"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/telemetry"
)

// Reasons of errors.
const (
	// ReasonBusy: the memory for large messages is in use.
	ReasonBusy = "GATEWAY_BUSY"
	// ReasonRequests: one person has too many requests running.
	ReasonRequests = "TOO_MANY_REQUESTS"
	// ReasonSessions: one person opens sessions too fast.
	ReasonSessions = "TOO_MANY_SESSIONS"
)

// DefaultMaxRequests is how many requests one person may have running at a time.
const DefaultMaxRequests = 128

// One person may open that many sessions at once, and then one more each second.
const (
	sessionBurst = 60
	sessionEvery = time.Second
)

// Config makes Limits.
type Config struct {
	// MaxRequests is how many requests one person may have running at a time; zero
	// means DefaultMaxRequests.
	MaxRequests int
	// MemoryLimit is the process's, in bytes; zero means that of the Go runtime.
	MemoryLimit int64
	// Telemetry is required; see telemetry.Discard.
	Telemetry *telemetry.Telemetry
}

// Limits are those of one process. All of them are safe for concurrent use, and
// nil ones bound nothing.
type Limits struct {
	Memory   *Memory
	Requests *Requests
	Sessions *Rate
}

// New returns limits.
func New(cfg Config) (*Limits, error) {
	if cfg.Telemetry == nil {
		return nil, fault.New(fault.Internal, "limits: Telemetry is required")
	}
	meter := cfg.Telemetry.Meter.Meter("chatelaine.dev/services/gateway")
	counter, errCounter := meter.Int64Counter("chatelaine.gateway.limits.refused",
		metric.WithDescription("Requests that were refused for what they would take, by reason: GATEWAY_BUSY, TOO_MANY_REQUESTS, TOO_MANY_SESSIONS."))
	memory := newMemory(cmp.Or(cfg.MemoryLimit, debug.SetMemoryLimit(-1)))
	_, errGauge := meter.Int64ObservableGauge("chatelaine.gateway.memory.buffered", metric.WithUnit("By"),
		metric.WithDescription("Memory that large messages take at the moment."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(memory.Used())
			return nil
		}))
	if err := cmp.Or(errCounter, errGauge); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "cannot make a metric")
	}
	refused := func(reason string) func() {
		option := metric.WithAttributeSet(attribute.NewSet(attribute.String("reason", reason)))
		return func() { counter.Add(context.Background(), 1, option) }
	}
	memory.refused = refused(ReasonBusy)
	return &Limits{
		Memory:   memory,
		Requests: newRequests(cmp.Or(cfg.MaxRequests, DefaultMaxRequests), refused(ReasonRequests)),
		Sessions: newRate(sessionBurst, sessionEvery, refused(ReasonSessions)),
	}, nil
}

// Caches returns how many bytes each of count caches may take, so that all of
// them together take no more than an eighth of the process's memory limit; at
// most the given number.
func Caches(count int, most int64) int64 {
	return min(most, debug.SetMemoryLimit(-1)/8/int64(count))
}

// unlimited is the memory limit of a runtime that has none.
const unlimited = math.MaxInt64
