package pgtest

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"chatelaine.dev/internal/pgcluster"
)

// victimEnv makes this test binary the one that is killed in the middle of its
// tests: it says where its server is, and waits.
const victimEnv = "CHATELAINE_PGTEST_VICTIM"

func TestMain(m *testing.M) {
	if os.Getenv(victimEnv) != "" {
		p, err := startPrivate()
		if err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		fmt.Println(p.dir)
		select {}
	}
	Main(m)
}

func TestAKilledTestBinaryLeavesNothingForLong(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), victimEnv+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	dir := strings.TrimSpace(line)
	if err != nil || !filepath.IsAbs(dir) {
		t.Fatalf("the victim said %q, %v", line, err)
	}
	longAgo := time.Now().Add(-time.Hour)
	if err := os.Chtimes(dir, longAgo, longAgo); err != nil {
		t.Fatal(err)
	}
	sweep(filepath.Dir(dir))
	if _, err := os.Stat(dir); err != nil {
		t.Fatalf("the folder of a running test was swept: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	socket := filepath.Join(dir, "pg", "socket", ".s.PGSQL.5432")
	waitFor(t, "its server to end", func() bool { // an ending server takes its socket with it
		_, err := os.Stat(socket)
		return errors.Is(err, os.ErrNotExist)
	})
	if err := os.Chtimes(dir, longAgo, longAgo); err != nil {
		t.Fatal(err)
	}
	sweep(filepath.Dir(dir))
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its folder stayed: %v", err)
	}
}

func waitFor(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestWithoutPostgresTheBinaryFailsAndSaysWhatToDo(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run", "TestNew")
	cmd.Env = append(os.Environ(), pgcluster.BinDirEnv+"=/nonexistent", DatabaseURLEnv+"=", "CI=true")
	out, err := cmd.CombinedOutput()
	if _, failed := errors.AsType[*exec.ExitError](err); !failed || !strings.Contains(string(out), "initdb") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestAGivenServerIsUsedAndLeftClean(t *testing.T) {
	t.Parallel()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run", "TestNew", "-test.v")
	// No binaries: only the given server can be what makes it work.
	cmd.Env = append(os.Environ(), pgcluster.BinDirEnv+"=/nonexistent", DatabaseURLEnv+"="+URL(t).Reveal())
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestNew") {
		t.Fatalf("%v: %s", err, out)
	}
	server.mu.Lock() // the templates of this binary's own tests are not its
	defer server.mu.Unlock()
	ours := slices.Collect(maps.Values(server.templates))
	rows, err := server.admin.Query(t.Context(), `SELECT datname FROM pg_database WHERE datname LIKE 'chatelaine_template_%' AND datname <> ALL ($1)`, ours)
	if err != nil {
		t.Fatal(err)
	}
	if left, err := pgx.CollectRows(rows, pgx.RowTo[string]); err != nil || len(left) != 0 {
		t.Errorf("template databases stayed: %v, %v", left, err)
	}
}
