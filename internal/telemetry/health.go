package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"chatelaine.dev/internal/fault"
)

// Check returns nil when the thing that it looks at is usable.
type Check func(ctx context.Context) error

// CheckTimeout bounds one run of a Check.
const CheckTimeout = 2 * time.Second

// Health is the set of a service's readiness checks. Only what the service
// itself owns belongs here (its database, its configuration), not its peers.
type Health struct {
	logger   *slog.Logger
	draining atomic.Bool

	mu     sync.Mutex
	checks []*namedCheck
	ready  bool // as it was seen last
	notify func(ready bool)
}

type namedCheck struct {
	name   string
	check  Check
	failed atomic.Bool // what the log was told last
}

// NewHealth returns a Health that tells logger when a check begins or ceases to
// fail; nil means silence.
func NewHealth(logger *slog.Logger) *Health {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	return &Health{logger: logger}
}

// Add adds a check. Names are unique and public.
func (h *Health) Add(name string, check Check) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.checks = append(h.checks, &namedCheck{name: name, check: check})
}

// OnChange calls notify with false now, and from then on whenever a look (of Run, or
// of somebody who asks /readyz) finds that readiness has changed. notify must not
// block. A second one replaces the first.
func (h *Health) OnChange(notify func(ready bool)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ready, h.notify = false, notify
	notify(false)
}

func (h *Health) seen(ready bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.notify != nil && h.ready != ready {
		h.notify(ready)
	}
	h.ready = ready
}

// Drain makes the service not ready for good: it is about to stop.
func (h *Health) Drain() { h.draining.Store(true) }

// Report is the document of /readyz.
type Report struct {
	// Status is "ready", "unavailable" or "draining".
	Status string `json:"status"`
	// Checks has, by name, "ok" or the public text of the failure.
	Checks map[string]string `json:"checks"`
}

// Ready runs all checks at once, each within CheckTimeout.
func (h *Health) Ready(ctx context.Context) Report {
	h.mu.Lock()
	checks := h.checks[:len(h.checks):len(h.checks)]
	h.mu.Unlock()

	results := make([]error, len(checks))
	var wg sync.WaitGroup
	for i, c := range checks {
		wg.Go(func() { results[i] = h.run(ctx, c) })
	}
	wg.Wait()

	report := Report{Status: "ready", Checks: make(map[string]string, len(checks))}
	for i, c := range checks {
		report.Checks[c.name] = "ok"
		if results[i] != nil {
			report.Status = "unavailable"
			report.Checks[c.name] = fault.From(results[i]).Error()
		}
	}
	if h.draining.Load() {
		report.Status = "draining"
	}
	if ctx.Err() == nil { // else the prober went away: that says nothing
		h.seen(report.Status == "ready")
	}
	return report
}

// lookEvery is how often Run looks at a service that is ready, returnEvery at one
// that is not: whoever waits for it should not wait for us too.
const (
	lookEvery   = 5 * time.Second
	returnEvery = 500 * time.Millisecond
)

// Run runs the checks every five seconds, and twice a second while one of them fails,
// until ctx ends: so that the log says what a service waits for also where nobody
// probes it, and Notify is told.
func (h *Health) Run(ctx context.Context) error {
	for {
		wait := lookEvery
		if h.Ready(ctx).Status != "ready" {
			wait = returnEvery
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

func (h *Health) run(parent context.Context, c *namedCheck) error {
	ctx, cancel := context.WithTimeout(parent, CheckTimeout)
	defer cancel()
	done := make(chan error, 1) // a check that ignores its context must not hang the probe
	go func() { done <- c.check(ctx) }()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fault.Wrap(fault.Timeout, err, "no answer within "+CheckTimeout.String())
	}
	if parent.Err() != nil {
		return err // the prober went away: that says nothing
	}
	if failed := err != nil; c.failed.Swap(failed) != failed {
		if failed {
			h.logger.WarnContext(ctx, "readiness check fails", slog.String("check", c.name), fault.Attr(err))
		} else {
			h.logger.InfoContext(ctx, "readiness check passes again", slog.String("check", c.name))
		}
	}
	return err
}

// AdminHandler serves /healthz (the process is alive), /readyz (Health) and
// /metrics. It belongs on the admin address, not on a public one.
func (t *Telemetry) AdminHandler(h *Health) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]string{"status": "alive"})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		report := h.Ready(r.Context())
		status := http.StatusOK
		if report.Status != "ready" {
			status = http.StatusServiceUnavailable
		}
		writeJSON(w, status, report)
	})
	mux.Handle("GET /metrics", t.MetricsHandler())
	return mux
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the prober went away: nobody to tell
}
