package aggregate

import (
	"context"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/gateway/internal/caller"
)

// slowFor is how long a person's lists and handshakes do not wait for a backend
// that did not answer this person in time. Others find out for themselves: what
// is slow for one may be quick for them. Calls of the backend itself are not held
// back.
const slowFor = 10 * time.Second

func (h *Handler) isSlow(who *caller.Caller, b *config.Backend) bool {
	_, slow := h.slow.Get(slowKey(who, b))
	return slow
}

// judge notes how a backend took a handshake or a request for a list.
func (h *Handler) judge(who *caller.Caller, b *config.Backend, err error) {
	if err != nil && fault.KindOf(err) == fault.Timeout {
		h.slow.Put(slowKey(who, b), struct{}{}, 1)
	}
}

func slowKey(who *caller.Caller, b *config.Backend) string {
	return identity(who, nil) + "\x00" + b.Name
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
