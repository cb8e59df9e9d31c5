package outbound

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/url"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	noopmetric "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
)

// DefaultTimeout is the total deadline of a call: from the dial to the last byte.
const DefaultTimeout = 10 * time.Second

// Config makes a client.
type Config struct {
	// Timeout is the total deadline; zero means DefaultTimeout, negative none
	// (for streams; then the caller's context bounds the call).
	Timeout time.Duration
	// Policy says where the client may connect.
	Policy Policy
	// Dials overrides where some HOST:PORT are found.
	Dials Dials
	// RootCAs replaces the system's certificate authorities; see LoadCAs.
	RootCAs *x509.CertPool

	// Tracer and Propagator trace the calls of New's client; nil means no tracing.
	Tracer     trace.TracerProvider
	Propagator propagation.TextMapPropagator
}

const maxHeaderBytes = 64 << 10

// New returns a client. A redirect is returned as the response that it is. Errors are *fault.Error: Unavailable with reason
// "outbound_refused" (the policy), "outbound_failed" (no connection, broken
// answer), Timeout or Canceled. None shows more of the URL than its host.
func New(cfg Config) *http.Client {
	timeout := cfg.Timeout
	switch {
	case timeout == 0:
		timeout = DefaultTimeout
	case timeout < 0:
		timeout = 0
	}
	return &http.Client{
		Transport:     &hidingTransport{next: traced(NewTransport(cfg), &cfg)},
		Timeout:       timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// NewTransport returns the client's transport alone, for reverse proxies, which may
// tune it. Its errors are those of net/http, and it traces nothing.
func NewTransport(cfg Config) *http.Transport {
	return &http.Transport{
		DialContext: newGuard(cfg.Policy, cfg.Dials).DialContext,
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS12,
			RootCAs:    cfg.RootCAs,
		},
		TLSHandshakeTimeout:    5 * time.Second,
		ForceAttemptHTTP2:      true,
		MaxIdleConns:           256,
		MaxIdleConnsPerHost:    32,
		IdleConnTimeout:        90 * time.Second,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: maxHeaderBytes,
	}
}

func traced(t *http.Transport, cfg *Config) http.RoundTripper {
	if cfg.Tracer == nil {
		return t
	}
	opts := []otelhttp.Option{
		otelhttp.WithTracerProvider(cfg.Tracer),
		otelhttp.WithMeterProvider(noopmetric.NewMeterProvider()), // its labels have no bound
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return "HTTP " + r.Method }),
	}
	if cfg.Propagator != nil {
		opts = append(opts, otelhttp.WithPropagators(cfg.Propagator))
	}
	return otelhttp.NewTransport(queryless{t}, opts...)
}

// queryless corrects the span that otelhttp has begun: its url.full would hold
// the query, and a query may hold a code or a token.
type queryless struct{ next http.RoundTripper }

func (q queryless) RoundTrip(r *http.Request) (*http.Response, error) {
	if span := trace.SpanFromContext(r.Context()); span.IsRecording() && r.URL.RawQuery != "" {
		span.SetAttributes(semconv.URLFull(r.URL.Scheme + "://" + r.URL.Host + r.URL.EscapedPath()))
	}
	return q.next.RoundTrip(r)
}

// hidingTransport replaces errors; http.Client would put the URL around them,
// which Do takes off again.
type hidingTransport struct{ next http.RoundTripper }

func (t *hidingTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(r)
	if err != nil {
		return nil, failure(r.Method, r.URL.Host, err)
	}
	return resp, nil
}

// Do sends the request. Use it instead of client.Do: http.Client puts the whole
// URL around its errors, and a URL may hold a code or a token.
func Do(client *http.Client, r *http.Request) (*http.Response, error) {
	resp, err := client.Do(r)
	if err != nil {
		return nil, hide(err)
	}
	return resp, nil
}

// hide returns an error of an http.Client without the URL that the client put
// around it, as a *fault.Error.
func hide(err error) error {
	method, host := "request", ""
	if ue, ok := errors.AsType[*url.Error](err); ok {
		method, err = ue.Op, ue.Err
		if u, perr := url.Parse(ue.URL); perr == nil {
			host = u.Host
		}
	}
	if f, ok := fault.As(err); ok && !errors.Is(err, context.DeadlineExceeded) {
		return f
	}
	return failure(method, host, err)
}

func failure(method, host string, err error) error {
	what := method + " " + host
	var timeout interface{ Timeout() bool }
	switch {
	case IsRefused(err):
		return fault.Wrap(fault.Unavailable, err, what+": the address is not allowed").WithReason("outbound_refused")
	case errors.Is(err, context.Canceled):
		return fault.Wrap(fault.Canceled, err, what+" was canceled")
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return fault.Wrap(fault.Timeout, err, what+" took too long").WithReason("outbound_timeout")
	}
	return fault.Wrap(fault.Unavailable, err, what+" failed").WithReason("outbound_failed")
}

// ReadAll reads the body, at most limit bytes, and closes it. A larger body is
// an error, Unavailable with reason "response_too_large", and no part of it is
// returned.
func ReadAll(resp *http.Response, limit int64) ([]byte, error) {
	defer resp.Body.Close()
	host := ""
	if resp.Request != nil && resp.Request.URL != nil {
		host = resp.Request.URL.Host
	}
	if resp.ContentLength > limit {
		return nil, tooLarge(host, limit)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, failure("reading the answer of", host, err)
	}
	if int64(len(body)) > limit {
		return nil, tooLarge(host, limit)
	}
	return body, nil
}

func tooLarge(host string, limit int64) error {
	return fault.Newf(fault.Unavailable, "the answer of %s is larger than %d bytes", host, limit).
		WithReason("response_too_large")
}

// WithSystemRoots returns the system's certificate authorities and those of a
// PEM bundle. Errors are Invalid.
func WithSystemRoots(bundle secret.String) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a container without any: the bundle alone counts
	}
	if !pool.AppendCertsFromPEM([]byte(bundle.Reveal())) {
		return nil, fault.New(fault.Invalid, "the CA bundle holds no PEM certificate")
	}
	return pool, nil
}
