package telemetry

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"strings"

	"chatelaine.dev/internal/fault"
)

const maxLevelBytes = 64

// DebugHandler serves what shows the process from inside, and turns its knobs:
// /debug/pprof/* and /debug/log-level (GET; PUT with a level as text). Profiles and
// heaps can hold secrets, so it is for operators who asked for it, and not for the
// admin address, which scrapers reach.
func (t *Telemetry) DebugHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", http.NotFound) // flags are not for everyone's eyes
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /debug/log-level", t.showLevel)
	mux.HandleFunc("PUT /debug/log-level", t.setLevel)
	return mux
}

// levels are those that exist. slog's own text form has more, such as ERROR+1000,
// which would hide errors too.
func levels() map[string]slog.Level {
	return map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
}

func (t *Telemetry) showLevel(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = io.WriteString(w, strings.ToLower(t.level.Level().String())+"\n") // the asker went away
}

func (t *Telemetry) setLevel(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxLevelBytes))
	var level slog.Level
	known := false
	if err == nil {
		level, known = levels()[strings.ToLower(strings.TrimSpace(string(text)))]
	}
	if !known {
		http.Error(w, "the body must be a level: debug, info, warn, error", fault.Invalid.HTTPStatus())
		return
	}
	before := t.level.Level()
	t.level.Set(level)
	// Loud enough to be seen whatever the level is.
	t.Logger.LogAttrs(r.Context(), max(slog.LevelWarn, level), "log level changed", slog.String("from", before.String()), slog.String("to", level.String()))
	t.showLevel(w, r)
}
