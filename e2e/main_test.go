package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"chatelaine.dev/e2e/crowd"
	"chatelaine.dev/examples/stack"
)

// world is what all tests share.
type world struct {
	stack     *stack.Stack
	collector *spanCollector
	// recorders by the name of the process behind them.
	recorders map[string]*recorder
	binDir    string
}

// shared is set by TestMain, because processes outlive a single test.
var shared *world

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	if attached := os.Getenv(attachEnv); attached != "" {
		shared = &world{stack: stack.Attach(stack.Config{Dir: attached, Ports: stack.DefaultPorts(0)}, os.Getenv(databaseEnv))}
		return m.Run(), nil
	}
	dir, err := os.MkdirTemp("", "chatelaine-e2e-")
	if err != nil {
		return 1, err
	}
	w := &world{binDir: filepath.Join(dir, "bin"), recorders: map[string]*recorder{}}
	defer func() {
		if code != 0 || err != nil {
			fmt.Fprintln(os.Stderr, "e2e: logs are kept in", filepath.Join(dir, "stack", "logs"))
			return
		}
		_, _ = stack.Remove(filepath.Join(dir, "stack")) // for root, Postgres' data lies elsewhere
		_ = os.RemoveAll(dir)
	}()
	if err := build(ctx, w.binDir); err != nil {
		return 1, err
	}
	if w.collector, err = startCollector(ctx); err != nil {
		return 1, err
	}
	defer w.collector.server.Stop()
	ports, err := stack.FreePorts(ctx)
	if err != nil {
		return 1, err
	}
	dials, err := w.record(ctx, ports)
	if err != nil {
		return 1, err
	}
	peopleFile := filepath.Join(dir, "people.yaml")
	if err := crowd.Write(peopleFile); err != nil {
		return 1, err
	}
	w.stack, err = stack.Start(ctx, stack.Config{
		Dir: filepath.Join(dir, "stack"), BinDir: w.binDir, Ports: ports, Throwaway: true,
		OTLPEndpoint: w.collector.address, PeopleFile: peopleFile,
		Env: map[string][]string{
			"tokenbroker": {"CHATELAINE_DIAL=" + dials},
			"gateway":     {"CHATELAINE_DIAL=" + dials},
		},
	})
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, w.stack.Stop()) }()
	shared = w
	return m.Run(), nil
}

// With attachEnv set, the tests that can run against the deployment at the
// documented ports, whatever runs it, and the others are skipped. It names a
// folder with tls/ as stack.Attach wants it; its people are those of package crowd.
const (
	attachEnv   = "CHATELAINE_E2E_ATTACH"
	databaseEnv = "CHATELAINE_E2E_DATABASE_URL" // of the superuser
)

// needProcesses skips a test that starts, breaks, records or reads the logs of the
// stack's processes, when they are somebody else's.
func needProcesses(t *testing.T) {
	t.Helper()
	if shared.stack.Attached() {
		t.Skip("needs a stack of the tests' own")
	}
}

// record puts a recording proxy in front of each server that sees a credential
// and returns the value of --dial that leads there.
func (w *world) record(ctx context.Context, ports stack.Ports) (string, error) {
	var dials []string
	for name, port := range map[string]int{"corp": ports.Corp, "octohub": ports.Octohub, "repos": ports.Repos, "payroll": ports.Payroll, "status": ports.Status} {
		r, err := startRecorder(ctx, "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			return "", err
		}
		w.recorders[name] = r
		dials = append(dials, "localhost:"+strconv.Itoa(port)+"="+r.address)
	}
	return strings.Join(dials, ","), nil
}

// build compiles the services and the examples, with the race detector when the
// tests have it, so that a data race in a service fails the run.
func build(ctx context.Context, dir string) error {
	args := []string{"build", "-o", dir + string(filepath.Separator)}
	if raceEnabled {
		args = append(args, "-race")
	}
	args = append(args, "../services/authserver/cmd/authserver", "../services/tokenbroker/cmd/tokenbroker", "../services/gateway/cmd/gateway", "../examples/cmd/...")
	cmd := exec.CommandContext(ctx, "go", args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return nil
}
