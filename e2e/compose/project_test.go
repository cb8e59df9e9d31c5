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
	"strings"
	"testing"
	"time"

	"chatelaine.dev/e2e/crowd"
)

// root is the folder of docker-compose.yml.
const root = "../.."

// The images of these tests have a tag of their own, as `make images` gives it, so
// that none is there before.
const (
	version  = "v0.0.0-e2e"
	revision = "0123456789abcdef0123456789abcdef01234567"
)

// waitSeconds is how long a start may take, building apart.
const waitSeconds = "600"

// TestMain removes the images before and after, so that the first `up` has to build them.
func TestMain(m *testing.M) {
	code := 1
	if err := removeImages(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else if code = m.Run(); code == 0 {
		if err := removeImages(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func removeImages() error {
	names, err := listImages(context.Background())
	if err != nil || len(names) == 0 {
		return err
	}
	if out, err := exec.Command("docker", append([]string{"image", "rm"}, names...)...).CombinedOutput(); err != nil {
		return fmt.Errorf("remove the images of an earlier run: %w\n%s", err, out)
	}
	return nil
}

func listImages(ctx context.Context) ([]string, error) {
	out, err := exec.CommandContext(ctx, "docker", "image", "ls", "--filter=reference=chatelaine/*:"+version, "--format={{.Repository}}:{{.Tag}}").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("these tests need a container engine: %w\n%s", err, out)
	}
	return strings.Fields(string(out)), nil
}

// images are those of these tests that there are.
func images(t *testing.T) []string {
	t.Helper()
	names, err := listImages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// docker runs the engine's client and returns what it printed.
func docker(t *testing.T, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "docker", args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = root, &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, tail(stderr.String()))
	}
	return strings.TrimSpace(stdout.String())
}

// project is a running set of containers, apart from those of `docker compose up`
// but for the ports.
type project struct {
	t   *testing.T
	dir string // tls/ and people.yaml
	env []string
}

// newProject prepares a project of which nothing runs yet.
func newProject(t *testing.T, profiles ...string) *project {
	t.Helper()
	docker(t, "compose", "version")
	p := &project{t: t, dir: t.TempDir()}
	people := filepath.Join(p.dir, "people.yaml")
	if err := crowd.Write(people); err != nil {
		t.Fatal(err)
	}
	p.env = append(os.Environ(), "CHATELAINE_E2E_PEOPLE="+people, "COMPOSE_PROFILES="+strings.Join(profiles, ","),
		"CHATELAINE_VERSION="+version, "CHATELAINE_REVISION="+revision)
	return p
}

// start runs `up` and nothing before it, so that what is missing is built by it;
// the test's end removes everything but the images.
func start(t *testing.T, profiles ...string) *project {
	t.Helper()
	p := newProject(t, profiles...)
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
	built := len(images(t)) == 0
	begun := time.Now()
	p.compose("up", "--detach", "--wait", "--wait-timeout="+waitSeconds)
	t.Logf("everything is healthy after %s; images built by it: %t", time.Since(begun).Round(time.Second), built)
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
	address := docker(p.t, "inspect", "--format={{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", p.container("postgres"))
	u := url.URL{
		Scheme: "postgres", Host: address + ":5432", Path: "chatelaine", RawQuery: "sslmode=disable",
		User: url.UserPassword("postgres", strings.TrimSpace(string(password))),
	}
	return u.String()
}

func (p *project) container(service string) string {
	p.t.Helper()
	return p.compose("ps", "--all", "--quiet", service)
}
