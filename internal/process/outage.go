package process

import (
	"context"
	"log/slog"

	"chatelaine.dev/internal/fault"
)

// Outage tells the log of work that is tried again and again: once when it begins to
// fail, once when it works again, and nothing in between. It is for one goroutine.
type Outage struct {
	Logger *slog.Logger
	// Fails says what does not work, and what that means until it does.
	Fails string
	// Works says that it is over.
	Works string

	failing bool
}

// Note takes what came of one try. What fails because ctx ended is no outage.
func (o *Outage) Note(ctx context.Context, err error) {
	switch {
	case ctx.Err() != nil:
		return
	case err != nil && !o.failing:
		o.Logger.LogAttrs(ctx, slog.LevelWarn, o.Fails, fault.Attr(err)) //nolint:sloglint // a constant of the caller
	case err == nil && o.failing:
		o.Logger.LogAttrs(ctx, slog.LevelInfo, o.Works) //nolint:sloglint // a constant of the caller
	}
	o.failing = err != nil
}
