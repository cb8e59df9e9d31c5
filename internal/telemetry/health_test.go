package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"chatelaine.dev/internal/fault"
)

func probe(t *testing.T, h *Health, path string) (int, Report, string) {
	t.Helper()
	rec := httptest.NewRecorder()
	Discard().AdminHandler(h).ServeHTTP(rec, httptest.NewRequest(http.MethodGet, path, http.NoBody))
	var report Report
	if path == "/readyz" {
		if err := json.Unmarshal(rec.Body.Bytes(), &report); err != nil {
			t.Fatal(err)
		}
	}
	return rec.Code, report, rec.Body.String()
}

func TestReadinessListsEachCheckAndHidesCauses(t *testing.T) {
	t.Parallel()
	var logs bytes.Buffer
	h := NewHealth(slog.New(slog.NewJSONHandler(&logs, nil)))
	var down atomic.Bool
	down.Store(true)
	h.Add("config", func(context.Context) error { return nil })
	h.Add("postgres", func(context.Context) error {
		if down.Load() {
			return fault.Wrap(fault.Unavailable, errors.New("dial tcp 10.0.0.7"), "the database is not available")
		}
		return nil
	})

	for range 3 {
		status, report, body := probe(t, h, "/readyz")
		want := Report{Status: "unavailable", Checks: map[string]string{"config": "ok", "postgres": "the database is not available"}}
		if diff := cmp.Diff(want, report); diff != "" || status != http.StatusServiceUnavailable || strings.Contains(body, "10.0.0.7") {
			t.Errorf("status %d, %s", status, diff)
		}
	}
	if got := strings.Count(logs.String(), "10.0.0.7"); got != 1 {
		t.Errorf("the cause was logged %d times: %s", got, &logs)
	}
	down.Store(false)
	if status, report, _ := probe(t, h, "/readyz"); status != http.StatusOK || report.Status != "ready" {
		t.Errorf("status %d, %+v", status, report)
	}
	if !strings.Contains(logs.String(), "passes again") {
		t.Error("nobody was told that it recovered")
	}
	h.Drain()
	if status, report, _ := probe(t, h, "/readyz"); status != http.StatusServiceUnavailable || report.Status != "draining" {
		t.Errorf("status %d, %+v", status, report)
	}
	if status, _, _ := probe(t, h, "/healthz"); status != http.StatusOK {
		t.Errorf("a draining process is alive, got %d", status)
	}
}

func TestAChangeOfReadinessIsToldOnce(t *testing.T) {
	t.Parallel()
	h := NewHealth(nil)
	var down atomic.Bool
	h.Add("postgres", func(context.Context) error {
		if down.Load() {
			return errors.New("down")
		}
		return nil
	})
	var told []bool
	h.OnChange(func(ready bool) { told = append(told, ready) })
	gone, leave := context.WithCancel(t.Context())
	leave()
	h.Ready(t.Context())
	h.Ready(t.Context())
	down.Store(true)
	h.Ready(gone) // a prober that went away has seen nothing
	h.Ready(t.Context())
	down.Store(false)
	h.Ready(t.Context())
	h.Drain()
	h.Ready(t.Context())
	if diff := cmp.Diff([]bool{false, true, false, true, false}, told); diff != "" {
		t.Error(diff)
	}
}

func TestACheckThatHangsDoesNotHangTheProbe(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		h := NewHealth(nil)
		h.Add("deaf", func(context.Context) error { <-release; return nil })
		start := time.Now()
		report := h.Ready(t.Context())
		if took := time.Since(start); took != CheckTimeout || report.Checks["deaf"] != "no answer within 2s" {
			t.Errorf("after %s: %+v", took, report)
		}
		close(release)
	})
}

func TestMetricsAreServedForPrometheus(t *testing.T) {
	t.Parallel()
	tel, _, _ := observed(t)
	rec := httptest.NewRecorder()
	tel.AdminHandler(NewHealth(nil)).ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	for _, want := range []string{"go_goroutines", "process_", `target_info{`, `service_name="test"`} {
		if !strings.Contains(rec.Body.String(), want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}
