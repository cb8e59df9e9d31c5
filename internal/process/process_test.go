package process_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/process"
)

// waits works until it is told to stop.
func waits(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestOneFailureStopsTheOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		stopped := false
		var g process.Group
		g.Add("server", func(ctx context.Context) error {
			err := waits(ctx)
			stopped = true
			return err
		})
		g.Add("events", func(context.Context) error {
			time.Sleep(time.Second)
			return broken
		})
		err := g.Run(t.Context())
		if !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "events: ") || !stopped {
			t.Errorf("Run = %v, the other stopped: %v", err, stopped)
		}
	})
}

func TestAnOrderlyStopIsNoError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var g process.Group
		g.Add("returns the context's error", waits)
		g.Add("returns nil", func(ctx context.Context) error { <-ctx.Done(); return nil })
		g.Add("was done before", func(context.Context) error { return nil })
		time.AfterFunc(time.Minute, cancel)
		if err := g.Run(ctx); err != nil {
			t.Errorf("Run = %v", err)
		}
	})
}

func TestLastTasksOutliveTheOthers(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(cancel context.CancelFunc) process.Task{
		"a stop": func(cancel context.CancelFunc) process.Task {
			return func(ctx context.Context) error {
				cancel()
				<-ctx.Done()
				time.Sleep(time.Second) // takes its time
				return nil
			}
		},
		"the end of the work": func(context.CancelFunc) process.Task {
			return func(context.Context) error { time.Sleep(time.Second); return nil }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var order []string
				work := end(cancel)
				var g process.Group
				g.AddLast("telemetry", func(ctx context.Context) error {
					err := waits(ctx)
					order = append(order, "telemetry")
					return err
				})
				g.Add("server", func(ctx context.Context) error {
					err := work(ctx)
					order = append(order, "server")
					return err
				})
				if err := g.Run(ctx); err != nil || strings.Join(order, " ") != "server telemetry" {
					t.Errorf("Run = %v, order %v", err, order)
				}
			})
		})
	}
}

func TestAFailureWhileStoppingIsReported(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var g process.Group
		g.Add("store", func(ctx context.Context) error { <-ctx.Done(); return errors.New("not flushed") })
		cancel()
		if err := g.Run(ctx); err == nil || err.Error() != "store: not flushed" {
			t.Errorf("Run = %v", err)
		}
	})
}

func TestTasksThatHangAreNamedAndDoNotHoldTheProcess(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		g := process.Group{StopTimeout: 5 * time.Second}
		for _, name := range []string{"stuck-a", "stuck-b"} {
			g.Add(name, func(context.Context) error { <-release; return nil })
		}
		g.Add("good", waits)
		cancel()
		start := time.Now()
		err := g.Run(ctx)
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("Run took %s", took)
		}
		if fault.ReasonOf(err) != "stop_timeout" || !strings.Contains(err.Error(), "stuck-a, stuck-b") || strings.Contains(err.Error(), "good") {
			t.Errorf("Run = %v", err)
		}
		close(release)
	})
}

func TestASignalStopsTheProgram(t *testing.T) { // not parallel: the signal is the process's
	var stderr bytes.Buffer
	status := process.Run("gateway", &stderr, func(ctx context.Context) error {
		if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(10 * time.Second):
			return errors.New("no signal came")
		}
	})
	if status != process.ExitOK || stderr.Len() > 0 {
		t.Errorf("status %d, stderr %q", status, stderr.String())
	}
}

func TestAFailedStartIsOneReadableLine(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		err    error
		want   string
		status int
	}{
		"failure": {
			fault.Wrap(fault.Unavailable, errors.New("bind: address\nin use"), "cannot listen on :8080"),
			"gateway: cannot listen on :8080: bind: address in use\n", process.ExitFailure,
		},
		"a list": {
			fault.New(fault.Precondition, "these ports are taken:\n  8080\n  9090"),
			"gateway: these ports are taken:\n  8080\n  9090\n", process.ExitFailure,
		},
		"usage":   {fault.New(fault.Invalid, "--config is required"), "gateway: --config is required\n", process.ExitUsage},
		"success": {nil, "", process.ExitOK},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stderr bytes.Buffer
			if status := process.Report("gateway", &stderr, tt.err); status != tt.status || stderr.String() != tt.want {
				t.Errorf("status %d, stderr %q", status, stderr.String())
			}
		})
	}
}

func TestVersionIsNeverEmpty(t *testing.T) {
	t.Parallel()
	if process.Version() == "" {
		t.Error("no version")
	}
}
