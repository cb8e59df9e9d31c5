package aggregate

import (
	"context"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
)

// slowFor is how long lists and handshakes do not wait for a backend that did
// not answer in time. Calls of the backend itself are not held back, and one
// that works ends the time.
const slowFor = 10 * time.Second

func (h *Handler) isSlow(b *config.Backend) bool {
	return h.now().UnixNano() < h.slow[b.Name].Load()
}

// judge notes how a backend took a handshake or a request for a list.
func (h *Handler) judge(b *config.Backend, err error) {
	slow := h.slow[b.Name]
	switch {
	case err == nil:
		if slow.Load() != 0 {
			slow.Store(0)
		}
	case fault.KindOf(err) == fault.Timeout:
		slow.Store(h.now().Add(slowFor).UnixNano())
	}
}

func errSlow(b *config.Backend) error {
	return fault.New(fault.Timeout, "backend "+b.Name+" did not answer in time a moment ago").WithReason("BACKEND_SLOW", "backend", b.Name)
}

// gap counts and logs that a backend is missing from an answer that joins many.
func (h *Handler) gap(ctx context.Context, b *config.Backend, operation string, err error) {
	if fault.KindOf(err) == fault.Canceled {
		return
	}
	h.gaps.Add(ctx, 1, metric.WithAttributes(attribute.String("backend", b.Name), attribute.String("operation", operation)))
	h.logger.WarnContext(ctx, "backend is missing from an answer",
		slog.String("backend", b.Name), slog.String("operation", operation), fault.Attr(err))
}
