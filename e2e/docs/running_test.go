package docs

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"chatelaine.dev/examples/stack"
	"chatelaine.dev/internal/pgcluster"
	"chatelaine.dev/internal/secret"
)

// reader follows pages: the clone, an empty folder, what its commands find in their environment,
// and the ports that stand for those of the page.
type reader struct {
	clone    string
	dir      string
	env      []string
	ports    map[string]int
	services map[string][]string // further environment of what is served
}

var (
	commands = regexp.MustCompile("(?ms)^```(sh|console)\n(.*?)^```")
	port     = regexp.MustCompile(`localhost:(\d+)`)
	serves   = regexp.MustCompile(`bin/(\w+) serve`)
)

// A page whose commands fail costs its reader the evening.
func TestTheGuidesToRunningAndConfigurationCanBeFollowed(t *testing.T) {
	t.Parallel()
	needPrograms(t, "bash", "openssl", "curl")
	r := newReader(t)
	outputs, servers := 0, 0
	for _, block := range blocks(t, "running.md") {
		text := r.mapped(block[2])
		switch {
		case block[1] == "console":
			outputs += r.converse(t, text)
		case serves.MatchString(text):
			r.serve(t, text)
			servers++
		default:
			if out, err := r.bash(t.Context(), text); err != nil {
				t.Fatalf("%v:\n%s\n%s", err, text, out)
			}
		}
	}
	if outputs < 5 || servers != 3 {
		t.Errorf("%d outputs and %d servers were found on the page", outputs, servers)
	}
	for _, block := range blocks(t, "configuration.md") { // in the clone itself
		if block[1] == "console" {
			r.dir = r.clone
			outputs += r.converse(t, block[2])
		}
	}
	if outputs < 7 {
		t.Error("no output was found on the page about configuration")
	}
}

// needPrograms fails a test that has not what pages use: `make deps` installs it.
func needPrograms(t *testing.T, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%v: make deps installs it", err)
		}
	}
}

// blocks are the commands of a page: whether they are shown with their output, and
// their text.
func blocks(t *testing.T, page string) [][]string {
	t.Helper()
	return commands.FindAllStringSubmatch(read(t, filepath.Join(root, "docs", page)), -1)
}

// newReader has a Postgres, an empty folder, and a clone in which make build was run.
func newReader(t *testing.T) *reader {
	t.Helper()
	ports, err := stack.FreePorts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir, err := pgcluster.DataDir(filepath.Join(t.TempDir(), "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	cluster, err := pgcluster.Start(t.Context(), pgcluster.Config{Dir: dir, Port: ports.Corp, Password: secret.New("reader"), Throwaway: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cluster.Stop() })
	programs, err := pgcluster.Binaries()
	if err != nil {
		t.Fatal(err)
	}
	clone := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", filepath.Join(clone, "bin")+string(filepath.Separator),
		"../../services/authserver/cmd/authserver", "../../services/tokenbroker/cmd/tokenbroker", "../../services/gateway/cmd/gateway")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, name := range []string{"docs", "examples"} {
		target, err := filepath.Abs(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, filepath.Join(clone, name)); err != nil {
			t.Fatal(err)
		}
	}
	return &reader{
		clone: clone, dir: t.TempDir(),
		env: append(os.Environ(), "CHATELAINE="+clone, "ADMIN_URL="+cluster.TCPURL("postgres").Reveal(),
			"PATH="+os.Getenv("PATH")+string(filepath.ListSeparator)+programs),
		ports: map[string]int{
			"8000": ports.Gateway, "8001": ports.GatewayAdmin, "8081": ports.AuthserverAdmin, "8082": ports.AuthserverGRPC,
			"9090": ports.Broker, "9091": ports.BrokerREST, "9092": ports.BrokerAdmin, "": ports.Corp,
		},
		services: map[string][]string{
			"authserver":  {address("PUBLIC", ports.Authserver), address("GRPC", ports.AuthserverGRPC), address("ADMIN", ports.AuthserverAdmin)},
			"tokenbroker": {address("GRPC", ports.Broker), address("REST", ports.BrokerREST), address("ADMIN", ports.BrokerAdmin)},
			"gateway":     {address("PUBLIC", ports.Gateway), address("ADMIN", ports.GatewayAdmin)},
		},
	}
}

func address(name string, port int) string {
	return fmt.Sprintf("CHATELAINE_%s_ADDRESS=127.0.0.1:%d", name, port)
}

// mapped is the text with the test's ports in place of the page's.
func (r *reader) mapped(text string) string {
	text = port.ReplaceAllStringFunc(text, func(match string) string {
		return "localhost:" + strconv.Itoa(r.ports[strings.TrimPrefix(match, "localhost:")])
	})
	return strings.ReplaceAll(text, "@localhost/", "@localhost:"+strconv.Itoa(r.ports[""])+"/")
}

func (r *reader) bash(ctx context.Context, script string) (string, error) {
	cmd := exec.CommandContext(ctx, "bash", "-euc", script)
	cmd.Dir, cmd.Env = r.dir, r.env
	out, err := cmd.Output()
	return string(out), err
}

// serve starts what the block does and stops it when the test ends.
func (r *reader) serve(t *testing.T, block string) {
	t.Helper()
	service := serves.FindStringSubmatch(block)[1]
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "bash", "-euc", "exec env "+block)
	cmd.Dir, cmd.Env = r.dir, append(r.env, r.services[service]...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Errorf("%s: %v\n%s", service, err, log.Bytes()[max(0, log.Len()-2048):])
		}
	})
}

// said is what a command says but for the spaces in JSON, which protojson makes
// differ from build to build.
func said(out string) string {
	var compact bytes.Buffer
	if json.Compact(&compact, []byte(out)) == nil {
		return compact.String()
	}
	return strings.TrimSpace(out)
}

// converse types each command and compares what it says with the page, for as long
// as services may need to become ready. It returns the number of commands.
func (r *reader) converse(t *testing.T, block string) (commands int) {
	t.Helper()
	for exchange := range strings.SplitSeq("\n"+block, "\n$ ") {
		command, want, _ := strings.Cut(exchange, "\n")
		if command == "" {
			continue
		}
		commands++
		deadline := time.Now().Add(30 * time.Second)
		for {
			script := command + " 2>&1"
			if strings.HasPrefix(command, "curl ") {
				script = command // without the progress meter
			}
			out, err := r.bash(t.Context(), script)
			if said(out) == said(want) {
				break
			}
			// What asks a service may have to wait until it is ready.
			if !strings.HasPrefix(command, "curl ") || time.Now().After(deadline) {
				t.Fatalf("$ %s\n%s%v; the page shows\n%s", command, out, err, want)
			}
			select {
			case <-t.Context().Done():
				t.Fatal(t.Context().Err())
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	return commands
}
