package backend

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"chatelaine.dev/internal/bearer"
	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/outbound"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/internal/telemetry"
	"chatelaine.dev/services/gateway/internal/caller"
	"chatelaine.dev/services/gateway/internal/credentials"
)

// DefaultTimeout is how long a backend may take until the headers of its answer.
const DefaultTimeout = 2 * time.Minute

// Credentials gives out credentials. Its errors are *fault.Error.
type Credentials interface {
	// Get returns the credential of c for a backend.
	Get(ctx context.Context, c *caller.Caller, backend string) (*credentials.Credential, error)
	// Rejected says that the backend answered 401 to a credential, and reports
	// whether Get now returns another one.
	Rejected(ctx context.Context, c *caller.Caller, backend string, rejected *credentials.Credential) (renewed bool, err error)
}

// Config makes a Client.
type Config struct {
	// Backends that can be called. Required.
	Backends []config.Backend
	// Credentials for them. Required.
	Credentials Credentials
	// Secrets resolves headerForward and caBundleRef. Required where used.
	Secrets *secret.Resolver
	// Timeout bounds the time until the headers of an answer; zero means
	// DefaultTimeout. Timeouts has other values by backend.
	Timeout  time.Duration
	Timeouts map[string]time.Duration
	// Dials overrides where some HOST:PORT are found.
	Dials outbound.Dials
	// Telemetry is required; see telemetry.Discard.
	Telemetry *telemetry.Telemetry
}

func (c *Config) timeout(backend string) time.Duration {
	switch {
	case c.Timeouts[backend] > 0:
		return c.Timeouts[backend]
	case c.Timeout > 0:
		return c.Timeout
	}
	return DefaultTimeout
}

// Request is what a backend is asked.
type Request struct {
	Method string
	// Header is not changed. Headers that are a client's credentials, or concern
	// its connection only, are left out.
	Header http.Header
	// Body must not change any more, also after Do has returned: a backend may
	// answer while it is still being sent. Nil for none.
	Body []byte
}

// Client calls backends. It is safe for concurrent use.
type Client struct {
	credentials Credentials
	targets     map[string]*target
	tracer      trace.Tracer
	propagator  propagation.TextMapPropagator
	duration    metric.Float64Histogram
}

// New makes a client. Errors are Invalid or Precondition and name the backend.
func New(cfg Config) (*Client, error) {
	if cfg.Credentials == nil || cfg.Telemetry == nil {
		return nil, fault.New(fault.Internal, "backend: a client needs Credentials and Telemetry")
	}
	if cfg.Secrets == nil {
		cfg.Secrets = &secret.Resolver{}
	}
	duration, err := cfg.Telemetry.Meter.Meter("chatelaine.dev/services/gateway").Float64Histogram(
		"chatelaine.gateway.backend.request.duration", metric.WithUnit("s"),
		metric.WithDescription("Time until the headers of a backend's answer, its credential included."),
		metric.WithExplicitBucketBoundaries(.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120))
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "cannot make a metric")
	}
	c := &Client{
		credentials: cfg.Credentials, targets: make(map[string]*target, len(cfg.Backends)),
		tracer:     cfg.Telemetry.Tracer.Tracer("chatelaine.dev/services/gateway/internal/backend"),
		propagator: cfg.Telemetry.Propagator, duration: duration,
	}
	for i := range cfg.Backends {
		t, err := newTarget(&cfg.Backends[i], &cfg)
		if err != nil {
			return nil, err
		}
		c.targets[t.name] = t
	}
	return c, nil
}

// Do sends r to b for who and returns the answer with its body unread; the
// caller closes it. One request leaves, or two when the backend answers 401 to
// the first one and another credential can be had. Errors are *fault.Error: one
// of this package's reasons or those of package credentials, with the backend's
// name in the metadata.
func (c *Client) Do(ctx context.Context, who *caller.Caller, b *config.Backend, r *Request) (*http.Response, error) {
	t, ok := c.targets[b.Name]
	if !ok {
		return nil, fault.Newf(fault.NotFound, "there is no backend %q", b.Name).WithReason(ReasonUnknown)
	}
	start := time.Now()
	ctx, span := c.tracer.Start(ctx, "backend", trace.WithSpanKind(trace.SpanKindClient))
	defer span.End()
	if span.IsRecording() {
		span.SetAttributes(attribute.String("backend", t.name), attribute.String("http.request.method", r.Method))
	}
	resp, err := c.do(ctx, who, t, r)
	outcome := outcomeOf(resp, err)
	c.duration.Record(ctx, time.Since(start).Seconds(), t.measured[outcome])
	if span.IsRecording() {
		span.SetAttributes(attribute.String("outcome", outcome))
	}
	if err != nil {
		return nil, t.named(err)
	}
	return resp, nil
}

func (c *Client) do(ctx context.Context, who *caller.Caller, t *target, r *Request) (*http.Response, error) {
	cred, err := c.credentials.Get(ctx, who, t.name)
	if err != nil {
		return nil, err
	}
	resp, err := c.send(ctx, who, t, cred, r)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return t.checked(resp, cred, err)
	}
	discard(resp)
	if cred.Version == "" { // nothing that could be renewed
		return nil, t.rejected(cred)
	}
	renewed, err := c.credentials.Rejected(ctx, who, t.name, cred)
	if err != nil {
		return nil, err
	}
	if !renewed {
		return nil, t.rejected(cred)
	}
	again, err := c.credentials.Get(ctx, who, t.name)
	if err != nil {
		return nil, err
	}
	if again.Version == cred.Version {
		return nil, t.rejected(cred)
	}
	resp, err = c.send(ctx, who, t, again, r)
	if err == nil && resp.StatusCode == http.StatusUnauthorized {
		discard(resp)
		return nil, t.rejected(again)
	}
	return t.checked(resp, again, err)
}

// errHeaderTimeout is the cause of a context that ended before the headers came.
var errHeaderTimeout = errors.New("no answer within the backend's timeout")

// send does one round trip. The context of the request lives until the body is
// closed, or the caller's token is no longer good.
func (c *Client) send(ctx context.Context, who *caller.Caller, t *target, cred *credentials.Credential, r *Request) (*http.Response, error) {
	header := t.header(r.Header)
	if len(cred.Headers) > 0 {
		if cred.Origin != t.origin {
			return nil, fault.New(fault.Internal, "the credential is for another origin than the backend's").WithReason(ReasonOrigin)
		}
		for i := range cred.Headers {
			header[cred.Headers[i].Name] = []string{cred.Headers[i].Value.Reveal()}
		}
	}
	c.propagator.Inject(ctx, propagation.HeaderCarrier(header))

	ctx, cancel := context.WithCancelCause(ctx)
	b := &body{ctx: ctx, cancel: cancel}
	b.timer = time.AfterFunc(t.timeout, b.overdue)
	resp, err := t.transport.RoundTrip(t.request(ctx, header, r))
	inTime := b.timer.Stop()
	if err == nil && !inTime && ctx.Err() != nil { // too late after all
		resp.Body.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		err = t.failure(ctx, err)
		cancel(nil)
		return nil, err
	}
	b.ReadCloser, resp.Body = resp.Body, b
	if !who.ExpiresAt.IsZero() {
		b.began.Store(true)
		b.timer.Reset(left(who, resp))
	}
	return resp, nil
}

// lateAnswer is how long an answer may take that begins when its caller's token is
// no longer good: the backend has acted.
const lateAnswer = 30 * time.Second

// left is how long the body of an answer may take. Streams end with the token.
func left(who *caller.Caller, resp *http.Response) time.Duration {
	left := time.Until(who.ExpiresAt.Add(bearer.DefaultLeeway))
	if left >= lateAnswer {
		return left
	}
	if t, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err == nil && t == "text/event-stream" {
		return left
	}
	return lateAnswer
}

func errExpired() error {
	return fault.New(fault.Unauthenticated, "the access token has expired").WithReason(ReasonTokenExpired)
}

// Interrupt ends the body of an answer of Do; reading it fails with cause.
func Interrupt(resp *http.Response, cause error) {
	if b, ok := resp.Body.(*body); ok {
		b.cancel(cause)
	}
}

func (t *target) request(ctx context.Context, header http.Header, r *Request) *http.Request {
	req := &http.Request{
		Method: r.Method, URL: t.url, Host: t.url.Host, Header: header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
	if len(r.Body) > 0 {
		content := r.Body
		req.ContentLength = int64(len(content))
		req.Body = io.NopCloser(bytes.NewReader(content))
		// For a kept connection that turns out to be closed before anything was
		// written; net/http never repeats a POST of which a byte went out.
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }
	}
	return req.WithContext(ctx)
}

// body ends the request's context when it is closed.
type body struct {
	io.ReadCloser

	ctx    context.Context // the request's own
	cancel context.CancelCauseFunc
	timer  *time.Timer
	began  atomic.Bool // the headers are there
}

// overdue ends the request when its time is up.
func (b *body) overdue() {
	if b.began.Load() {
		b.cancel(errExpired())
		return
	}
	b.cancel(errHeaderTimeout)
}

// Read implements io.Reader. Whoever ended the context has said why.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		if f, ok := fault.As(context.Cause(b.ctx)); ok {
			err = f
		}
	}
	return n, err
}

func (b *body) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

const (
	// discardLimit is what is read, in bytes, of an answer that nobody wants, so
	// that its connection can be used again; discardTime is how long that may take.
	discardLimit = 4 << 10
	discardTime  = 50 * time.Millisecond
)

func discard(resp *http.Response) {
	stop := func() { _ = resp.Body.Close() }
	if b, ok := resp.Body.(*body); ok {
		stop = func() { b.cancel(errDiscarded) }
	}
	timer := time.AfterFunc(discardTime, stop)
	_, _ = io.CopyN(io.Discard, resp.Body, discardLimit)
	timer.Stop()
	_ = resp.Body.Close()
}

// errDiscarded is the cause of a context whose answer nobody wants.
var errDiscarded = errors.New("the answer is not needed")
