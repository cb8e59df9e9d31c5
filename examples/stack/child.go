package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"chatelaine.dev/examples/internal/subprocess"
)

// stopGrace is how long a process has to end by itself after SIGTERM.
const stopGrace = 25 * time.Second

// child is one process of the stack.
type child struct {
	name  string
	path  string
	args  []string
	env   []string
	ready string // URL that answers 200 once the process can work

	log  string
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	err  error         // why; valid after done
}

// start runs the process with its output in a log file. On Linux the process dies
// with this one, however this one ends.
func (c *child) start(logDir string) error {
	c.log = filepath.Join(logDir, c.name+".log")
	out, err := os.OpenFile(c.log, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer out.Close() // the process has its own copy
	// Not CommandContext: stopping is stop's, in order and with a grace period.
	c.cmd = exec.Command(c.path, c.args...) //nolint:noctx // ended by stop
	c.cmd.Env = c.env
	c.cmd.Stdout, c.cmd.Stderr = out, out
	c.cmd.SysProcAttr = subprocess.Attributes()
	c.done = make(chan struct{})
	if err := c.cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", c.name, err)
	}
	go func() {
		c.err = c.cmd.Wait()
		close(c.done)
	}()
	return nil
}

// waitReady polls the readiness URL until it answers 200, the process ends, or
// ctx does.
func (c *child) waitReady(ctx context.Context) error {
	client := http.Client{Timeout: 2 * time.Second}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	last := "no answer yet"
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.ready, nil)
		if err != nil {
			return err
		}
		if resp, err := client.Do(req); err == nil {
			body, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
			last = resp.Status + " " + string(bytes.TrimSpace(body))
		}
		select {
		case <-c.done:
			return c.died()
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready (%s); its log: %s", c.name, last, c.log)
		case <-tick.C:
		}
	}
}

// died describes the end of a process that should still run.
func (c *child) died() error {
	return fmt.Errorf("%s ended: %w; the end of %s:\n%s", c.name, errors.Join(c.err, errStopped), c.log, tail(c.log, 2048))
}

var errStopped = errors.New("it was not told to")

// signal sends sig if the process still runs.
func (c *child) signal(sig syscall.Signal) {
	select {
	case <-c.done:
	default:
		_ = c.cmd.Process.Signal(sig)
	}
}

// stop ends the process: politely first, after the grace period by force.
func (c *child) stop() error {
	if c.cmd == nil || c.cmd.Process == nil {
		return nil
	}
	c.signal(syscall.SIGTERM)
	timer := time.NewTimer(stopGrace)
	defer timer.Stop()
	select {
	case <-c.done:
		return nil
	case <-timer.C:
		c.signal(syscall.SIGKILL)
		<-c.done
		return fmt.Errorf("%s did not stop within %s and was killed", c.name, stopGrace)
	}
}

// tail returns the last n bytes of a file.
func tail(path string, n int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if end, err := f.Seek(0, io.SeekEnd); err == nil {
		_, _ = f.Seek(max(0, end-n), io.SeekStart)
	}
	text, _ := io.ReadAll(io.LimitReader(f, n))
	return string(bytes.TrimSpace(text))
}
