package telemetry

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"

	"chatelaine.dev/internal/fault"
)

// sink is the other side of OTLP.
type sink struct {
	collector.UnimplementedTraceServiceServer
	got chan *collector.ExportTraceServiceRequest
}

func (s *sink) Export(_ context.Context, req *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	s.got <- req
	return &collector.ExportTraceServiceResponse{}, nil
}

func TestTracesReachTheCollectorBeforeTheProcessEnds(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &sink{got: make(chan *collector.ExportTraceServiceRequest, 1)}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, s)
	go server.Serve(ln)
	defer server.Stop()

	tel, err := build(t.Context(), Config{Service: "gateway", OTLPEndpoint: "http://" + ln.Addr().String(), SampleRatio: 1, LogOutput: &buffer{}})
	if err != nil {
		t.Fatal(err)
	}
	_, span := tel.Tracer.Tracer("test").Start(t.Context(), "work")
	span.End()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := tel.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	select {
	case req := <-s.got:
		if name := req.ResourceSpans[0].ScopeSpans[0].Spans[0].Name; name != "work" {
			t.Errorf("span %q", name)
		}
	default:
		t.Error("the span was lost at the stop")
	}
}

func TestAnUnreachableCollectorDoesNotHoldTheStart(t *testing.T) {
	t.Parallel()
	start := time.Now()
	tel, err := build(t.Context(), Config{OTLPEndpoint: "192.0.2.1:4317", OTLPInsecure: true, SampleRatio: 1, LogOutput: &buffer{}})
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("the start took %s", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := tel.Shutdown(ctx); err != nil {
		t.Logf("shutdown: %v", err) // nothing was recorded: either is fine
	}
}

func TestWrongTelemetryFlagsAreNamed(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]Config{
		"ratio":      {SampleRatio: 1.5},
		"format":     {LogFormat: "xml"},
		"scheme":     {OTLPEndpoint: "ftp://collector:4317"},
		"userinfo":   {OTLPEndpoint: "https://user:pass@collector:4317"},
		"missing CA": {OTLPEndpoint: "collector:4317", OTLPCA: empty + "x"},
		"CA, no PEM": {OTLPEndpoint: "collector:4317", OTLPCA: empty},
	} {
		if _, err := build(t.Context(), cfg); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLogsHaveATraceIDWithoutACollector(t *testing.T) {
	t.Parallel()
	tel, err := build(t.Context(), Config{Service: "gateway", SampleRatio: 1, LogOutput: &buffer{}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, span := tel.Tracer.Tracer("test").Start(t.Context(), "request")
	defer span.End()
	carrier := propagation.MapCarrier{}
	tel.Propagator.Inject(ctx, carrier)
	if !span.SpanContext().TraceID().IsValid() || carrier["traceparent"] == "" {
		t.Errorf("trace id %s, traceparent %q: the services' logs could not be joined", span.SpanContext().TraceID(), carrier["traceparent"])
	}
	if span.IsRecording() {
		t.Error("a span that nobody collects is recorded")
	}
}

// The flag in a stranger's traceparent must not fill the collector.
func TestAStrangerCannotHaveMoreTracesRecordedThanTheRatio(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		cfg           Config
		sampled, want bool
	}{
		"a stranger's":                 {Config{PublicTraces: true}, true, false},
		"a stranger's, all wanted":     {Config{PublicTraces: true, SampleRatio: 1}, true, true},
		"a stranger's that is not one": {Config{PublicTraces: true, SampleRatio: 1}, false, false},
		"another service's":            {Config{}, true, true},
	} {
		tracer := sdktrace.NewTracerProvider(sdktrace.WithSampler(tt.cfg.sampler())).Tracer("test")
		parent := trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, Remote: true}
		if tt.sampled {
			parent.TraceFlags = trace.FlagsSampled
		}
		_, span := tracer.Start(trace.ContextWithRemoteSpanContext(t.Context(), trace.NewSpanContext(parent)), "request")
		if span.SpanContext().IsSampled() != tt.want || span.SpanContext().TraceID() != parent.TraceID {
			t.Errorf("%s: sampled %v, want %v; trace %s", name, span.SpanContext().IsSampled(), tt.want, span.SpanContext().TraceID())
		}
		span.End()
	}
}
