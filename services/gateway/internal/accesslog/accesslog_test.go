package accesslog_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"chatelaine.dev/internal/telemetry"
	"chatelaine.dev/services/gateway/internal/accesslog"
)

func logged(t *testing.T, method string, handle http.HandlerFunc) map[string]any {
	t.Helper()
	var out bytes.Buffer
	tel := telemetry.Discard()
	var err error
	if tel.Logger, err = telemetry.NewLogger(&out, "json", nil); err != nil {
		t.Fatal(err)
	}
	log, err := accesslog.New(tel)
	if err != nil {
		t.Fatal(err)
	}
	log.Wrap("repos", handle).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(method, "/mcp/repos?token=secret", nil))
	if out.Len() == 0 {
		return nil
	}
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	return line
}

func TestLineSaysWhatHappenedAndNoMore(t *testing.T) {
	t.Parallel()
	line := logged(t, http.MethodPost, func(_ http.ResponseWriter, r *http.Request) {
		rec := accesslog.From(r.Context())
		rec.Method, rec.Tool = "tools/call", strings.Repeat("long", 1000)
		rec.SetCaller("0123456789abcdef")
		rec.Fail(accesslog.OutcomeFailed, "BACKEND_UNAVAILABLE")
	})
	for name, want := range map[string]any{
		"endpoint": "repos", "method": "tools/call", "caller": "0123456789ab", "outcome": "failed",
		"reason": "BACKEND_UNAVAILABLE", "level": "WARN",
	} {
		if line[name] != want {
			t.Errorf("%s: %v, want %v", name, line[name], want)
		}
	}
	if tool, ok := line["tool"].(string); !ok || len(tool) > 200 {
		t.Errorf("a client can fill the log: %d bytes", len(tool))
	}
}

func TestRequestThatNobodyDescribedIsLoggedAllTheSame(t *testing.T) {
	t.Parallel()
	line := logged(t, http.MethodGet, func(http.ResponseWriter, *http.Request) {})
	if line["outcome"] != "ok" || line["endpoint"] != "repos" {
		t.Errorf("%v", line)
	}
	if line := logged(t, http.MethodOptions, func(http.ResponseWriter, *http.Request) {}); line != nil {
		t.Errorf("a preflight: %v", line)
	}
}

func TestPanicDoesNotLoseTheLine(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	tel := telemetry.Discard()
	var err error
	if tel.Logger, err = telemetry.NewLogger(&out, "json", nil); err != nil {
		t.Fatal(err)
	}
	log, err := accesslog.New(tel)
	if err != nil {
		t.Fatal(err)
	}
	func() {
		defer func() { _ = recover() }()
		log.Wrap("repos", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })).
			ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/", nil))
	}()
	if !strings.Contains(out.String(), "mcp request") {
		t.Error("no line")
	}
}

func TestRequestsAreCountedByBackendEraAndOutcome(t *testing.T) {
	t.Parallel()
	reader := sdkmetric.NewManualReader()
	tel := telemetry.Discard()
	tel.Meter = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	log, err := accesslog.New(tel)
	if err != nil {
		t.Fatal(err)
	}
	h := log.Wrap("aggregate", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		rec := accesslog.From(r.Context())
		rec.Backend, rec.Method = "repos", "whatever a client likes"
	}))
	for _, version := range []string{"", "2025-11-25", "2026-07-28"} {
		r := httptest.NewRequest(http.MethodPost, "/mcp", nil)
		r.Header.Set("Mcp-Protocol-Version", version)
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	var got metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &got); err != nil {
		t.Fatal(err)
	}
	counts := make(map[string]int64)
	for _, m := range got.ScopeMetrics[0].Metrics {
		if strings.Contains(fmt.Sprint(m.Data), "likes") {
			t.Errorf("a client can make labels of %s", m.Name)
		}
		if sum, ok := m.Data.(metricdata.Sum[int64]); ok && m.Name == "chatelaine.gateway.requests" {
			for _, p := range sum.DataPoints {
				counts[p.Attributes.Encoded(attribute.DefaultEncoder())] = p.Value
			}
		}
	}
	want := map[string]int64{
		"backend=repos,endpoint=aggregate,era=session,outcome=ok":   2,
		"backend=repos,endpoint=aggregate,era=stateless,outcome=ok": 1,
	}
	if !maps.Equal(counts, want) {
		t.Errorf("got %v, want %v", counts, want)
	}
}
