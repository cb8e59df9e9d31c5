package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"chatelaine.dev/e2e/crowd"
	"chatelaine.dev/examples/journey"
	"chatelaine.dev/examples/stack"
	"chatelaine.dev/internal/pgcluster"
)

// services are the three that are under test.
var services = []string{"authserver", "tokenbroker", "gateway"}

// house is a stack of its own, for faults that would disturb other tests and for
// other resources. Its Postgres writes to disk, since it is killed too.
type house struct {
	stack *stack.Stack
	data  string             // folder of Postgres
	pg    *pgcluster.Cluster // since the stack's own was stopped; nil before
	next  int                // person
}

// newHouse starts one; changes are made to what it is started with.
func newHouse(t *testing.T, changes ...func(*stack.Config)) *house {
	t.Helper()
	dir, err := os.MkdirTemp("", "chatelaine-faults-") // t.TempDir's path is long, sockets want it short
	if err != nil {
		t.Fatal(err)
	}
	people := filepath.Join(dir, "people.yaml")
	if err := crowd.Write(people); err != nil {
		t.Fatal(err)
	}
	ports, err := stack.FreePorts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	run := filepath.Join(dir, "stack")
	h := &house{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log("logs are kept in", filepath.Join(run, "logs"))
			return
		}
		if _, err := stack.Remove(run); err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(dir)
	})
	cfg := stack.Config{Dir: run, BinDir: shared.binDir, Ports: ports, PeopleFile: people}
	for _, change := range changes {
		change(&cfg)
	}
	// t's own context ends before its cleanups run.
	h.stack, err = stack.Start(context.WithoutCancel(t.Context()), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.stack.Stop(); err != nil {
			t.Error(err)
		}
		if err := h.stopPostgres(); err != nil {
			t.Error(err)
		}
	})
	if h.data, err = stack.PostgresDir(run); err != nil {
		t.Fatal(err)
	}
	return h
}

// person is somebody whom no other scenario uses.
func (h *house) person() person {
	h.next++
	return personNumber(h.next - 1)
}

func (h *house) logIn(t *testing.T, p person) *journey.Login {
	t.Helper()
	login, err := newClientAt(t, h.stack.MCPURL()).Login(t.Context(), p.browser(t))
	if err != nil {
		t.Fatal(err)
	}
	return login
}

// killPostgres ends the server as a crash of its machine would, and returns when
// it is gone.
func (h *house) killPostgres(t *testing.T) {
	t.Helper()
	h.endPostgres(t, syscall.SIGQUIT) // immediate shutdown
}

// endPostgres sends a signal to the server and waits until it is gone.
func (h *house) endPostgres(t *testing.T, signal syscall.Signal) {
	t.Helper()
	pid := h.postmaster(t)
	if err := syscall.Kill(pid, signal); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if syscall.Kill(pid, 0) == nil {
			return "Postgres does not end"
		}
		return ""
	})
}

func (h *house) postmaster(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(h.data, "data", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	pid, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func (h *house) startPostgres(t *testing.T) {
	t.Helper()
	var err error
	if h.pg, err = pgcluster.Start(context.WithoutCancel(t.Context()), pgcluster.Config{Dir: h.data}); err != nil {
		t.Fatal(err)
	}
}

// stopPostgres ends the server that startPostgres started, if there is one.
func (h *house) stopPostgres() error {
	if h.pg == nil {
		return nil
	}
	return h.pg.Stop()
}

// query reads one row as the superuser.
func (h *house) query(t *testing.T, sql string, into ...any) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), h.stack.DatabaseURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	if err := conn.QueryRow(t.Context(), sql).Scan(into...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// sql runs statements as the superuser.
func (h *house) sql(t *testing.T, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), h.stack.DatabaseURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	for _, s := range statements {
		if _, err := conn.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// freeze stops processes, as an overloaded machine would, until the returned
// function, or the test's end, lets them go on.
func freeze(t *testing.T, pids ...int) (thaw func()) {
	t.Helper()
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	thaw = func() {
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGCONT) // it may have ended since
		}
	}
	t.Cleanup(thaw)
	return thaw
}

// freezePostgres stops the server and all its connections.
func (h *house) freezePostgres(t *testing.T) (thaw func()) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), h.stack.DatabaseURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	rows, err := conn.Query(t.Context(), `SELECT pid FROM pg_stat_activity WHERE usename IN ('authserver', 'tokenbroker')`)
	if err != nil {
		t.Fatal(err)
	}
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		t.Fatal(err)
	}
	return freeze(t, append([]int{h.postmaster(t)}, pids...)...)
}

func (h *house) pid(t *testing.T, service string) int {
	t.Helper()
	pid, err := h.stack.PID(service)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func (h *house) stop(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := h.stack.StopProcess(name, false); err != nil {
			t.Fatal(err)
		}
		if code, err := h.stack.ExitCode(name); slices.Contains(services, name) && (err != nil || code != 0) {
			t.Errorf("%s was stopped by SIGTERM and ended with status %d, %v", name, code, err)
		}
	}
}

// start starts processes and waits until each is ready.
func (h *house) start(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		err := h.stack.StartProcess(ctx, name)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (h *house) admin(service string) string {
	p := h.stack.Ports()
	port := map[string]int{"authserver": p.AuthserverAdmin, "tokenbroker": p.BrokerAdmin, "gateway": p.GatewayAdmin}[service]
	return "http://" + local(port)
}

// readiness is what /readyz of a service says: "ready", the text of the check
// that fails, or "no answer".
func (h *house) readiness(t *testing.T, service string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, h.admin(service)+"/readyz", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "no answer"
	}
	defer resp.Body.Close()
	var report struct {
		Status string
		Checks map[string]string
	}
	if err := json.NewDecoder(resp.Body).Decode(&report); err != nil {
		t.Fatalf("%s: %v", service, err)
	}
	if (resp.StatusCode == http.StatusOK) != (report.Status == "ready") {
		t.Errorf("%s answers %s and says %s", service, resp.Status, report.Status)
	}
	for _, text := range report.Checks {
		if text != "ok" {
			return text
		}
	}
	return report.Status
}

// expectReady waits until services are as ready as want says, by part of what
// /readyz has. Those that it leaves out must be ready.
func (h *house) expectReady(t *testing.T, want map[string]string) {
	t.Helper()
	for _, service := range services {
		text := "ready"
		if other, ok := want[service]; ok {
			text = other
		}
		eventually(t, func() string {
			if got := h.readiness(t, service); !strings.Contains(got, text) {
				return fmt.Sprintf("%s says at /readyz %q, want %q", service, got, text)
			}
			return ""
		})
	}
}
