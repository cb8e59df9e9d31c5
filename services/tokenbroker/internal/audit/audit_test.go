package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/trace"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/tokenbroker/internal/audit"
)

type memory struct {
	records []audit.Record
	err     error
}

func (m *memory) InsertAudit(_ context.Context, records ...audit.Record) error {
	m.records = append(m.records, records...)
	return m.err
}

func TestARecordCarriesItsTraceIntoTableAndLog(t *testing.T) {
	t.Parallel()
	id := trace.TraceID{1, 2, 3}
	ctx := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: id, SpanID: trace.SpanID{1}}))
	var store memory
	var log bytes.Buffer
	r := audit.NewRecorder(&store, slog.New(slog.NewJSONHandler(&log, nil)))
	err := r.Record(ctx, audit.Record{Action: audit.CredentialIssued, Outcome: audit.Success, Backend: "repos", SessionID: "ses_1"})
	if err != nil || len(store.records) != 1 || store.records[0].TraceID != id.String() {
		t.Fatalf("records = %+v, %v", store.records, err)
	}
	var line map[string]any
	if err := json.Unmarshal(log.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]any{"msg": "audit", "action": "credential.issued", "outcome": "success", "backend": "repos", "session_id": "ses_1"} {
		if line[key] != want {
			t.Errorf("%s = %v, want %v", key, line[key], want)
		}
	}
	if _, there := line["client_id"]; there {
		t.Error("a field that does not apply is in the line")
	}
}

func TestWhatCannotBeKeptIsAnErrorAndIsNotLogged(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	r := audit.NewRecorder(&memory{err: errors.New("disk full")}, slog.New(slog.NewJSONHandler(&log, nil)))
	if err := r.Record(t.Context(), audit.Record{Action: audit.CredentialIssued, Outcome: audit.Success}); err == nil {
		t.Error("a record that was not kept is no error")
	}
	if log.Len() > 0 {
		t.Errorf("the log says what the table does not: %s", &log)
	}
}

func TestOutcomesAreReasons(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"success":             nil,
		"CONNECTION_REQUIRED": fault.New(fault.Precondition, "x").WithReason("CONNECTION_REQUIRED"),
		"internal":            errors.New("boom"),
	} {
		if got := audit.Outcome(err); got != want {
			t.Errorf("outcome of %v = %q, want %q", err, got, want)
		}
	}
}

// Rates of what was done need labels that cannot grow without bound.
func TestRecordsAreCountedByWhatIsConfigured(t *testing.T) {
	t.Parallel()
	reader := sdkmetric.NewManualReader()
	r, err := audit.NewCountingRecorder(&memory{}, slog.New(slog.DiscardHandler), sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)))
	if err != nil {
		t.Fatal(err)
	}
	issued := audit.Record{
		Action: audit.CredentialIssued, Outcome: audit.Success, Backend: "repos", Strategy: "upstreamInject",
		Provider: "octohub", UserID: "usr_1", SessionID: "ses_1", ClientID: "agent", ConnectionID: "con_1",
	}
	guessed := audit.Record{Action: audit.CredentialRefused, Outcome: "BACKEND_UNKNOWN", Backend: "guessed"}
	for _, rec := range []audit.Record{issued, issued, guessed} {
		if err := r.Record(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
	}
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for _, p := range all.ScopeMetrics[0].Metrics[0].Data.(metricdata.Sum[int64]).DataPoints {
		got[p.Attributes.Encoded(attribute.DefaultEncoder())] = p.Value
	}
	want := map[string]int64{
		"action=credential.issued,backend=repos,outcome=success,provider=octohub": 2,
		"action=credential.refused,backend=,outcome=BACKEND_UNKNOWN,provider=":    1,
	}
	if !maps.Equal(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
}
