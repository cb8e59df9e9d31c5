package streams

import (
	"cmp"
	"context"
	"net/http"
	"strconv"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"chatelaine.dev/internal/bearer"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/telemetry"
	"chatelaine.dev/services/gateway/internal/accesslog"
	"chatelaine.dev/services/gateway/internal/caller"
)

// defaultMaxPerCaller is how many streams one login session may have at a time.
const defaultMaxPerCaller = 64

// Reasons of errors, and of contexts that ended.
const (
	ReasonDraining     = "DRAINING"
	ReasonTokenExpired = "TOKEN_EXPIRED"
	reasonTooMany      = "TOO_MANY_STREAMS"
)

// retryAfter is what clients are asked to wait before they try again.
const retryAfter = 5 * time.Second

// Config makes Streams.
type Config struct {
	// MaxPerCaller bounds the streams of one login session, or with an external
	// issuer of one person, at a time; zero means 64.
	MaxPerCaller int
	// Telemetry is required; see telemetry.Discard.
	Telemetry *telemetry.Telemetry
}

// Streams knows the streams that are open. It is safe for concurrent use.
type Streams struct {
	most    int
	drained context.Context // a broadcast, not a request's
	drain   context.CancelFunc
	open    metric.Int64UpDownCounter
	refused metric.Int64Counter

	mu    sync.Mutex
	count map[string]int // by caller
}

// New returns Streams.
func New(cfg Config) (*Streams, error) {
	if cfg.Telemetry == nil {
		return nil, fault.New(fault.Internal, "streams: Telemetry is required")
	}
	s := &Streams{most: cmp.Or(cfg.MaxPerCaller, defaultMaxPerCaller), count: make(map[string]int)}
	meter := cfg.Telemetry.Meter.Meter("chatelaine.dev/services/gateway")
	var err, errRefused error
	s.open, err = meter.Int64UpDownCounter("chatelaine.gateway.streams.open",
		metric.WithDescription("Streams of messages that clients have open, by endpoint."))
	s.refused, errRefused = meter.Int64Counter("chatelaine.gateway.streams.refused",
		metric.WithDescription("Streams that were refused, by reason: TOO_MANY_STREAMS, DRAINING."))
	if err := cmp.Or(err, errRefused); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "cannot make a metric")
	}
	s.drained, s.drain = context.WithCancel(context.Background())
	return s, nil
}

// Drain ends all streams, and refuses new ones. It does not block.
func (s *Streams) Drain() { s.drain() }

// Open returns a context for a stream of who that ends, with a *fault.Error as
// its cause, when who's access token does or Drain is called. done must be called
// when the stream is over. Errors are Exhausted when who has too many streams,
// and Unavailable after Drain.
func (s *Streams) Open(ctx context.Context, who *caller.Caller, endpoint string) (opened context.Context, done func(), err error) {
	if s.drained.Err() != nil {
		s.refuse(ctx, ReasonDraining)
		return nil, nil, errDraining()
	}
	key := keyOf(who)
	if !who.Anonymous && !s.take(key) {
		s.refuse(ctx, reasonTooMany)
		return nil, nil, fault.Newf(fault.Exhausted, "there are %d streams open already; close one, or try again later", s.most).
			WithReason(reasonTooMany).WithRetryAfter(retryAfter)
	}
	where := where(endpoint)
	s.open.Add(ctx, 1, where)
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(s.drained, func() { cancel(errDraining()) })
	expire := func() {}
	opened = ctx
	if !who.ExpiresAt.IsZero() {
		opened, expire = context.WithDeadlineCause(ctx, who.ExpiresAt.Add(bearer.DefaultLeeway), errExpired())
	}
	return opened, func() {
		expire()
		stop()
		cancel(nil)
		s.open.Add(context.WithoutCancel(ctx), -1, where)
		if !who.Anonymous {
			s.give(key)
		}
	}, nil
}

// longAfter is when a stream that answers a request counts as one that lasts.
const longAfter = 30 * time.Second

// Answer is told of a stream that answers a request of who. Most are over soon,
// and are requests like any other until then: they end on their own also after
// Drain. One that lasts takes its place among the streams of who, whether there is
// one or not, and end is called with the cause, a *fault.Error, when Drain is. The
// end of the access token is not this function's. done must be called when the
// stream is over.
func (s *Streams) Answer(ctx context.Context, who *caller.Caller, endpoint string, end func(cause error)) (done func()) {
	a := &answer{streams: s, ctx: context.WithoutCancel(ctx), who: who, end: end, where: where(endpoint)}
	a.timer = time.AfterFunc(longAfter, a.last)
	return a.done
}

type answer struct {
	streams *Streams
	ctx     context.Context // for the metric
	who     *caller.Caller
	where   metric.MeasurementOption
	end     func(error)
	timer   *time.Timer

	mu       sync.Mutex
	over     bool
	stopWait func() bool // not nil: it lasts
}

// last makes it one that lasts.
func (a *answer) last() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over {
		return
	}
	s := a.streams
	if !a.who.Anonymous {
		s.force(keyOf(a.who))
	}
	s.open.Add(a.ctx, 1, a.where)
	a.stopWait = context.AfterFunc(s.drained, func() { a.end(errDraining()) })
}

func (a *answer) done() {
	a.timer.Stop()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
	if a.stopWait == nil {
		return
	}
	a.stopWait()
	a.streams.open.Add(a.ctx, -1, a.where)
	if !a.who.Anonymous {
		a.streams.give(keyOf(a.who))
	}
}

func keyOf(who *caller.Caller) string { return cmp.Or(who.SessionID, who.Key) }

func where(endpoint string) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(attribute.String("endpoint", endpoint)))
}

func (s *Streams) refuse(ctx context.Context, reason string) {
	s.refused.Add(ctx, 1, metric.WithAttributeSet(attribute.NewSet(attribute.String("reason", reason))))
}

func (s *Streams) take(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count[key] >= s.most {
		return false
	}
	s.count[key]++
	return true
}

func (s *Streams) force(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count[key]++
}

func (s *Streams) give(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count[key]--; s.count[key] == 0 {
		delete(s.count, key)
	}
}

// Wrap opens a stream for each GET request of next, which finds the caller in
// the request's context.
func (s *Streams) Wrap(endpoint string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who, ok := caller.FromContext(r.Context())
		if r.Method != http.MethodGet || !ok { // next knows what to say to a request without a caller
			next.ServeHTTP(w, r)
			return
		}
		ctx, done, err := s.Open(r.Context(), who, endpoint)
		if err != nil {
			f := fault.From(err)
			accesslog.From(r.Context()).Fail(accesslog.OutcomeRefused, f.Reason)
			SetRetryAfter(w.Header(), f)
			http.Error(w, f.Error(), f.Kind.HTTPStatus())
			return
		}
		defer done()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// SetRetryAfter sets the header Retry-After when err says how long to wait.
func SetRetryAfter(h http.Header, err error) {
	if f := fault.From(err); f.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(max(1, f.RetryAfter.Seconds()))))
	}
}

func errDraining() error {
	return fault.New(fault.Unavailable, "the gateway is stopping; connect again").WithReason(ReasonDraining).WithRetryAfter(time.Second)
}

func errExpired() error {
	return fault.New(fault.Unauthenticated, "the access token has expired").WithReason(ReasonTokenExpired)
}
