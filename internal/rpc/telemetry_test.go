package rpc_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"chatelaine.dev/internal/rpc"
	"chatelaine.dev/internal/telemetry"
)

func TestCallsAreMeasuredByMethodAndTracedAcrossServices(t *testing.T) {
	tel, err := telemetry.Start(t.Context(), telemetry.Config{Service: "tokenbroker", LogOutput: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	recorder := tracetest.NewSpanRecorder()
	tel.Tracer = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	var inHandler trace.SpanContext
	s := start(t, &echo{unary: func(ctx context.Context, text string) (string, error) {
		inHandler = trace.SpanContextFromContext(ctx)
		return text, nil
	}}, func(cfg *rpc.ServerConfig) { cfg.Telemetry = tel })
	conn, err := rpc.Dial(rpc.ClientConfig{Address: s.address, ServerName: "tokenbroker", TLS: s.ca.TLS("gateway"), Telemetry: tel})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	ctx, span := tel.Tracer.Tracer("test").Start(t.Context(), "caller")
	if _, err := call(ctx, conn, "hi"); err != nil {
		t.Fatal(err)
	}
	span.End()
	if inHandler.TraceID() != span.SpanContext().TraceID() {
		t.Errorf("the handler is in trace %s, the caller in %s", inHandler.TraceID(), span.SpanContext().TraceID())
	}
	if _, err := call(t.Context(), conn, ""); err == nil {
		t.Fatal("an invalid call succeeded")
	}
	_ = conn.Invoke(t.Context(), "/made.up/ByAStranger", newText("x"), newText(""))

	// The server counts a call after its client has the answer.
	var metrics string
	for _, want := range []string{
		`rpc_server_call_duration_seconds_count{rpc_method="test.v1.EchoService/Echo",rpc_response_status_code="OK"`,
		`rpc_server_call_duration_seconds_count{rpc_method="test.v1.EchoService/Echo",rpc_response_status_code="INVALID_ARGUMENT"`,
		`rpc_client_call_duration_seconds_count{`,
	} {
		waitFor(t, "the metric "+want, func() bool {
			rec := httptest.NewRecorder()
			tel.MetricsHandler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
			metrics = rec.Body.String()
			return strings.Contains(metrics, want)
		})
	}
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "rpc_server") && strings.Contains(line, "made.up") {
			t.Errorf("a made-up method is a label: %s", line)
		}
	}
}
