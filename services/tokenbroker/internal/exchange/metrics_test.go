package exchange_test

import (
	"maps"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	nooptrace "go.opentelemetry.io/otel/trace/noop"

	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/exchange"
	"chatelaine.dev/services/tokenbroker/internal/upstream/endpoint"
)

// An operator must see which exchange is refused, and how many a cache spares.
func TestExchangesAreCountedByConfigurationSourceAndOutcome(t *testing.T) {
	t.Parallel()
	reader := sdkmetric.NewManualReader()
	observer, err := endpoint.NewObserver(nooptrace.NewTracerProvider(), sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)), nil)
	if err != nil {
		t.Fatal(err)
	}
	s := startSTS(t)
	c, err := exchange.New(s.strategy(), exchange.Config{
		Name: "for-payroll", Cache: exchange.NewCache(0, nil), Observer: observer,
		Secrets: &secret.Resolver{LookupEnv: func(string) (string, bool) { return plantedSecret, true }},
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		get(t, c, subject("alice", 1))
	}
	s.answer(respond(400, `{"error":"invalid_target"}`))
	for range 2 { // the second time the refusal is remembered
		if _, err := c.Token(t.Context(), subject("bob", 1)); err == nil {
			t.Error("a refused exchange is no error")
		}
	}
	s.answer(respond(503, ""))
	if _, err := c.Token(t.Context(), subject("carol", 1)); err == nil {
		t.Error("an exchange at a service that is down is no error")
	}

	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for _, m := range all.ScopeMetrics[0].Metrics {
		if m.Name != "chatelaine.tokenbroker.exchanges" {
			continue
		}
		for _, p := range m.Data.(metricdata.Sum[int64]).DataPoints {
			got[p.Attributes.Encoded(attribute.DefaultEncoder())] = p.Value
		}
	}
	want := map[string]int64{
		"configuration=for-payroll,outcome=ok,source=service":          1,
		"configuration=for-payroll,outcome=ok,source=cache":            2,
		"configuration=for-payroll,outcome=refused,source=service":     1,
		"configuration=for-payroll,outcome=refused,source=cache":       1,
		"configuration=for-payroll,outcome=unavailable,source=service": 1,
	}
	if !maps.Equal(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
}
