package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"chatelaine.dev/e2e/crowd"
	"chatelaine.dev/examples/journey"
	"chatelaine.dev/examples/stack"
)

// startTime bounds a start or a stop of everything on a busy machine.
const startTime = 4 * time.Minute

// dev is the program chatelaine-dev at work.
type dev struct {
	cmd    *exec.Cmd
	ready  chan struct{} // closed when the output says how to go on
	exited chan struct{}

	mu  sync.Mutex
	out bytes.Buffer
}

// lastLine is what `up` prints when everything runs.
const lastLine = `the next "make up" finds its data again.`

// Write keeps what the program prints.
func (d *dev) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	was := strings.Contains(d.out.String(), lastLine)
	n, err := d.out.Write(p)
	if !was && strings.Contains(d.out.String(), lastLine) {
		close(d.ready)
	}
	return n, err
}

func (d *dev) output() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.out.String()
}

// startDev starts the program in a process group of its own, as a shell does.
func startDev(t *testing.T, args ...string) *dev {
	t.Helper()
	d := &dev{ready: make(chan struct{}), exited: make(chan struct{})}
	d.cmd = exec.Command(filepath.Join(shared.binDir, "chatelaine-dev"), append([]string{"--bin", shared.binDir}, args...)...)
	d.cmd.Stdout, d.cmd.Stderr = d, d
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = d.cmd.Wait() // exit looks at what it says
		close(d.exited)
	}()
	t.Cleanup(func() {
		select {
		case <-d.exited:
		default:
			_ = syscall.Kill(-d.cmd.Process.Pid, syscall.SIGINT)
			d.exit(t)
		}
	})
	return d
}

// up starts everything and returns when the program says how to go on.
func up(t *testing.T, args ...string) *dev {
	t.Helper()
	d := startDev(t, append(args, "up")...)
	select {
	case <-d.ready:
	case <-d.exited:
		t.Fatalf("chatelaine-dev up ended:\n%s", d.output())
	case <-time.After(startTime):
		t.Fatalf("chatelaine-dev up is not ready after %s:\n%s", startTime, d.output())
	}
	return d
}

// exit waits for the program's end and returns its exit code.
func (d *dev) exit(t *testing.T) int {
	t.Helper()
	select {
	case <-d.exited:
	case <-time.After(startTime):
		_ = syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL)
		t.Fatalf("chatelaine-dev did not end within %s:\n%s", startTime, d.output())
	}
	return d.cmd.ProcessState.ExitCode()
}

// interrupt is Ctrl-C: it reaches the whole process group. All that the program
// started must be gone with it.
func (d *dev) interrupt(t *testing.T) {
	t.Helper()
	children := childrenOf(t, d.cmd.Process.Pid)
	if runtime.GOOS == "linux" && len(children) != 9 {
		t.Errorf("%d processes run, want Postgres, five of the demo's world and three services: %v", len(children), children)
	}
	if err := syscall.Kill(-d.cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := d.exit(t); code != 0 {
		t.Errorf("after Ctrl-C the exit code is %d:\n%s", code, d.output())
	}
	for pid, program := range children {
		if err := syscall.Kill(pid, 0); err == nil {
			t.Errorf("after Ctrl-C %s (process %d) is left", program, pid)
		}
	}
}

// childrenOf returns the programs that the process started, by process id: none
// where the system has no /proc.
func childrenOf(t *testing.T, parent int) map[int]string {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	children := map[int]string{}
	stat := regexp.MustCompile(`(?s)^(\d+) \((.*)\) \S (\d+) `) // proc_pid_stat(5)
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if m := stat.FindSubmatch(text); err == nil && m != nil && string(m[3]) == strconv.Itoa(parent) {
			pid, _ := strconv.Atoi(string(m[1]))
			children[pid] = string(m[2])
		}
	}
	return children
}

func TestUpTellsHowToGoOnWorksAndKeepsLogins(t *testing.T) {
	needProcesses(t)
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "run")
	offset, err := stack.FreeOffset(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	flags := []string{"--dir", dir, "--port-offset", strconv.Itoa(offset)}
	ports := stack.DefaultPorts(offset)
	url := fmt.Sprintf("http://localhost:%d/mcp", ports.Gateway)
	first := up(t, flags...)

	people := checkWelcome(t, first.output(), url)
	s := stack.Attach(stack.Config{Dir: dir, Ports: ports}, "")
	checkDemo(t, runDemo(t, s, people["alice"]), s, "alice", "alice-codes", "Alice Archer")
	bob, err := newClientAt(t, url).Login(t.Context(), people["bob"].browser(t))
	if err != nil {
		t.Fatal(err)
	}

	// Another one meets its ports.
	second := startDev(t, "--dir", filepath.Join(t.TempDir(), "run"), "--port-offset", strconv.Itoa(offset), "up")
	if code := second.exit(t); code == 0 || !strings.Contains(second.output(), fmt.Sprintf("port %d, for gateway\n", ports.Gateway)) {
		t.Errorf("a second one on the same ports ended with %d:\n%s", code, second.output())
	}

	first.interrupt(t)
	again := up(t, flags...) // it would name a port that is still taken
	fresh, err := bob.Client.Refresh(t.Context(), bob.Token.RefreshToken)
	if err != nil {
		t.Fatalf("refresh after the second start: %v", err)
	}
	bob.Token = fresh
	if got := call(t, connect(t, bob, journey.ConnectOptions{}), "repos_whoami", nil); !strings.Contains(got, "bob-builds") {
		t.Errorf("after the second start repos says that %s is calling", got)
	}
	if out, err := runDev(t, append(flags, "clean")...); err == nil || !strings.Contains(out, "a stack runs in "+dir) {
		t.Errorf("clean beside a stack that runs: %v\n%s", err, out)
	}
	call(t, connect(t, bob, journey.ConnectOptions{}), "status_whoami", nil)
	again.interrupt(t)

	if out, err := runDev(t, append(flags, "clean")...); err != nil || !strings.Contains(out, "removed "+dir+"\n") {
		t.Errorf("clean: %v\n%s", err, out)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("after clean the folder is there: %v", err)
	}
}

// checkWelcome checks what a person copies from the output, and returns who may
// log in, by user name.
func checkWelcome(t *testing.T, out, url string) map[string]person {
	t.Helper()
	for _, want := range []string{"\n    " + url + "\n", "\n    claude mcp add --transport http chatelaine " + url + "\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("there is no line %q in\n%s", want, out)
		}
	}
	type server struct{ Type, URL string }
	var vscode struct{ Servers map[string]server }
	var cursor struct{ MCPServers map[string]server }
	for name, settings := range map[string]any{`"servers"`: &vscode, `"mcpServers"`: &cursor} {
		line := regexp.MustCompile(`(?m)^ +(\{` + name + `: .*\})$`).FindStringSubmatch(out)
		if line == nil {
			t.Errorf("there are no settings with %s in\n%s", name, out)
		} else if err := json.Unmarshal([]byte(line[1]), settings); err != nil {
			t.Errorf("%s: %v", line[1], err)
		}
	}
	if got := vscode.Servers["chatelaine"]; got != (server{"http", url}) {
		t.Errorf("the settings for VS Code are %+v", got)
	}
	if got := cursor.MCPServers["chatelaine"]; got.URL != url {
		t.Errorf("the settings for Cursor are %+v", got)
	}
	people := map[string]person{}
	for _, m := range regexp.MustCompile(`(?m)^ +(\w+) +password (\S+)$`).FindAllStringSubmatch(out, -1) {
		people[m[1]] = person{crowd.Person{Username: m[1], Password: m[2]}}
	}
	if len(people) != 2 || people["alice"].Password == "" || people["bob"].Password == "" {
		t.Fatalf("the people are %v, want alice and bob:\n%s", people, out)
	}
	return people
}

// runDev runs the program to its end.
func runDev(t *testing.T, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(shared.binDir, "chatelaine-dev"), append([]string{"--bin", shared.binDir}, args...)...)
	if raceEnabled { // bench compiles something: what was compiled already will do
		cmd.Env = append(os.Environ(), "GOFLAGS=-race")
	}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestCleanLeavesAFolderOfSomebodyElseAlone(t *testing.T) {
	needProcesses(t)
	t.Parallel()
	dir := t.TempDir()
	letter := filepath.Join(dir, "letter.txt")
	if err := os.WriteFile(letter, []byte("dear"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := runDev(t, "--dir", dir, "clean"); err == nil || !strings.Contains(out, "stays as it is") {
		t.Errorf("clean: %v\n%s", err, out)
	}
	if _, err := os.Stat(letter); err != nil {
		t.Error(err)
	}
}
