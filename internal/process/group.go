package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"chatelaine.dev/internal/fault"
)

// DefaultStopTimeout is how long a Group waits for its tasks to end.
const DefaultStopTimeout = 20 * time.Second

// Task works until ctx ends, then cleans up and returns. An error stops the
// whole group; a nil before ctx ended means that there was nothing more to do.
type Task func(ctx context.Context) error

// Group is a set of named tasks. Fill it, then call Run once.
type Group struct {
	// StopTimeout bounds the time between the end of the context and the end of
	// the last task; zero means DefaultStopTimeout.
	StopTimeout time.Duration
	// Logger is told about stops; nil means silence.
	Logger *slog.Logger

	tasks []namedTask
}

type namedTask struct {
	name string
	run  Task
	last bool
}

// Add adds a task. The name appears in errors and logs.
func (g *Group) Add(name string, task Task) {
	g.tasks = append(g.tasks, namedTask{name: name, run: task})
}

// AddLast adds a task whose context ends when all tasks of Add have ended:
// telemetry, which reports their stop, and pools, which they use until then.
func (g *Group) AddLast(name string, task Task) {
	g.tasks = append(g.tasks, namedTask{name: name, run: task, last: true})
}

type result struct {
	index int
	err   error
}

// Run runs all tasks until they return. It returns nil after an ordinary stop
// (ctx ended, or every task had finished), the first error otherwise; and an
// error of kind Timeout, joined to the first if there is one, naming the tasks
// that did not stop in time. A panic of a task is not caught: it ends the process.
func (g *Group) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	lastCtx, cancelLast := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancelLast(nil)

	results := make(chan result, len(g.tasks)) // buffered: a late task must not leak
	running := make(map[int]bool, len(g.tasks))
	others := 0 // running, and not of AddLast
	for i, t := range g.tasks {
		running[i] = true
		taskCtx := lastCtx
		if !t.last {
			taskCtx = ctx
			others++
		}
		go func() { results <- result{i, t.run(taskCtx)} }()
	}

	var first error
	var deadline <-chan time.Time
	done := ctx.Done()
	for len(running) > 0 {
		if others == 0 {
			cancelLast(nil)
		}
		select {
		case r := <-results:
			delete(running, r.index)
			if !g.tasks[r.index].last {
				others--
			}
			if r.err != nil && first == nil && !stoppedBy(ctx, r.err) && !stoppedBy(lastCtx, r.err) {
				first = fmt.Errorf("%s: %w", g.tasks[r.index].name, r.err)
				g.logger().Error("task failed, stopping", slog.String("task", g.tasks[r.index].name), fault.Attr(r.err))
				cancel(first)
			}
		case <-done:
			done = nil
			timer := time.NewTimer(g.stopTimeout())
			defer timer.Stop()
			deadline = timer.C
			g.logger().Info("stopping", slog.Float64("seconds", g.stopTimeout().Seconds()))
		case <-deadline:
			return errors.Join(first, g.hanging(running))
		}
	}
	return first
}

// stoppedBy tells a task that ended because it was told to from one that failed.
func stoppedBy(ctx context.Context, err error) bool {
	return ctx.Err() != nil && errors.Is(err, context.Canceled)
}

func (g *Group) hanging(running map[int]bool) error {
	var names []string
	for i, t := range g.tasks {
		if running[i] {
			names = append(names, t.name)
		}
	}
	return fault.Newf(fault.Timeout, "still running %s after the stop: %s", g.stopTimeout(), strings.Join(names, ", ")).
		WithReason("stop_timeout")
}

func (g *Group) stopTimeout() time.Duration {
	if g.StopTimeout > 0 {
		return g.StopTimeout
	}
	return DefaultStopTimeout
}

func (g *Group) logger() *slog.Logger {
	if g.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return g.Logger
}
