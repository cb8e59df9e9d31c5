package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"chatelaine.dev/examples/browse"
	"chatelaine.dev/examples/journey"
	"chatelaine.dev/examples/mcpserver"
	"chatelaine.dev/examples/stack"
	"chatelaine.dev/internal/config"
	brokerv1 "chatelaine.dev/proto/broker/v1"
)

// redirectURI is where the client says that it listens; the headless browser
// stops in front of it.
const redirectURI = "http://127.0.0.1:33418/callback"

// Config says what to measure. All fields but Source and Progress are required.
type Config struct {
	// BinDir has the built services.
	BinDir string
	// Dir is for logs and data; it must exist.
	Dir string
	// Helper is a command that runs Backend or Proxy, given the name of one as the
	// next argument (see BackendCommand, ProxyCommand), and then its flags.
	Helper []string
	// Source is the root of the source tree, where the broker's own benchmark is
	// built; empty leaves it out.
	Source string
	// Account of the person who logs in.
	Account browse.Account
	Settings
	// Progress, when set, is told what happens, a line at a time.
	Progress func(line string)
}

// Settings are what a result depends on, beside the machine.
type Settings struct {
	Connections int           `json:"connections"`
	Rounds      int           `json:"rounds"`
	Duration    time.Duration `json:"durationNanos"`
	WarmUp      time.Duration `json:"warmUpNanos"`
	TextBytes   int           `json:"textBytes"`
	// Version of MCP: 2026-07-28 (stateless) or 2025-11-25 (sessions).
	Version string `json:"mcpVersion"`
	// PlainJSON makes the backend answer application/json, not an event stream.
	PlainJSON bool `json:"plainJSON"`
}

// BackendCommand and ProxyCommand are the names of the helpers' commands.
const (
	BackendCommand = "bench-backend"
	ProxyCommand   = "bench-proxy"
)

// bench is a run under way.
type bench struct {
	Config
	backend, proxy *helper
	stack          *stack.Stack
	token          string
	targets        []*measured
}

// measured is a target with what was measured so far.
type measured struct {
	result Result
	load   *load
}

// Run starts everything, measures, and stops it again. Any wrong answer is an
// error; the logs are then in Dir.
func Run(ctx context.Context, cfg Config) (_ *Report, err error) {
	if cfg.Progress == nil {
		cfg.Progress = func(string) {}
	}
	report := &Report{Machine: describeMachine(), Settings: cfg.Settings}
	b := &bench{Config: cfg}
	defer func() { err = errors.Join(err, b.stop()) }()
	program := ""
	if cfg.Source != "" {
		cfg.Progress("building the broker's own benchmark")
		if program, err = buildBrokerBenchmark(ctx, cfg.Source, cfg.Dir); err != nil {
			return nil, err
		}
	}
	if err := b.start(ctx); err != nil {
		return nil, err
	}
	if report.Targets, err = b.measureTargets(ctx); err != nil {
		return nil, err
	}
	if report.Credentials, err = b.measureCredentials(ctx); err != nil {
		return nil, err
	}
	if program != "" {
		cfg.Progress("running the broker's own benchmark")
		if err := b.stop(); err != nil { // it has the machine for itself
			return nil, err
		}
		if report.InBroker, err = runBrokerBenchmark(ctx, program, cfg.Source); err != nil {
			return nil, err
		}
	}
	return report, nil
}

// start starts the backend, the proxy and the stack, and logs in.
func (b *bench) start(ctx context.Context) (err error) {
	backend := append(b.Helper, BackendCommand) //nolint:gocritic // a copy, as its capacity is its length
	if b.PlainJSON {
		backend = append(backend, "--plain-json")
	}
	if b.backend, err = startHelper(ctx, b.Dir, BackendCommand, backend...); err != nil {
		return err
	}
	if b.proxy, err = startHelper(ctx, b.Dir, ProxyCommand, append(b.Helper, ProxyCommand,
		"--target", "http://"+b.backend.address, "--connections", strconv.Itoa(2*b.Connections))...); err != nil {
		return err
	}
	ports, err := stack.FreePorts(ctx)
	if err != nil {
		return err
	}
	b.stack, err = stack.Start(ctx, stack.Config{
		Dir: filepath.Join(b.Dir, "stack"), BinDir: b.BinDir, Ports: ports, Progress: b.Progress,
		Resources: func(text string) string { return addBackend(text, b.backend.address) },
	})
	if err != nil {
		return err
	}
	b.Progress("logging in")
	b.token, err = b.logIn(ctx)
	return err
}

// addBackend adds the backend to the demo's resources, with octohub's token to be
// injected. What it says is checked when the services read it.
func addBackend(resources, address string) string {
	_, port, _ := strings.Cut(address, ":")
	const backends = "    backends:\n"
	resources = strings.Replace(resources, backends, backends+
		"      "+backendName+": {type: externalAuthConfigRef, externalAuthConfigRef: {name: as-octohub-user}}\n", 1)
	return strings.TrimRight(resources, "\n") + fmt.Sprintf(`
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPServerEntry
metadata: {name: %s}
spec: {groupRef: {name: demo}, remoteUrl: "http://localhost:%s%s", transport: streamable-http}
`, backendName, port, mcpserver.Path)
}

// logIn returns an access token for the aggregated endpoint, which opens every
// backend, of a person who has logged in at both providers.
func (b *bench) logIn(ctx context.Context) (string, error) {
	client := &http.Client{Timeout: 30 * time.Second}
	found, err := journey.Discover(ctx, client, b.stack.MCPURL())
	if err != nil {
		return "", err
	}
	registered, err := found.Register(ctx, client, "Benchmark", redirectURI)
	if err != nil {
		return "", err
	}
	person, err := browse.New(browse.Options{Account: b.Account})
	if err != nil {
		return "", err
	}
	login, err := registered.Login(ctx, person)
	if err != nil {
		return "", err
	}
	return login.Token.AccessToken, nil
}

// measureTargets runs the interleaved rounds.
func (b *bench) measureTargets(ctx context.Context) ([]Result, error) {
	defer b.disconnect()
	if err := b.connectTargets(ctx); err != nil {
		return nil, err
	}
	for _, m := range b.targets {
		b.Progress(fmt.Sprintf("warming up %s for %s", m.result.Name, b.WarmUp))
		if _, err := m.load.run(ctx, b.WarmUp); err != nil {
			return nil, fmt.Errorf("%s: %w", m.result.Name, err)
		}
	}
	for round := range b.Rounds {
		b.Progress(fmt.Sprintf("round %d of %d", round+1, b.Rounds))
		for _, m := range b.targets {
			runtime.GC() // our own garbage is not the next target's
			measure := func() (Sample, error) { return m.load.run(ctx, b.Duration) }
			r, err := b.withCPU(measure)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", m.result.Name, err)
			}
			m.result.Rounds = append(m.result.Rounds, r)
		}
	}
	results := make([]Result, len(b.targets))
	for i, m := range b.targets {
		results[i] = m.result
	}
	compare(results)
	return results, nil
}

// connectTargets opens the connections to all four targets.
func (b *bench) connectTargets(ctx context.Context) error {
	gateway := strconv.Itoa(b.stack.Ports().Gateway)
	padding := strings.Repeat("x", max(0, b.TextBytes-len("call 1000000")))
	upstream := tokenPrefix + strings.Repeat("0", 52) // as long as octohub's
	for _, t := range []struct {
		result Result
		target target
	}{
		{
			Result{Key: "a", Name: "direct", Process: processBackend},
			target{address: b.backend.address, host: b.backend.address, path: mcpserver.Path, token: upstream, tool: toolName},
		},
		{
			Result{Key: "b", Name: "reverse proxy", Process: processProxy},
			target{address: b.proxy.address, host: b.proxy.address, path: mcpserver.Path, token: upstream, tool: toolName},
		},
		{
			Result{Key: "c", Name: "gateway /mcp/" + backendName, Process: processGateway},
			target{address: "127.0.0.1:" + gateway, host: "localhost:" + gateway, path: "/mcp/" + backendName, token: b.token, tool: toolName},
		},
		{
			Result{Key: "d", Name: "gateway /mcp", Process: processGateway},
			target{address: "127.0.0.1:" + gateway, host: "localhost:" + gateway, path: "/mcp", token: b.token, tool: backendName + "_" + toolName},
		},
	} {
		t.target.version, t.target.padding = b.Version, padding
		m := &measured{result: t.result}
		var err error
		if m.load, err = connect(ctx, t.target, b.Connections); err != nil {
			return fmt.Errorf("%s: %w", m.result.Name, err)
		}
		b.targets = append(b.targets, m)
	}
	return nil
}

func (b *bench) disconnect() {
	for _, m := range b.targets {
		m.load.close()
	}
}

// withCPU adds to a measurement what each process has used of the processor.
func (b *bench) withCPU(measure func() (Sample, error)) (Round, error) {
	before, err := b.cpuTimes()
	if err != nil {
		return Round{}, err
	}
	s, err := measure()
	if err != nil {
		return Round{}, err
	}
	after, err := b.cpuTimes()
	if err != nil {
		return Round{}, err
	}
	r := Round{Sample: s, CPU: map[string]float64{}}
	for name, used := range after {
		r.CPU[name] = perCall(used-before[name], s.Calls)
	}
	return r, nil
}

func (b *bench) cpuTimes() (map[string]time.Duration, error) {
	pids := map[string]int{processBackend: b.backend.cmd.Process.Pid, processProxy: b.proxy.cmd.Process.Pid}
	for _, name := range []string{processGateway, processBroker} {
		pid, err := b.stack.PID(name)
		if err != nil {
			return nil, err
		}
		pids[name] = pid
	}
	times := map[string]time.Duration{}
	for name, pid := range pids {
		used, err := cpuTime(pid)
		if err != nil {
			return nil, err
		}
		times[name] = used
	}
	return times, nil
}

// measureCredentials calls the broker as the gateway does.
func (b *bench) measureCredentials(ctx context.Context) (*Result, error) {
	set, problems := config.Load(b.stack.ResourcesFile())
	if err := problems.Err(); err != nil {
		return nil, err
	}
	conn, err := b.stack.DialBroker("gateway")
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	l := &credentialLoad{
		broker: brokerv1.NewCredentialServiceClient(conn), callers: b.Connections,
		request: &brokerv1.GetCredentialRequest{AccessToken: b.token, Backend: backendName, ConfigDigest: set.Digest()},
	}
	b.Progress(fmt.Sprintf("GetCredential: warming up, then %d rounds", b.Rounds))
	result := Result{Key: "e", Name: "GetCredential", Process: processBroker}
	if _, err := l.run(ctx, b.WarmUp); err != nil {
		return nil, err
	}
	for range b.Rounds {
		runtime.GC()
		r, err := b.withCPU(func() (Sample, error) { return l.run(ctx, b.Duration) })
		if err != nil {
			return nil, err
		}
		result.Rounds = append(result.Rounds, r)
	}
	result.summarize()
	return &result, nil
}

// stop ends what start started. It may be called twice.
func (b *bench) stop() error {
	var problems []error
	if b.stack != nil {
		problems = append(problems, b.stack.Stop())
	}
	for _, h := range []*helper{b.proxy, b.backend} {
		if h != nil {
			problems = append(problems, h.stop())
		}
	}
	b.stack, b.proxy, b.backend = nil, nil, nil
	return errors.Join(problems...)
}

// describeMachine reads what a person needs to place the figures.
func describeMachine() Machine {
	m := Machine{OS: runtime.GOOS, Arch: runtime.GOARCH, Cores: runtime.NumCPU(), GoVersion: runtime.Version()}
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		m.CPU = parseModel(info)
	}
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		if first, _, ok := strings.Cut(string(text), " "); ok {
			m.LoadAverage, _ = strconv.ParseFloat(first, 64)
		}
	}
	return m
}
