package endpoint_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"chatelaine.dev/internal/outbound"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/upstream/endpoint"
)

// An operator must see which provider is slow or refuses, and no secret.
func TestRequestsAreTracedAndCounted(t *testing.T) {
	t.Parallel()
	var parent string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		parent = r.Header.Get("Traceparent")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"error":"invalid_grant","error_description":"planted-text"}`))
	}))
	t.Cleanup(server.Close)
	spans := tracetest.NewSpanRecorder()
	reader := sdkmetric.NewManualReader()
	observer, err := endpoint.NewObserver(
		sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)),
		sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)), propagation.TraceContext{})
	if err != nil {
		t.Fatal(err)
	}
	client := endpoint.NewClient(endpoint.Config{
		Label: "corp", Display: "provider corp", Provider: "corp", Observer: observer,
		HTTP: outbound.New(outbound.Config{Policy: outbound.Trusted()}),
	})
	err = client.Do(t.Context(), endpoint.Request{
		Operation: "refresh", Method: "POST", URL: server.URL + "/token?planted-query=1",
		Form: url.Values{"refresh_token": {"planted-token"}},
		Auth: &endpoint.ClientAuth{Method: "client_secret_basic", ID: "c", Secret: secret.New("planted-secret")},
	}, func(*endpoint.Response) error { return nil })
	if err == nil {
		t.Fatal("no error")
	}

	ended := spans.Ended()
	if len(ended) != 1 || ended[0].Name() != "corp refresh" {
		t.Fatalf("spans: %v", ended)
	}
	if text := fmt.Sprint(ended[0].Attributes(), ended[0].Status(), ended[0].Events()); strings.Contains(text, "planted") ||
		!strings.Contains(text, "refused") {
		t.Errorf("span: %s", text)
	}
	if want := ended[0].SpanContext().TraceID().String(); !strings.Contains(parent, want) {
		t.Errorf("traceparent %q is not of trace %s", parent, want)
	}

	var data metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &data); err != nil {
		t.Fatal(err)
	}
	h, ok := data.ScopeMetrics[0].Metrics[0].Data.(metricdata.Histogram[float64])
	if !ok || len(h.DataPoints) != 1 || h.DataPoints[0].Count != 1 {
		t.Fatalf("metrics: %+v", data.ScopeMetrics)
	}
	got := map[string]string{}
	for _, kv := range h.DataPoints[0].Attributes.ToSlice() {
		got[string(kv.Key)] = kv.Value.String()
	}
	if fmt.Sprint(got) != "map[operation:refresh outcome:refused server:corp]" {
		t.Errorf("labels %v", got)
	}
}
