//go:build compose

package compose

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"chatelaine.dev/e2e/crowd"
)

// root is the folder of docker-compose.yml.
const root = "../.."

// project is a running set of containers, apart from those of `docker compose up`
// but for the ports.
type project struct {
	t   *testing.T
	dir string // tls/ and people.yaml
	env []string
}

// start builds the images and starts everything; the test's end removes it all.
func start(t *testing.T, profiles ...string) *project {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "docker", "compose", "version").CombinedOutput(); err != nil {
		t.Fatalf("these tests need a container engine with Compose v2: %v\n%s", err, out)
	}
	p := &project{t: t, dir: t.TempDir()}
	people := filepath.Join(p.dir, "people.yaml")
	if err := crowd.Write(people); err != nil {
		t.Fatal(err)
	}
	p.env = append(os.Environ(), "CHATELAINE_E2E_PEOPLE="+people, "COMPOSE_PROFILES="+strings.Join(profiles, ","))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Minute)
		defer cancel()
		if t.Failed() {
			p.keepLogs(ctx)
		}
		if _, err := p.run(ctx, "--profile=*", "down", "--volumes", "--timeout=30"); err != nil {
			t.Error(err)
		}
	})
	p.compose("--profile=*", "down", "--volumes") // what an interrupted run left
	begun := time.Now()
	p.compose("build", "--quiet")
	t.Logf("images built in %s", time.Since(begun).Round(time.Second))
	begun = time.Now()
	p.compose("up", "--detach", "--wait", "--wait-timeout=180")
	t.Logf("everything is healthy after %s", time.Since(begun).Round(time.Second))
	p.material()
	return p
}

func (p *project) keepLogs(ctx context.Context) {
	logs, err := p.run(ctx, "logs", "--no-color", "--timestamps")
	if err != nil {
		p.t.Log(err)
		return
	}
	file, err := os.CreateTemp("", "chatelaine-compose-*.log")
	if err != nil {
		p.t.Log(err)
		return
	}
	defer file.Close()
	if _, err := file.WriteString(logs); err != nil {
		p.t.Log(err)
	}
	p.t.Log("the containers' logs are kept in", file.Name())
}

// compose runs docker compose and returns what it printed.
func (p *project) compose(args ...string) string {
	p.t.Helper()
	out, err := p.run(p.t.Context(), args...)
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

func (p *project) run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "docker", append([]string{
		"compose", "--project-name=chatelaine-e2e", "--file=docker-compose.yml", "--file=deploy/compose/e2e.yaml",
	}, args...)...)
	cmd.Dir, cmd.Env = root, p.env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("docker compose %s: %w\n%s", strings.Join(args, " "), err, tail(stderr.String()))
	}
	return strings.TrimSpace(stdout.String()), nil
}

func tail(text string) string { return text[max(0, len(text)-4096):] }

// material copies every peer's certificate out of the volumes: the tests play all of them.
func (p *project) material() {
	p.t.Helper()
	for _, peer := range []string{"operator", "gateway", "authserver", "tokenbroker"} {
		p.compose("cp", "init:/material/"+peer+"/tls", p.dir)
	}
}

// databaseURL is the superuser's. Postgres is in a network of its own, which
// only this machine reaches.
func (p *project) databaseURL() string {
	p.t.Helper()
	file := filepath.Join(p.dir, "password")
	p.compose("cp", "init:/material/postgres/secrets/superuser/password", file)
	password, err := os.ReadFile(file)
	if err != nil {
		p.t.Fatal(err)
	}
	out, err := exec.CommandContext(p.t.Context(), "docker", "inspect", "--format={{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", p.container("postgres")).Output()
	if err != nil {
		p.t.Fatal(err)
	}
	u := url.URL{
		Scheme: "postgres", Host: strings.TrimSpace(string(out)) + ":5432", Path: "chatelaine", RawQuery: "sslmode=disable",
		User: url.UserPassword("postgres", strings.TrimSpace(string(password))),
	}
	return u.String()
}

func (p *project) container(service string) string {
	p.t.Helper()
	return p.compose("ps", "--all", "--quiet", service)
}

// skipped finds the tests that say that they were skipped.
var skipped = regexp.MustCompile(`(?m)^--- SKIP: (\S+)`)

// endToEnd runs the end-to-end tests against the containers.
func (p *project) endToEnd() {
	p.t.Helper()
	begun := time.Now()
	cmd := exec.CommandContext(p.t.Context(), "go", "test", "-count=1", "-timeout=15m", "-v", ".")
	cmd.Dir = ".."
	// CI: what a test needs and this machine lacks is a failure, and no skip.
	cmd.Env = append(p.env, "CI=true", "CHATELAINE_E2E_ATTACH="+p.dir, "CHATELAINE_E2E_DATABASE_URL="+p.databaseURL())
	out, err := cmd.CombinedOutput()
	count := func(outcome string) int { return bytes.Count(out, []byte("\n--- "+outcome+":")) }
	p.t.Logf("end-to-end tests: %d passed, %d failed, %d need a stack of their own; %s",
		count("PASS"), count("FAIL"), count("SKIP"), time.Since(begun).Round(time.Second))
	for _, m := range skipped.FindAllSubmatch(out, -1) {
		p.t.Logf("skipped: %s", m[1])
	}
	if err != nil {
		p.t.Fatalf("go test: %v\n%s", err, failures(string(out)))
	}
	if count("PASS") < 15 {
		p.t.Errorf("only %d tests ran:\n%s", count("PASS"), out)
	}
}

// failures drops the lines about what passed.
func failures(out string) string {
	var kept []string
	for line := range strings.Lines(out) {
		word := strings.TrimSpace(line)
		if !strings.HasPrefix(word, "=== ") && !strings.HasPrefix(word, "--- PASS") && !strings.HasPrefix(word, "--- SKIP") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}
