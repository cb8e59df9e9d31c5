package process_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"chatelaine.dev/internal/process"
)

// What is tried each second must not fill the log of an outage.
func TestAnOutageIsToldOnceAndSoIsItsEnd(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	o := process.Outage{Logger: slog.New(slog.NewTextHandler(&log, nil)), Fails: "it fails", Works: "it works again"}
	told := func() (lines []string) {
		for line := range strings.Lines(log.String()) {
			_, rest, _ := strings.Cut(line, "level=")
			level, _, _ := strings.Cut(rest, " ")
			lines = append(lines, level)
		}
		return lines
	}
	away := errors.New("away")
	o.Note(t.Context(), nil) // nothing was wrong
	for range 3 {
		o.Note(t.Context(), away)
	}
	for range 3 {
		o.Note(t.Context(), nil)
	}
	o.Note(t.Context(), away)
	stopped, stop := context.WithCancel(t.Context())
	stop()
	o.Note(stopped, nil)
	o.Note(t.Context(), nil)
	o.Note(stopped, stopped.Err())
	if got := strings.Join(told(), " "); got != "WARN INFO WARN INFO" {
		t.Errorf("told %q:\n%s", got, &log)
	}
	if !strings.Contains(log.String(), "away") {
		t.Errorf("it does not say why:\n%s", &log)
	}
}
