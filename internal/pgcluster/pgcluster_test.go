package pgcluster

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
)

// victimEnv makes this test binary the process that is killed: it starts a
// cluster in the folder that the variable names, says so, and waits.
const victimEnv = "CHATELAINE_PGCLUSTER_VICTIM"

func TestMain(m *testing.M) {
	dir := os.Getenv(victimEnv)
	if dir == "" {
		os.Exit(m.Run())
	}
	c, err := Start(context.Background(), Config{Dir: dir, Throwaway: true})
	if err != nil {
		fmt.Println("failed:", fault.Detail(err))
		os.Exit(1)
	}
	fmt.Println(c.process.Pid)
	select {}
}

// folder is one that the user of Postgres can reach.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pgcluster-test-") // t.TempDir's path is long, sockets want it short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "pg")
}

func begin(t *testing.T, cfg Config) *Cluster {
	t.Helper()
	c, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(fault.Detail(err))
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func query(t *testing.T, url secret.String, sql string) (string, error) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url.Reveal())
	if err != nil {
		return "", err
	}
	defer conn.Close(t.Context())
	var s string
	err = conn.QueryRow(t.Context(), sql).Scan(&s)
	return s, err
}

func freePort(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

func TestDataSurvivesARestartAndThePasswordCanChange(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	cfg := Config{Dir: dir, Port: freePort(t), Password: secret.New(`first'"\pass`)}
	c := begin(t, cfg)
	if err := c.CreateDatabase(t.Context(), "demo"); err != nil {
		t.Fatal(err)
	}
	if err := c.CreateDatabase(t.Context(), "demo"); err != nil {
		t.Errorf("making it again: %v", err)
	}
	if _, err := query(t, c.TCPURL("demo"), `CREATE TABLE kept AS SELECT 'here'::text AS what; SELECT 'x'`); err == nil {
		t.Fatal("two statements in one were accepted")
	}
	if _, err := query(t, c.URL("demo"), `WITH x AS (SELECT set_config('a.b', 'c', false)) SELECT * FROM x`); err != nil {
		t.Errorf("over the socket: %v", err)
	}
	conn, err := pgx.Connect(t.Context(), c.TCPURL("demo").Reveal())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `CREATE TABLE kept AS SELECT 'here'::text AS what`); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close(t.Context())
	old := c.TCPURL("demo")
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}

	cfg.Password = secret.New("second")
	c = begin(t, cfg)
	if got, err := query(t, c.TCPURL("demo"), `SELECT what FROM kept`); err != nil || got != "here" {
		t.Errorf("after the restart: %q, %v", got, err)
	}
	if _, err := query(t, old, `SELECT 'x'`); err == nil || !strings.Contains(err.Error(), "28P01") {
		t.Errorf("the old password: %v", err)
	}
	if _, err := query(t, secret.New(fmt.Sprintf("postgres://postgres@127.0.0.1:%d/demo?sslmode=disable", cfg.Port)), `SELECT 'x'`); err == nil {
		t.Error("no password was asked for over TCP")
	}
}

func TestTheServerDiesWithTheProcessThatStartedIt(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Log("this system has no parent-death signal: the server outlives its parent, as the package says")
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), victimEnv+"="+folder(t))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	pid, perr := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || perr != nil {
		t.Fatalf("the victim said %q, %v", line, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	deadline := time.Now().Add(20 * time.Second)
	for alive(pid) {
		if time.Now().After(deadline) {
			t.Fatalf("Postgres (process %d) outlived its parent", pid)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// alive does not count a zombie, which waits for init to look at it.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z")
}

func TestAServerThatEndsByItselfIsAnError(t *testing.T) {
	t.Parallel()
	c := begin(t, Config{Dir: folder(t), Throwaway: true})
	done := make(chan error, 1)
	go func() { done <- c.Run(context.Background()) }()
	if err := c.process.Signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if fault.KindOf(err) != fault.Unavailable {
			t.Errorf("Run = %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("Run did not notice")
	}
}

func TestRunStopsTheServerWithItsContext(t *testing.T) {
	t.Parallel()
	c := begin(t, Config{Dir: folder(t), Throwaway: true})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Run(ctx); err != nil || !c.ended() {
		t.Errorf("Run = %v, ended: %v", err, c.ended())
	}
}

func TestAFailedStartShowsTheLog(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	c := begin(t, Config{Dir: dir, Throwaway: true})
	if _, err := Start(t.Context(), Config{Dir: dir, Throwaway: true}); err == nil || !strings.Contains(fault.Detail(err), "postmaster.pid") {
		t.Errorf("a second server on the same data: %v", fault.Detail(err))
	}
	if _, err := query(t, c.URL("postgres"), `SELECT 'x'`); err != nil {
		t.Errorf("the first server was disturbed: %v", err)
	}
}

func TestAnInterruptedInitIsBegunAgain(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	if err := os.MkdirAll(filepath.Join(dir, "data", "base"), 0o700); err != nil {
		t.Fatal(err)
	}
	c := begin(t, Config{Dir: dir, Throwaway: true})
	if _, err := query(t, c.URL("postgres"), `SELECT 'x'`); err != nil {
		t.Error(err)
	}
}

func TestAFolderWithALongPathStillGetsASocket(t *testing.T) {
	t.Parallel()
	c := begin(t, Config{Dir: filepath.Join(folder(t), strings.Repeat("long/", 30), "pg"), Throwaway: true})
	if _, err := query(t, c.URL("postgres"), `SELECT 'x'`); err != nil {
		t.Error(err)
	}
	if err := c.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(c.socketDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket's folder stayed: %v", err)
	}
}

func TestTCPNeedsAPassword(t *testing.T) {
	t.Parallel()
	if _, err := Start(t.Context(), Config{Dir: folder(t), Port: 1}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("Start = %v", err)
	}
}

func TestFoldersThatPostgresCannotUseAreExplained(t *testing.T) {
	t.Parallel()
	private := filepath.Dir(folder(t))
	if err := os.Chmod(private, 0o700); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(private, "pg")
	usable, err := DataDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 { // an ordinary user runs Postgres as itself
		if usable != dir {
			t.Errorf("DataDir = %s", usable)
		}
		return
	}
	if !strings.HasPrefix(usable, "/var/tmp/chatelaine-pg-") {
		t.Errorf("DataDir = %s", usable)
	}
	if _, err := Start(t.Context(), Config{Dir: dir}); fault.ReasonOf(err) != "data_unreachable" || !strings.Contains(err.Error(), dir) {
		t.Errorf("Start = %v", err)
	}
	foreign := folder(t)
	if err := os.Mkdir(foreign, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(foreign, 54321, 54321); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), Config{Dir: foreign}); fault.ReasonOf(err) != "data_unusable" {
		t.Errorf("a stranger's folder: %v", err)
	}
	link := folder(t)
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), Config{Dir: link}); fault.ReasonOf(err) != "data_unusable" {
		t.Errorf("a link: %v", err)
	}
}

func TestMissingBinariesAreExplained(t *testing.T) {
	t.Parallel()
	if _, err := find("/nonexistent", nil); fault.ReasonOf(err) != "postgres_missing" || !strings.Contains(err.Error(), "PGBINDIR=/nonexistent") {
		t.Errorf("a wrong PGBINDIR: %v", err)
	}
	if _, err := exec.LookPath("postgres"); err != nil { // else PATH has it
		if _, err := find("", nil); fault.ReasonOf(err) != "postgres_missing" || !strings.Contains(err.Error(), "apt-get install postgresql") {
			t.Errorf("not installed: %v", err)
		}
	}
}

func TestTheNewestInstalledVersionIsUsed(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	for _, version := range []string{"9", "15", "16"} {
		bin := filepath.Join(root, version, "bin")
		if err := os.MkdirAll(bin, 0o755); err != nil {
			t.Fatal(err)
		}
		names := []string{"initdb", "postgres"}
		if version == "16" {
			names = names[:1] // a client package only
		}
		for _, name := range names {
			if err := os.WriteFile(filepath.Join(bin, name), nil, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := filepath.Join(root, "15", "bin")
	if got := newest([]string{filepath.Join(root, "*", "bin")}); got != want {
		t.Errorf("newest = %s, want %s", got, want)
	}
}
