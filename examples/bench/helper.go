package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"chatelaine.dev/examples/internal/subprocess"
	"chatelaine.dev/internal/process"
)

const (
	// announcement begins the line by which a helper says where it listens.
	announcement = "listening on "
	helperStart  = 10 * time.Second
	helperStop   = 5 * time.Second
)

// Serve runs a helper's handler on a free loopback port until ctx ends, and says
// on out where it listens.
func Serve(ctx context.Context, handler http.Handler, out io.Writer) error {
	server := process.HTTPServer{Address: "127.0.0.1:0", Handler: handler, DrainTimeout: time.Second}
	ln, err := server.Listen(ctx)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(out, announcement+ln.Addr().String()); err != nil {
		return err
	}
	return server.Run(ctx)
}

// helper is a process that runs Serve.
type helper struct {
	address string
	cmd     *exec.Cmd
	exited  chan error
}

// startHelper starts a command and waits until it says where it listens. What it
// writes beside that goes to dir/NAME.log. It dies with this process.
func startHelper(ctx context.Context, dir, name string, command ...string) (*helper, error) {
	log, err := os.OpenFile(filepath.Join(dir, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the process has its own copy
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer out.Close()
	h := &helper{exited: make(chan error, 1)}
	// Not CommandContext: stop ends it.
	h.cmd = exec.Command(command[0], command[1:]...) //nolint:gosec,noctx // our own program
	h.cmd.Stdout, h.cmd.Stderr = in, log
	h.cmd.SysProcAttr = subprocess.Attributes()
	err = h.cmd.Start()
	in.Close()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() { h.exited <- h.cmd.Wait() }()

	line := make(chan string, 1)
	go func() {
		text, _ := bufio.NewReader(io.LimitReader(out, 1024)).ReadString('\n')
		line <- text
	}()
	timer := time.NewTimer(helperStart)
	defer timer.Stop()
	select {
	case text := <-line:
		if address, ok := strings.CutPrefix(strings.TrimSpace(text), announcement); ok {
			h.address = address
			return h, nil
		}
	case <-timer.C:
	case <-ctx.Done():
	}
	return nil, errors.Join(fmt.Errorf("%s did not start; its log: %s", name, log.Name()), context.Cause(ctx), h.stop())
}

// stop ends the process, if need be by force.
func (h *helper) stop() error {
	_ = h.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(helperStop)
	defer timer.Stop()
	select {
	case err := <-h.exited:
		return err
	case <-timer.C:
		_ = h.cmd.Process.Kill()
		return <-h.exited
	}
}
