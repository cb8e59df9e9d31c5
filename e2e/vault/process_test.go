package vault

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// process is a program under test, in a log file of its own.
type process struct {
	t     testing.TB
	path  string
	args  []string
	env   []string
	log   string
	ready string

	cmd  *exec.Cmd
	done chan struct{}
}

// start runs it, and returns when it says that it is ready.
func (p *process) start() {
	p.t.Helper()
	p.launch()
	p.waitReady(time.Minute)
}

// launch runs it from a thread that lives as long as it: the kernel sends the
// parent-death signal when the thread that forked ends.
func (p *process) launch() {
	p.t.Helper()
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	must(p.t, err)
	cmd := exec.CommandContext(context.Background(), p.path, p.args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = p.env, out, out
	cmd.SysProcAttr = dieWithUs()
	done, started := make(chan struct{}), make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer out.Close()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // it was killed, or its log says why
			close(done)
		}
	}()
	must(p.t, <-started)
	p.cmd, p.done = cmd, done
}

func (p *process) waitReady(within time.Duration) {
	p.t.Helper()
	client := http.Client{Timeout: 2 * time.Second}
	eventually(p.t, within, func() string {
		select {
		case <-p.done:
			p.t.Fatalf("%s ended; see %s", p.path, p.log)
		default:
		}
		resp, err := client.Get(p.ready)
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return p.log + ": " + resp.Status
		}
		return ""
	})
}

// signal sends a signal to a process that runs.
func (p *process) signal(sig syscall.Signal) {
	p.t.Helper()
	must(p.t, p.cmd.Process.Signal(sig))
}

// kill ends it without a chance to clean up, and returns when it is gone.
func (p *process) kill() {
	p.t.Helper()
	p.signal(syscall.SIGKILL)
	<-p.done
}

// stop ends it in order, at the end of the test. One that was suspended goes on first.
func (p *process) stop() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGCONT)
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
		p.t.Errorf("%s did not stop; see %s", p.path, p.log)
	}
	if text, err := os.ReadFile(p.log); err == nil && raceEnabled {
		if i := indexOf(text, "WARNING: DATA RACE"); i >= 0 {
			p.t.Errorf("%s: %.3000s", p.path, text[i:])
		}
	}
}

// environment of a process: none of our own settings.
func environment(values ...string) []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "TZ=UTC"}
	return append(env, values...)
}

func hostPort(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
