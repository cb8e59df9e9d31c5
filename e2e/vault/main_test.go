package vault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/pgcluster"
)

// shared is what all tests use: the built programs, and a Postgres for those that
// do not break theirs. TestMain sets it.
var shared struct {
	dir     string // private, short, and Postgres can reach it
	cluster *pgcluster.Cluster
}

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "vault:", fault.Detail(err))
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	if shared.dir, err = os.MkdirTemp("/tmp", "chatelaine-vault-"); err != nil {
		return 1, err
	}
	if err := os.Chmod(shared.dir, 0o711); err != nil { // the user of Postgres passes through
		return 1, err
	}
	defer func() {
		if code != 0 || err != nil {
			fmt.Fprintln(os.Stderr, "vault: logs are kept in", shared.dir)
			return
		}
		err = os.RemoveAll(shared.dir)
	}()
	if err := build(ctx, binary("")); err != nil {
		return 1, err
	}
	if shared.cluster, err = pgcluster.Start(ctx, pgcluster.Config{Dir: filepath.Join(shared.dir, "pg"), Throwaway: true}); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, shared.cluster.Stop()) }()
	return m.Run(), nil
}

// binary is where a built program is.
func binary(name string) string { return filepath.Join(shared.dir, "bin", name) }

// build compiles the services, with the race detector when the tests have it, so
// that a data race in a service fails the run.
func build(ctx context.Context, dir string) error {
	args := []string{"build", "-o", dir + string(filepath.Separator)}
	if raceEnabled {
		args = append(args, "-race")
	}
	args = append(args, "../../services/tokenbroker/cmd/tokenbroker", "../../services/gateway/cmd/gateway")
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return nil
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(fault.Detail(err))
	}
}

// eventually waits until problem returns "".
func eventually(t testing.TB, within time.Duration, problem func() string) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		text := problem()
		if text == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s: %s", within, text)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
