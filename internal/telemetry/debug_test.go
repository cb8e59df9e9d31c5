package telemetry_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"chatelaine.dev/internal/telemetry"
)

func ask(t *testing.T, h http.Handler, method, path, body string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	return w.Code, w.Body.String()
}

func TestOperatorsChangeTheLogLevelOfARunningService(t *testing.T) {
	var log bytes.Buffer
	tel, err := telemetry.Start(t.Context(), telemetry.Config{Service: "test", LogOutput: &log, LogLevel: slog.LevelInfo})
	if err != nil {
		t.Fatal(err)
	}
	h := tel.DebugHandler()
	derived := tel.Logger.With("part", "x") // made before
	derived.Debug("hidden")
	if code, body := ask(t, h, "GET", "/debug/log-level", ""); code != 200 || body != "info\n" {
		t.Errorf("%d %q", code, body)
	}
	if code, body := ask(t, h, "PUT", "/debug/log-level", "debug\n"); code != 200 || body != "debug\n" {
		t.Errorf("%d %q", code, body)
	}
	derived.Debug("shown")
	for _, bad := range []string{"", "loud", "error+1000", "12", strings.Repeat("x", 1000)} {
		if code, _ := ask(t, h, "PUT", "/debug/log-level", bad); code != 400 {
			t.Errorf("%.10q: %d", bad, code)
		}
	}
	if code, _ := ask(t, h, "PUT", "/debug/log-level", "error"); code != 200 {
		t.Error(code)
	}
	derived.Warn("hidden")
	telemetry.Audit(t.Context(), derived, "session.ended", "ok")
	if !strings.Contains(log.String(), `"msg":"audit","service":"test","part":"x","audit":true,"action":"session.ended","outcome":"ok"`) {
		t.Errorf("an audit record was turned off with the log: %s", &log)
	}
	if text := log.String(); strings.Contains(text, "hidden") || !strings.Contains(text, "shown") || strings.Count(text, "log level changed") != 2 {
		t.Error(text)
	}
}

func TestProfilesAreNotForScrapers(t *testing.T) {
	t.Parallel()
	tel := telemetry.Discard()
	admin := tel.AdminHandler(telemetry.NewHealth(nil))
	server := httptest.NewServer(tel.DebugHandler())
	defer server.Close()
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap?debug=1", "/debug/pprof/goroutine?debug=1", "/debug/pprof/profile?seconds=1", "/debug/log-level"} {
		if code, _ := ask(t, admin, "GET", path, ""); code != http.StatusNotFound {
			t.Errorf("%s is open on the admin address: %d", path, code)
		}
		resp, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK || len(body) == 0 {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
	if code, _ := ask(t, tel.DebugHandler(), "GET", "/debug/pprof/cmdline", ""); code != http.StatusNotFound {
		t.Errorf("the command line is shown: %d", code)
	}
}
