package telemetry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	promexporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	noopmetric "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"
	nooptrace "go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/grpc/credentials"

	"chatelaine.dev/internal/fault"
)

// Config makes a Telemetry.
type Config struct {
	// Service and Version name the program in traces and metrics.
	Service string
	Version string

	// LogOutput is where log lines go; nil means standard error.
	LogOutput io.Writer
	// LogFormat is "json" (also when empty) or "text".
	LogFormat string
	LogLevel  slog.Level

	// OTLPEndpoint is the HOST:PORT of an OTLP/gRPC collector, or a URL
	// http(s)://HOST:PORT where http means no TLS. Empty: no traces leave.
	OTLPEndpoint string
	// OTLPInsecure speaks to OTLPEndpoint without TLS.
	OTLPInsecure bool
	// OTLPCA is a file of PEM certificates to trust instead of the system's.
	OTLPCA string
	// SampleRatio is the share of new traces that is recorded, 0 to 1; a
	// request that belongs to a trace follows that trace's decision, see PublicTraces.
	SampleRatio float64
	// PublicTraces says that the traces which requests belong to are those of
	// strangers. They may ask for less than SampleRatio of them, and not for more.
	PublicTraces bool
}

// sampler decides which traces are recorded. The ratio looks at the trace's id, so
// services with the same one decide alike.
func (c *Config) sampler() sdktrace.Sampler {
	ratio := sdktrace.TraceIDRatioBased(c.SampleRatio)
	if c.PublicTraces {
		return sdktrace.ParentBased(ratio, sdktrace.WithRemoteParentSampled(ratio))
	}
	return sdktrace.ParentBased(ratio)
}

// Telemetry is what the parts of a service use.
type Telemetry struct {
	Logger     *slog.Logger
	Tracer     trace.TracerProvider
	Meter      metric.MeterProvider
	Propagator propagation.TextMapPropagator

	level    *slog.LevelVar
	registry *prometheus.Registry
	stop     []func(context.Context) error
}

// Start makes the providers, and sets them as the OpenTelemetry globals for
// libraries that know no other way. It does not wait for the collector. Errors
// are Invalid (a bad endpoint, ratio or file).
func Start(ctx context.Context, cfg Config) (*Telemetry, error) {
	t, err := build(ctx, cfg)
	if err != nil {
		return nil, err
	}
	otel.SetTracerProvider(t.Tracer)
	otel.SetMeterProvider(t.Meter)
	otel.SetTextMapPropagator(t.Propagator)
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		t.Logger.Warn("telemetry", fault.Attr(err))
	}))
	return t, nil
}

func build(ctx context.Context, cfg Config) (*Telemetry, error) {
	if cfg.SampleRatio < 0 || cfg.SampleRatio > 1 {
		return nil, fault.New(fault.Invalid, "the sample ratio must be within 0 and 1")
	}
	level := new(slog.LevelVar)
	level.Set(cfg.LogLevel)
	logger, err := newLogger(cfg, level)
	if err != nil {
		return nil, err
	}
	res := resource.NewSchemaless(
		semconv.ServiceName(cfg.Service),
		semconv.ServiceVersion(cfg.Version),
		semconv.ServiceNamespace("chatelaine"),
		semconv.ServiceInstanceID(instanceID()),
	)
	t := &Telemetry{
		Logger: logger, level: level,
		// Without a collector no span is recorded, but every request has a trace id, which
		// joins the logs and audit records of all services.
		Tracer:     sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.NeverSample()))),
		Propagator: Propagator(),
		registry:   prometheus.NewRegistry(),
	}
	if err := t.startMetrics(res); err != nil {
		return nil, err
	}
	if cfg.OTLPEndpoint != "" {
		if err := t.startTraces(ctx, cfg, res); err != nil {
			return nil, errors.Join(err, t.Shutdown(ctx))
		}
	}
	return t, nil
}

// Discard returns a Telemetry that records nothing, for tests and commands.
// Middleware, handlers and servers work with it.
func Discard() *Telemetry {
	return &Telemetry{
		Logger:     slog.New(slog.DiscardHandler),
		level:      new(slog.LevelVar),
		Tracer:     nooptrace.NewTracerProvider(),
		Meter:      noopmetric.NewMeterProvider(),
		Propagator: Propagator(),
		registry:   prometheus.NewRegistry(),
	}
}

// Propagator is W3C Trace Context. Baggage is not carried: nothing here reads
// it, and it would take what strangers put in to every backend.
func Propagator() propagation.TextMapPropagator { return propagation.TraceContext{} }

// Shutdown flushes and stops; bound it with ctx.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	var errs []error
	for _, stop := range t.stop {
		errs = append(errs, stop(ctx))
	}
	t.stop = nil
	return errors.Join(errs...)
}

// Task waits for ctx to end, then shuts down within five seconds. Give it to
// process.Group.AddLast, so that what the other tasks do while they stop is
// still reported.
func (t *Telemetry) Task(ctx context.Context) error {
	<-ctx.Done()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := t.Shutdown(ctx); err != nil {
		t.Logger.Warn("telemetry did not shut down cleanly", fault.Attr(err)) // no reason to fail the stop
	}
	return nil
}

// MetricsHandler serves the metrics in Prometheus' format.
func (t *Telemetry) MetricsHandler() http.Handler {
	return promhttp.HandlerFor(t.registry, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(t.Logger.Handler(), slog.LevelWarn),
		MaxRequestsInFlight: 4,
		Timeout:             10 * time.Second,
	})
}

func (t *Telemetry) startMetrics(res *resource.Resource) error {
	t.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	exporter, err := promexporter.New(
		promexporter.WithRegisterer(t.registry),
		promexporter.WithoutScopeInfo(),
	)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "cannot start metrics")
	}
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter), sdkmetric.WithResource(res),
		sdkmetric.WithCardinalityLimit(2000))
	t.Meter = provider
	t.stop = append(t.stop, provider.Shutdown)
	return nil
}

func (t *Telemetry) startTraces(ctx context.Context, cfg Config, res *resource.Resource) error {
	opts, err := exporterOptions(cfg)
	if err != nil {
		return err
	}
	exporter, err := otlptrace.New(ctx, otlptracegrpc.NewClient(opts...))
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "cannot use the OTLP endpoint")
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter),
		sdktrace.WithResource(res),
		sdktrace.WithSampler(cfg.sampler()),
	)
	t.Tracer = provider
	t.stop = append(t.stop, provider.Shutdown)
	return nil
}

func exporterOptions(cfg Config) ([]otlptracegrpc.Option, error) {
	endpoint, insecure := cfg.OTLPEndpoint, cfg.OTLPInsecure
	if strings.Contains(endpoint, "://") {
		u, err := url.Parse(endpoint)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") || u.User != nil {
			return nil, fault.New(fault.Invalid, "the OTLP endpoint must be HOST:PORT or http(s)://HOST:PORT")
		}
		endpoint, insecure = u.Host, insecure || u.Scheme == "http"
	}
	opts := []otlptracegrpc.Option{otlptracegrpc.WithEndpoint(endpoint), otlptracegrpc.WithTimeout(10 * time.Second)}
	if insecure {
		return append(opts, otlptracegrpc.WithInsecure()), nil
	}
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.OTLPCA != "" {
		pem, err := os.ReadFile(cfg.OTLPCA)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "cannot read the OTLP CA file")
		}
		tlsConfig.RootCAs = x509.NewCertPool()
		if !tlsConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fault.New(fault.Invalid, "the OTLP CA file has no PEM certificate")
		}
	}
	return append(opts, otlptracegrpc.WithTLSCredentials(credentials.NewTLS(tlsConfig))), nil
}

// instanceID tells replicas apart; the pod's name is its host name.
func instanceID() string {
	if name, err := os.Hostname(); err == nil {
		return name
	}
	return "unknown"
}
