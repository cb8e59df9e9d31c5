package telemetry

import (
	"context"
	"log/slog"
	"time"
)

// Audit writes an audit record to the log, in the one shape that all services
// use: the message "audit", audit=true to select by, what was done (action), how
// it ended (outcome), then the particulars. Attributes without text are left out.
// No person's name, e-mail address or token belongs in one.
//
// It is written whatever the level of the log is: nobody makes records disappear
// by turning the log down.
func Audit(ctx context.Context, logger *slog.Logger, action, outcome string, attrs ...slog.Attr) {
	line := make([]slog.Attr, 0, len(attrs)+3)
	line = append(line, slog.Bool("audit", true), slog.String("action", action), slog.String("outcome", outcome))
	for _, a := range attrs {
		if a.Value.Kind() != slog.KindString || a.Value.String() != "" {
			line = append(line, a)
		}
	}
	record := slog.NewRecord(time.Now(), slog.LevelInfo, "audit", 0)
	record.AddAttrs(line...)
	_ = logger.Handler().Handle(ctx, record) // as slog.Logger does: a log that cannot be written has nobody to tell
}
