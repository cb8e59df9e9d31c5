package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
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
		if h.pg != nil {
			if err := h.pg.Stop(); err != nil {
				t.Error(err)
			}
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

// metric is the sum of the series of that name that have all the labels.
func (h *house) metric(t *testing.T, service, name string, labels ...string) float64 {
	t.Helper()
	_, body := get(t, h.admin(service)+"/metrics")
	sum := 0.0
	for line := range strings.Lines(body) {
		series, value, ok := strings.Cut(strings.TrimSpace(line), "} ")
		if !ok {
			series, value, ok = strings.Cut(strings.TrimSpace(line), " ")
		}
		metric, has, _ := strings.Cut(series, "{")
		if !ok || metric != name || !containsAll(has, labels) {
			continue
		}
		f, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		sum += f
	}
	return sum
}

func containsAll(text string, parts []string) bool {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return true
}

// counter remembers what a metric was; moved waits until it is more.
func (h *house) counter(t *testing.T, service, name string, labels ...string) (moved func()) {
	t.Helper()
	before := h.metric(t, service, name, labels...)
	return func() {
		t.Helper()
		eventually(t, func() string {
			if now := h.metric(t, service, name, labels...); now <= before {
				return fmt.Sprintf("%s of %s with %v stays at %v", name, service, labels, now)
			}
			return ""
		})
	}
}

// expectMetric waits until a metric has a value.
func (h *house) expectMetric(t *testing.T, want float64, service, name string, labels ...string) {
	t.Helper()
	eventually(t, func() string {
		if got := h.metric(t, service, name, labels...); got != want {
			return fmt.Sprintf("%s of %s with %v is %v, want %v", name, service, labels, got, want)
		}
		return ""
	})
}

// notebook reads what the services log from its making on.
type notebook struct {
	house *house
	from  map[string]int64
}

func (h *house) notebook(t *testing.T) *notebook {
	t.Helper()
	n := &notebook{house: h, from: map[string]int64{}}
	for _, service := range services {
		info, err := os.Stat(h.stack.Log(service))
		if err != nil {
			t.Fatal(err)
		}
		n.from[service] = info.Size()
	}
	return n
}

// lines are those of a service that have all the parts.
func (n *notebook) lines(t *testing.T, service string, parts ...string) []string {
	t.Helper()
	text, err := os.ReadFile(n.house.stack.Log(service))
	if err != nil {
		t.Fatal(err)
	}
	if from := n.from[service]; from <= int64(len(text)) { // else it was started anew
		text = text[from:]
	}
	var found []string
	for line := range bytes.Lines(text) {
		if containsAll(string(line), parts) {
			found = append(found, strings.TrimSpace(string(line)))
		}
	}
	return found
}

// any waits for a line with all the parts.
func (n *notebook) any(t *testing.T, service string, parts ...string) {
	t.Helper()
	eventually(t, func() string {
		if len(n.lines(t, service, parts...)) == 0 {
			return fmt.Sprintf("%s logs nothing with %q", service, parts)
		}
		return ""
	})
}

// answer is what an MCP client gets.
type answer struct {
	Status int
	Header http.Header
	Body   string
	Took   time.Duration
}

func (a answer) String() string {
	return fmt.Sprintf("%d after %s: %.400s", a.Status, a.Took.Round(time.Millisecond), a.Body)
}

// tool calls a tool once, without a session, as the client of a token.
func (h *house) tool(ctx context.Context, token, name string) (answer, error) {
	body := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"` + name + `","arguments":{},"_meta":{` +
		`"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"raw","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}`
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.stack.MCPURL(), strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	for k, v := range map[string]string{
		"Content-Type": "application/json", "Accept": "application/json, text/event-stream", "Authorization": "Bearer " + token,
		"Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": name,
	} {
		req.Header.Set(k, v)
	}
	began := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(text), time.Since(began)}, err
}

func (h *house) call(t *testing.T, token, name string) answer {
	t.Helper()
	a, err := h.tool(t.Context(), token, name)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// works waits until the person's tools answer, of each backend.
func (h *house) works(t *testing.T, login *journey.Login, p person) {
	t.Helper()
	for tool, want := range map[string]string{"repos_whoami": p.Login, "payroll_whoami": p.Name, "status_service_status": "corp"} {
		eventually(t, func() string {
			if a := h.call(t, login.Token.AccessToken, tool); a.Status != http.StatusOK || !strings.Contains(a.Body, want) {
				return fmt.Sprintf("%s answers %s", tool, a)
			}
			return ""
		})
	}
}

// form posts to the authorization server.
func (h *house) form(t *testing.T, path, body string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.stack.Issuer()+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	began := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(text), time.Since(began)}
}

// refresh is the client's refresh request.
func (h *house) refresh(t *testing.T, login *journey.Login) answer {
	t.Helper()
	return h.form(t, "/oauth/token", "grant_type=refresh_token&client_id="+login.Client.ID+"&refresh_token="+login.Token.RefreshToken)
}

// page is what a person sees who begins a login.
func (h *house) page(t *testing.T, client *journey.Client) answer {
	t.Helper()
	began := time.Now()
	resp, body := get(t, client.Authorize().URL)
	return answer{resp.StatusCode, resp.Header, body + resp.Header.Get("Location"), time.Since(began)}
}

// requests is how often a provider was asked for a grant, and how often it agreed.
type requests struct{ Requests, Succeeded int }

// count asks a provider's fault port.
func count(t *testing.T, port int, grant string) requests {
	t.Helper()
	_, body := get(t, "http://"+local(port)+"/requests")
	counts := map[string]requests{}
	if err := json.Unmarshal([]byte(body), &counts); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	return counts[grant]
}
