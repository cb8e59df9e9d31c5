package telemetry_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/trace"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/internal/telemetry"
)

func logger(t *testing.T, format string) (*slog.Logger, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	l, err := telemetry.NewLogger(&out, format, slog.LevelInfo)
	if err != nil {
		t.Fatal(err)
	}
	return l, &out
}

func TestLogRecordsNameTraceAndRequest(t *testing.T) {
	t.Parallel()
	ctx := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2},
	}))
	ctx = telemetry.WithRequestID(ctx, "req-1")
	for _, format := range []string{"json", "text", ""} {
		l, out := logger(t, format)
		l.With("a", 1).InfoContext(ctx, "hello")
		for _, want := range []string{"01000000000000000000000000000000", "0200000000000000", "req-1"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: %q is not in %s", format, want, out)
			}
		}
		out.Reset()
		l.Info("outside of a request")
		if strings.Contains(out.String(), "trace_id") {
			t.Errorf("%s: a trace was made up: %s", format, out)
		}
	}
	if _, err := telemetry.NewLogger(nil, "xml", nil); fault.KindOf(err) != fault.Invalid {
		t.Errorf("format xml: %v", err)
	}
}

func TestLogsHoldNoSecretWhateverItsType(t *testing.T) {
	t.Parallel()
	const value = "hunter2"
	for _, format := range []string{"json", "text"} {
		l, out := logger(t, format)
		l.Info("x", "access_token", value, "Authorization", "Bearer "+value, "code_verifier", value, "password", value,
			slog.Group("oauth", "refresh_token", value), "key", secret.New(value), "cookie", []string{value})
		l.With("client_secret", value).Info("y")
		if strings.Contains(out.String(), value) {
			t.Errorf("%s: %s", format, out)
		}
	}
}

func TestNumbersUnderASecretsNameAreKept(t *testing.T) {
	t.Parallel()
	l, out := logger(t, "json")
	l.Info("x", "code", 404)
	var record map[string]any
	if err := json.Unmarshal(out.Bytes(), &record); err != nil || record["code"] != 404.0 {
		t.Errorf("%s, %v", out, err)
	}
}
