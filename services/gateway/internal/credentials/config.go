package credentials

import (
	"context"
	"log/slog"
	"sync/atomic"

	"chatelaine.dev/internal/fault"
)

// configState is what the broker said of the resources that we run with. The
// broker reads its own again every few seconds, and answers for the ones before
// for some minutes.
type configState struct {
	// accepted: the broker has known them at some time.
	accepted atomic.Bool
	// unknown: it did not the last time.
	unknown atomic.Bool
}

// configKnown notes that the broker answers for our resources.
func (m *Manager) configKnown(ctx context.Context) {
	if !m.config.accepted.Load() {
		m.config.accepted.Store(true)
	}
	if m.config.unknown.Load() && m.config.unknown.CompareAndSwap(true, false) {
		m.cfg.Telemetry.Logger.InfoContext(ctx, "the token broker knows our configuration now", slog.String("config_digest", m.cfg.ConfigDigest))
	}
}

// configUnknown says which of the two is behind. Nothing needs to be done about a
// broker that has not read its resources yet: each request asks again.
func (m *Manager) configUnknown(ctx context.Context, cause error) error {
	text := "The token broker has an older configuration than the gateway, and will read the new one. Try again shortly."
	if m.config.accepted.Load() {
		text = "The gateway has an older configuration than the token broker, which no longer answers for it. Try again shortly; if it lasts, tell your administrator."
	}
	if m.config.unknown.CompareAndSwap(false, true) {
		m.cfg.Telemetry.Logger.WarnContext(ctx, "the token broker does not know our configuration",
			slog.String("config_digest", m.cfg.ConfigDigest), slog.Bool("known_before", m.config.accepted.Load()))
	}
	return fault.Wrap(fault.Unavailable, cause, text).WithReason(ReasonConfigUnknown)
}
