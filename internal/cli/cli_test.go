package cli_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/alecthomas/kong"

	"chatelaine.dev/internal/cli"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/outbound"
	"chatelaine.dev/internal/pgtest"
	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/internal/process"
	"chatelaine.dev/internal/telemetry"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

type flags struct {
	cli.Config
	cli.Telemetry
	cli.AdminServer
	cli.TLS
	cli.Database
	cli.Dial
	PublicAddress string `default:":8080" help:"Where to serve."`
}

// outcome is what one run did.
type outcome struct {
	status         int
	stdout, stderr string
	flags          *flags
}

func run(t *testing.T, args ...string) outcome {
	t.Helper()
	var o outcome
	var stdout, stderr bytes.Buffer
	o.status = cli.Program[flags]{
		Name: "ledgerd", Summary: "Keeps a ledger.", AdminAddress: ":8081",
		Vars: kong.Vars{"unused": "x"},
		Serve: func(_ context.Context, f *flags) error {
			o.flags = f
			return nil
		},
		Migrations: func() (postgres.Migrations, error) {
			return postgres.Migrations{Schema: "ledger", Command: "ledgerd migrate", FS: fstest.MapFS{
				"0001_a.sql": {Data: []byte("-- +goose Up\nCREATE TABLE ledger.a (n int);\n")},
			}}, nil
		},
	}.Run(args, &stdout, &stderr)
	o.stdout, o.stderr = stdout.String(), stderr.String()
	return o
}

func serveArgs(more ...string) []string {
	return append([]string{"serve", "--config", "conf", "--tls-cert", "c", "--tls-key", "k", "--tls-ca", "a"}, more...)
}

func TestFlagsReachTheService(t *testing.T) {
	o := run(t, serveArgs("--database-url", "postgres://app@db/x", "--dial", "localhost:8080=authserver:8080", "--dial", "A:1=b:2",
		"--log-level", "debug", "--otlp-endpoint", "collector:4317", "--trace-sample-ratio", "0.25")...)
	if o.status != 0 || o.flags == nil {
		t.Fatalf("status %d: %s", o.status, o.stderr)
	}
	f := o.flags
	url, err := f.URL()
	if err != nil || url.Reveal() != "postgres://app@db/x" {
		t.Errorf("URL: %v", err)
	}
	dials, err := f.Dials()
	if to, ok := dials.Target("localhost:8080"); err != nil || !ok || to != "authserver:8080" || len(dials) != 2 {
		t.Errorf("dials %v, %v", dials, err)
	}
	opts := f.Telemetry.Options("ledgerd")
	if opts.LogLevel != slog.LevelDebug || opts.OTLPEndpoint != "collector:4317" || opts.SampleRatio != 0.25 || opts.LogFormat != "json" || opts.Version == "" {
		t.Errorf("telemetry %+v", opts)
	}
	if f.AdminAddress != ":8081" || f.PublicAddress != ":8080" || f.Config.Path != "conf" || f.Files().CA != "a" || f.DatabaseMaxConns != 16 {
		t.Errorf("flags %+v", f)
	}
}

func TestEveryFlagHasATwinInTheEnvironment(t *testing.T) {
	for name, value := range map[string]string{
		"CHATELAINE_CONFIG": "conf", "CHATELAINE_TLS_CERT": "c", "CHATELAINE_TLS_KEY": "k", "CHATELAINE_TLS_CA": "a",
		"CHATELAINE_DATABASE_URL": "postgres://app:hunter2@db/x", "CHATELAINE_PUBLIC_ADDRESS": ":9",
		"CHATELAINE_DIAL": "a:1=b:1,c:1=d:1", "CHATELAINE_OTLP_INSECURE": "true", "CHATELAINE_ADMIN_ADDRESS": ":10",
	} {
		t.Setenv(name, value)
	}
	o := run(t, "serve")
	if o.status != 0 {
		t.Fatalf("status %d: %s", o.status, o.stderr)
	}
	url, err := o.flags.URL()
	if err != nil || url.Reveal() != "postgres://app:hunter2@db/x" { // a password is welcome here
		t.Errorf("URL: %v", err)
	}
	if o.flags.PublicAddress != ":9" || !o.flags.OTLPInsecure || o.flags.AdminAddress != ":10" || len(o.flags.Dial.Dial) != 2 {
		t.Errorf("flags %+v", o.flags)
	}
	// The command line wins, and with it in force its rule.
	if o := run(t, "serve", "--database-url", "postgres://app:other@db/x"); o.status != 2 {
		t.Errorf("status %d", o.status)
	}
}

func TestAPasswordOnTheCommandLineIsRefusedAndNotRepeated(t *testing.T) {
	for _, args := range [][]string{
		serveArgs("--database-url", "postgres://app:hunter2@db/x"),
		serveArgs("--database-url=host=db password=hunter2"),
		{"migrate", "--database-url", "postgres://app@db/x?password=hunter2"},
	} {
		o := run(t, args...)
		if o.status != 2 || o.flags != nil || strings.Contains(o.stderr+o.stdout, "hunter2") ||
			!strings.Contains(o.stderr, "CHATELAINE_DATABASE_URL") || !strings.Contains(o.stderr, "--database-url-file") {
			t.Errorf("status %d: %s", o.status, o.stderr)
		}
	}
}

func TestTheDatabaseURLComesFromOnePlace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(file, []byte("postgres://app:hunter2@db/x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := run(t, serveArgs("--database-url-file", file)...)
	if opts, err := o.flags.Database.Options("ledgerd"); err != nil || opts.URL.Reveal() != "postgres://app:hunter2@db/x" || opts.Application != "ledgerd" {
		t.Errorf("from a file: %v", err)
	}
	o = run(t, serveArgs("--database-url-file", file, "--database-url", "postgres://db/x")...)
	if _, err := o.flags.URL(); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "exclude") {
		t.Errorf("both: %v", err)
	}
	o = run(t, serveArgs()...)
	if _, err := o.flags.URL(); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "$CHATELAINE_DATABASE_URL") {
		t.Errorf("none: %v", err)
	}
}

func TestWrongFlagsAreOneLineAndStatusTwo(t *testing.T) {
	for name, args := range map[string][]string{
		"unknown": serveArgs("--nope"), "missing": {"serve"}, "no command": {}, "bad level": serveArgs("--log-level", "loud"),
		"bad format": serveArgs("--log-format", "xml"),
	} {
		o := run(t, append(args, "--log-format=text")...)
		if name == "bad format" {
			o = run(t, args...)
		}
		if o.status != 2 || !strings.HasPrefix(o.stderr, "ledgerd: ") || strings.Count(o.stderr, "\n") != 1 {
			t.Errorf("%s: status %d, %q", name, o.status, o.stderr)
		}
	}
}

func TestBadDialsAreNamed(t *testing.T) {
	t.Parallel()
	for _, list := range [][]string{{"nonsense"}, {"a:1=b:1", "A:1=c:1"}} {
		if dials, err := (&cli.Dial{Dial: list}).Dials(); fault.KindOf(err) != fault.Invalid || !strings.HasPrefix(err.Error(), "--dial: ") {
			t.Errorf("%v: %v, %v", list, dials, err)
		}
	}
	if dials, err := (&cli.Dial{}).Dials(); err != nil || len(dials) != len(outbound.Dials{}) {
		t.Errorf("%v, %v", dials, err)
	}
}

func TestVersionAndHelp(t *testing.T) {
	if o := run(t, "version"); o.status != 0 || !strings.HasPrefix(o.stdout, "ledgerd ") {
		t.Errorf("%+v", o)
	}
	if o := run(t, "serve", "--help"); o.status != 0 || !strings.Contains(o.stdout, "CHATELAINE_DATABASE_URL") ||
		!strings.Contains(o.stdout, "$CHATELAINE_SECRETS_DIR") || o.stderr != "" {
		t.Errorf("status %d, %q", o.status, o.stderr)
	}
}

func TestMigrate(t *testing.T) {
	url := pgtest.URL(t)
	t.Setenv("CHATELAINE_DATABASE_URL", url.Reveal())
	for _, want := range []string{"1 migrations applied", "0 migrations applied"} {
		if o := run(t, "migrate"); o.status != 0 || !strings.Contains(o.stdout, want) {
			t.Errorf("status %d, %q, %q", o.status, o.stdout, o.stderr)
		}
	}
	t.Setenv("CHATELAINE_DATABASE_URL", "postgres://app:hunter2@127.0.0.1:1/x")
	if o := run(t, "migrate"); o.status != 1 || !strings.Contains(o.stderr, "not available") || strings.Contains(o.stderr, "hunter2") {
		t.Errorf("status %d, %q", o.status, o.stderr)
	}
}

func TestAServiceWithoutADatabaseIsDeployedLikeTheOthers(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	p := cli.Program[struct{ cli.Config }]{Name: "gateway", Serve: func(context.Context, *struct{ cli.Config }) error { return errors.New("stop") }}
	if status := p.Run([]string{"migrate"}, &stdout, &stderr); status != 0 || !strings.Contains(stdout.String(), "nothing to migrate") {
		t.Errorf("status %d, %q, %q; want 0 and words", status, &stdout, &stderr)
	}
	if status := p.Run([]string{"serve", "--config", "x"}, io.Discard, &stderr); status != 1 || !strings.Contains(stderr.String(), "gateway: stop\n") {
		t.Errorf("status %d, %q", status, &stderr)
	}
}

const goodSet = `
apiVersion: chatelaine.dev/v1alpha1
kind: VirtualMCPServer
metadata: {name: demo}
spec:
  groupRef: {name: demo}
  incomingAuth: {type: anonymous}
  outgoingAuth: {source: inline}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPServerEntry
metadata: {name: status}
spec: {groupRef: {name: demo}, remoteUrl: "https://status.example/mcp", transport: streamable-http}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPGroup
metadata: {name: demo}
`

func TestServeSaysOfABadSetWhatValidateSays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "set.yaml")
	if err := os.WriteFile(path, []byte(goodSet), 0o600); err != nil {
		t.Fatal(err)
	}
	if o := run(t, "validate", "--config", path); o.status != 0 || !strings.Contains(o.stdout, "0 errors") || o.stderr != "" {
		t.Errorf("a good set: %+v", o)
	}
	if o := runLoading(serveArgs("--config", path)...); o.status != 0 || o.stderr != "" {
		t.Errorf("a good set is not served: %+v", o)
	}
	bad := strings.ReplaceAll(goodSet, "remoteUrl", "remoteURI") + "\n---\nkind: Nonsense\n"
	if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
		t.Fatal(err)
	}
	o := run(t, "validate", "--config", path)
	if o.status != 2 || strings.Count(o.stderr, "\n") != 1 || strings.Count(o.stdout, "\n") < 4 {
		t.Errorf("a bad set: %+v", o)
	}
	served := runLoading(serveArgs("--config", path, "--log-format=text")...)
	if served.status != 2 || served.stderr != o.stdout+o.stderr {
		t.Errorf("serve, status %d, prints\n%s\nvalidate prints\n%s%s", served.status, served.stderr, o.stdout, o.stderr)
	}
}

func TestALimitOfZeroIsRefusedByName(t *testing.T) {
	t.Parallel()
	if err := cli.Positive("most", 1); err != nil {
		t.Error(err)
	}
	for _, v := range []int64{0, -1} {
		if err := cli.Positive("most", v); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "--most") {
			t.Errorf("%d: %v", v, err)
		}
	}
}

// openCommand is a command of a service's own.
type openCommand struct {
	Door string `env:"-" required:"" help:"Which."`
}

func (c *openCommand) Run(_ context.Context, stdout, _ io.Writer) error {
	if c.Door == "locked" {
		return fault.New(fault.Precondition, "it is locked")
	}
	_, err := io.WriteString(stdout, c.Door+" is open\n")
	return err
}

func TestAServiceAddsCommandsOfItsOwn(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args                 []string
		status               int
		wantStdout, wantFail string
	}{
		{args: []string{"door", "open", "--door=front"}, wantStdout: "front is open\n"},
		{args: []string{"door", "open", "--door=locked"}, status: 1, wantFail: "housed: it is locked\n"},
		{args: []string{"door", "open"}, status: 2, wantFail: "--door"},
		{args: []string{"version"}, wantStdout: "housed "},
	} {
		var commands struct {
			Door struct {
				Open openCommand `cmd:""`
			} `cmd:""`
		}
		var stdout, stderr bytes.Buffer
		status := cli.Program[struct{ cli.Config }]{Name: "housed", Commands: &commands}.Run(c.args, &stdout, &stderr)
		if status != c.status || !strings.HasPrefix(stdout.String(), c.wantStdout) || !strings.Contains(stderr.String(), c.wantFail) {
			t.Errorf("%v: status %d, %q, %q", c.args, status, &stdout, &stderr)
		}
	}
}

func TestLimitsOfTheDatabaseReachThePool(t *testing.T) {
	t.Parallel()
	o := run(t, serveArgs("--database-url", "postgres://app@db/x", "--database-connect-timeout=3s", "--database-statement-timeout=4s", "--database-max-conns=5")...)
	opts, err := o.flags.Database.Options("ledgerd")
	if err != nil || opts.ConnectTimeout != 3*time.Second || opts.StatementTimeout != 4*time.Second || opts.MaxConns != 5 {
		t.Errorf("%+v, %v", opts, err)
	}
	for _, name := range []string{"database-connect-timeout", "database-statement-timeout", "database-max-conns"} {
		value := "0s"
		if name == "database-max-conns" {
			value = "0"
		}
		o := run(t, serveArgs("--database-url", "postgres://app@db/x", "--"+name+"="+value)...)
		if _, err := o.flags.Database.Options("ledgerd"); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "--"+name) {
			t.Errorf("%s of zero: %v", name, err)
		}
	}
	if o := run(t, "migrate", "--database-url", "postgres://app@127.0.0.1:1/x", "--database-connect-timeout=0s"); o.status != 2 {
		t.Errorf("migrate: status %d, %s", o.status, o.stderr)
	}
}

func TestTheDebugAddressIsClosedOrThisMachinesOwn(t *testing.T) {
	t.Parallel()
	ask := func(address string) (string, error) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var log bytes.Buffer
		tel := telemetry.Discard()
		tel.Logger = slog.New(slog.NewTextHandler(&log, nil))
		var group process.Group
		group.Add("work", func(ctx context.Context) error { <-ctx.Done(); return nil })
		if err := (&cli.AdminServer{DebugAddress: address}).AddDebug(ctx, &group, tel); err != nil {
			return "", err
		}
		_, listening, _ := strings.Cut(log.String(), "address=")
		if listening == "" {
			return "closed", nil
		}
		done := make(chan error, 1)
		go func() { done <- group.Run(ctx) }()
		resp, err := http.Get("http://" + strings.TrimSpace(listening) + "/debug/log-level")
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		cancel()
		return resp.Status, <-done
	}
	for address, want := range map[string]string{"": "closed", "127.0.0.1:0": "200 OK", "localhost:0": "200 OK"} {
		if got, err := ask(address); err != nil || got != want {
			t.Errorf("%q: %s, %v; want %s", address, got, err, want)
		}
	}
	for _, address := range []string{":0", "0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.com:0", "nonsense"} {
		if _, err := ask(address); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "debug-address") {
			t.Errorf("%q: %v, want it refused by name", address, err)
		}
	}
}
