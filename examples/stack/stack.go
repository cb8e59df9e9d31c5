package stack

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"chatelaine.dev/internal/pgcluster"
)

//go:embed resources.yaml
var resources string

// startTimeout bounds the start of everything.
const startTimeout = 2 * time.Minute

// Config says where a stack lives and what differs from the documented one.
type Config struct {
	// Dir keeps data, keys, secrets and logs.
	Dir string
	// BinDir has the built programs.
	BinDir string
	// ServicesBinDir has the three services, when they are of another version.
	ServicesBinDir string
	// Ports; all must be set, see DefaultPorts and FreePorts.
	Ports Ports
	// PeopleFile replaces the example people; empty for alice and bob.
	PeopleFile string
	// Resources, when set, changes the resources before they are written.
	Resources func(string) string
	// OTLPEndpoint, HOST:PORT, gets the traces of every process; empty for none.
	OTLPEndpoint string
	// Env is added to the environment of the process of that name.
	Env map[string][]string
	// Args are added to the command line of the process of that name.
	Args map[string][]string
	// Omit names processes that are not started: those that the changed resources
	// have no use for, such as the authorization server beside an issuer of somebody else's.
	Omit []string
	// Throwaway makes Postgres faster and forgetful of crashes, for tests.
	Throwaway bool
	// Progress, when set, is told what happens, a line at a time.
	Progress func(line string)
}

func (c Config) servicesBinDir() string { return cmp.Or(c.ServicesBinDir, c.BinDir) }

// Stack is a running deployment.
type Stack struct {
	cfg      Config
	cluster  *pgcluster.Cluster
	release  func() // of the lock of the folder
	children []*child

	databaseURL string // of Attach; else the cluster knows it
}

// Start starts everything and returns when all of it is ready. On error nothing
// is left running.
func Start(ctx context.Context, cfg Config) (_ *Stack, err error) {
	if cfg.Progress == nil {
		cfg.Progress = func(string) {}
	}
	s := &Stack{cfg: cfg}
	if err := cfg.Ports.checkFree(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()
	if err := s.prepare(); err != nil {
		return nil, err
	}
	cfg.Progress("starting Postgres")
	if s.cluster, err = startPostgres(ctx, cfg.Dir, cfg.Throwaway); err != nil {
		return nil, err
	}
	if err := s.writeDatabaseURL("superuser", s.DatabaseURL()); err != nil {
		return nil, err
	}
	children, err := s.processes()
	if err != nil {
		return nil, err
	}
	if err := s.migrate(ctx, children, cfg.servicesBinDir()); err != nil {
		return nil, err
	}
	cfg.Progress("starting two identity providers, three MCP servers, three services")
	for _, c := range children {
		if err := c.start(s.LogDir()); err != nil {
			return nil, err
		}
		s.children = append(s.children, c)
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, c := range s.children {
		group.Go(func() error { return c.waitReady(ctx) })
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return s, nil
}

// prepare makes folders, secrets, certificates and the resources file.
func (s *Stack) prepare() error {
	if err := claim(s.cfg.Dir); err != nil {
		return err
	}
	release, err := lockFolder(s.cfg.Dir)
	if err != nil {
		return err
	}
	s.release = release
	for _, dir := range []string{s.LogDir(), s.path("state")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	if err := makeMaterial(s.cfg.Dir); err != nil {
		return fmt.Errorf("make keys and secrets: %w", err)
	}
	text := s.cfg.Ports.Rewrite(resources)
	if s.cfg.Resources != nil {
		text = s.cfg.Resources(text)
	}
	return os.WriteFile(s.ResourcesFile(), []byte(text), 0o600)
}

// Migrate brings both schemas up to date with the services of another version,
// while those that run go on.
func (s *Stack) Migrate(ctx context.Context, binDir string) error {
	return s.migrate(ctx, s.children, binDir)
}

// migrate brings both schemas up to date, with the same environment that the
// services then serve with.
func (s *Stack) migrate(ctx context.Context, children []*child, binDir string) error {
	for _, c := range children {
		if c.name != "authserver" && c.name != "tokenbroker" {
			continue
		}
		s.cfg.Progress("migrating the schema of " + c.name)
		cmd := exec.CommandContext(ctx, filepath.Join(binDir, c.name), "migrate")
		cmd.Env = c.env
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s migrate: %w\n%s\nWhen %s was made by an older version whose data this one cannot take over, "+
				"\"make clean-data\" forgets it, logins included", c.name, err, bytes.TrimSpace(out), s.cfg.Dir)
		}
	}
	return nil
}

// Wait returns when a process ends by itself, with an error that says which and
// why, or nil when ctx ends.
func (s *Stack) Wait(ctx context.Context) error {
	died := make(chan error, len(s.children))
	for _, c := range s.children {
		go func() {
			select {
			case <-c.done:
				died <- c.died()
			case <-ctx.Done():
			}
		}()
	}
	select {
	case err := <-died:
		return err
	case <-ctx.Done():
		return nil
	}
}

// Stop ends the services, then the examples, then Postgres, and waits for each.
func (s *Stack) Stop() error {
	problems := make([]error, len(s.children))
	var group errgroup.Group
	for i, c := range s.children {
		group.Go(func() error {
			problems[i] = c.stop()
			return nil
		})
	}
	_ = group.Wait()
	err := errors.Join(problems...)
	if s.cluster != nil {
		err = errors.Join(err, s.cluster.Stop())
	}
	if s.release != nil {
		s.release()
	}
	s.children, s.cluster, s.release = nil, nil, nil
	return err
}

// Restart stops one process, by SIGKILL when hard, and starts it again.
func (s *Stack) Restart(ctx context.Context, name string, hard bool) error {
	if err := s.StopProcess(name, hard); err != nil {
		return err
	}
	return s.StartProcess(ctx, name)
}

// Replace stops a service and starts that of another version in its place.
func (s *Stack) Replace(ctx context.Context, name, binDir string) error {
	c, err := s.child(name)
	if err != nil {
		return err
	}
	if err := c.stop(); err != nil {
		return err
	}
	c.path = filepath.Join(binDir, name)
	return s.StartProcess(ctx, name)
}

// StopProcess stops one process, by SIGKILL when hard.
func (s *Stack) StopProcess(name string, hard bool) error {
	c, err := s.child(name)
	if err != nil {
		return err
	}
	if hard {
		c.signal(syscall.SIGKILL)
	}
	return c.stop()
}

// StartProcess starts a stopped process and waits until it is ready.
func (s *Stack) StartProcess(ctx context.Context, name string) error {
	c, err := s.child(name)
	if err != nil {
		return err
	}
	if err := c.start(s.LogDir()); err != nil {
		return err
	}
	return c.waitReady(ctx)
}

// PID returns the process id of a running process.
func (s *Stack) PID(name string) (int, error) {
	c, err := s.child(name)
	if err != nil {
		return 0, err
	}
	return c.cmd.Process.Pid, nil
}

// ExitCode returns that of a process that was stopped, or -1 for one that a signal
// ended or that still runs.
func (s *Stack) ExitCode(name string) (int, error) {
	c, err := s.child(name)
	if err != nil {
		return 0, err
	}
	select {
	case <-c.done:
		return c.cmd.ProcessState.ExitCode(), nil
	default:
		return -1, nil
	}
}

func (s *Stack) child(name string) (*child, error) {
	for _, c := range s.children {
		if c.name == name {
			return c, nil
		}
	}
	return nil, fmt.Errorf("no process %q in this stack", name)
}

func (s *Stack) path(parts ...string) string {
	return filepath.Join(append([]string{s.cfg.Dir}, parts...)...)
}

// LogDir has one file for each process.
func (s *Stack) LogDir() string { return s.path("logs") }

// Log returns the file that the process of that name logs to.
func (s *Stack) Log(name string) string { return filepath.Join(s.LogDir(), name+".log") }

// ResourcesFile is the set of resources that all services read.
func (s *Stack) ResourcesFile() string { return s.path("resources.yaml") }

// TLSDir has PEER.crt and PEER.key for operator, gateway, tokenbroker and
// authserver, and ca.crt.
func (s *Stack) TLSDir() string { return s.path("tls") }

// SecretsDir has the secrets of one process.
func (s *Stack) SecretsDir(name string) string { return s.path("secrets", name) }

// Ports are the ports in use.
func (s *Stack) Ports() Ports { return s.cfg.Ports }

// Issuer is the authorization server's public URL.
func (s *Stack) Issuer() string { return local(s.cfg.Ports.Authserver) }

// MCPURL is the aggregated MCP endpoint.
func (s *Stack) MCPURL() string { return local(s.cfg.Ports.Gateway) + "/mcp" }

// BrokerAddress is where the broker speaks gRPC.
func (s *Stack) BrokerAddress() string { return hostPort(s.cfg.Ports.Broker) }

// DatabaseURL is the superuser's URL of the stack's database.
func (s *Stack) DatabaseURL() string {
	if s.Attached() {
		return s.databaseURL
	}
	return s.cluster.URL(database).Reveal()
}

func local(port int) string {
	return (&url.URL{Scheme: "http", Host: "localhost:" + strconv.Itoa(port)}).String()
}

func hostPort(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

// baseEnv is the environment of every process: what a Go program needs from
// ours, and none of our own settings.
func baseEnv() []string {
	var env []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		switch name {
		case "PATH", "HOME", "TMPDIR", "TZ", "LANG", "SSL_CERT_FILE", "SSL_CERT_DIR", "GOMAXPROCS", "GODEBUG", "GOCOVERDIR":
			env = append(env, kv)
		}
	}
	return env
}
