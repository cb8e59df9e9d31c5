package app

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/alecthomas/kong"

	"chatelaine.dev/examples/internal/faults"
	"chatelaine.dev/examples/internal/rules"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/outbound"
	"chatelaine.dev/internal/process"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/internal/telemetry"
)

// envPrefix begins the name of each flag's twin in the environment.
const envPrefix = "CHATELAINE"

// drainTimeout bounds the wait for running requests; open streams are then cut.
const drainTimeout = 3 * time.Second

type grammar struct {
	Corp    corpCmd    `cmd:"" help:"The identity provider (OpenID, token exchange)."`
	Octohub octohubCmd `cmd:"" help:"The code host (OAuth 2.0 in the manner of GitHub)."`
	Repos   reposCmd   `cmd:"" help:"The MCP server that calls octohub with the caller's token."`
	Payroll payrollCmd `cmd:"" help:"The MCP server that verifies corp's tokens."`
	Status  statusCmd  `cmd:"" help:"The public MCP server that refuses credentials."`
	Front   frontCmd   `cmd:"" help:"A load balancer: an HTTP proxy that sends each request to the next replica."`

	Healthcheck healthcheckCmd `cmd:"" help:"Ask a server whether it is up; the exit status says it."`
	Version     versionCmd     `cmd:"" help:"Print the version."`
}

// command is one of the servers.
type command interface {
	settings() *common
	// build puts the server together: its public handler and its switches.
	build(env) (public, admin http.Handler, err error)
}

// env is what the parts of a server use.
type env struct {
	tel    *telemetry.Telemetry
	client *http.Client
}

// common are the flags of every server.
type common struct {
	FaultsAddr       string     `placeholder:"HOST:PORT" help:"Loopback address of the fault switches; without one there are none."`
	OTLPEndpoint     string     `name:"otlp-endpoint" placeholder:"HOST:PORT" help:"OTLP/gRPC collector for traces; without one no traces leave."`
	OTLPInsecure     bool       `name:"otlp-insecure" help:"Speak to the collector without TLS."`
	TraceSampleRatio float64    `default:"1" help:"Share of new traces to record, 0 to 1."`
	LogLevel         slog.Level `default:"info" help:"Least level to log: debug, info, warn, error."`
	LogFormat        string     `default:"json" enum:"json,text" help:"Format of log lines: json or text."`
}

func (c *common) settings() *common { return c }

// withPeople are the flags of servers that know the people.
type withPeople struct {
	People string `type:"existingfile" placeholder:"FILE" help:"The people (YAML or JSON); without it alice and bob."`
}

// withState are the flags of the providers.
type withState struct {
	Rules        string        `type:"existingfile" placeholder:"FILE" help:"The clients and what they may have (YAML); without it those of the demo."`
	RedirectURIs []string      `name:"redirect-uri" placeholder:"URL" help:"Redirect URIs of the client chatelaine, instead of those of the rules."`
	SecretsDir   string        `type:"existingdir" placeholder:"DIR" help:"Folder with the clients' secrets, as DIR/NAME/KEY; else they come from the environment, as NAME_KEY."`
	StateDir     string        `placeholder:"DIR" help:"Folder that keeps keys and tokens over a restart; without one they are in memory only."`
	RefreshGrace time.Duration `default:"0" help:"How long a used refresh token still works."`
}

// complete gives the clients what a rules file does not have.
func (f *withState) complete(clients []*rules.Registration) error {
	if len(f.RedirectURIs) > 0 {
		if err := rules.SetRedirectURIs(clients, loginClient, f.RedirectURIs); err != nil {
			return err
		}
	}
	return rules.ResolveSecrets(&secret.Resolver{Dir: f.SecretsDir, LookupEnv: os.LookupEnv}, clients)
}

func (f *withState) stateFile(name string) string {
	if f.StateDir == "" {
		return ""
	}
	return filepath.Join(f.StateDir, name+".json")
}

type versionCmd struct{}

// Run runs the command line and returns the exit status.
func Run(args []string, stdout, stderr io.Writer) int {
	const name = "examples"
	var g grammar
	helped := false
	parser, err := kong.New(&g,
		kong.Name(name), kong.Description("The servers that Chatelaine's demo runs against."),
		kong.DefaultEnvars(envPrefix), kong.Writers(stdout, stderr),
		kong.Exit(func(int) { helped = true }), kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
	if err != nil {
		return process.Report(name, stderr, fault.Wrap(fault.Internal, err, "the flags are misdefined"))
	}
	kctx, err := parser.Parse(args)
	switch {
	case helped: // --help printed; that parsing went on does not matter
		return process.ExitOK
	case err != nil:
		return process.Report(name, stderr, fault.New(fault.Invalid, err.Error()+" (see --help)"))
	}
	servers := map[string]struct {
		addr    string
		command command
	}{
		"corp":    {g.Corp.Addr, &g.Corp},
		"octohub": {g.Octohub.Addr, &g.Octohub},
		"repos":   {g.Repos.Addr, &g.Repos},
		"payroll": {g.Payroll.Addr, &g.Payroll},
		"status":  {g.Status.Addr, &g.Status},
		"front":   {g.Front.Addr, &g.Front},
	}
	server, ok := servers[kctx.Command()]
	switch {
	case ok:
	case kctx.Command() == "version":
		fmt.Fprintln(stdout, name, process.Version())
		return process.ExitOK
	default: // healthcheck <url>
		return process.Run(name+" healthcheck", stderr, g.Healthcheck.run)
	}
	return process.Run(name+" "+kctx.Command(), stderr, func(ctx context.Context) error {
		return serve(ctx, kctx.Command(), server.addr, server.command, stderr)
	})
}

// serve runs one server until ctx ends.
func serve(ctx context.Context, name, addr string, cmd command, logTo io.Writer) (err error) {
	flags := cmd.settings()
	if flags.FaultsAddr != "" {
		if err := faults.CheckAddr(flags.FaultsAddr); err != nil {
			return fault.New(fault.Invalid, "--faults-addr: "+err.Error())
		}
	}
	tel, err := telemetry.Start(ctx, telemetry.Config{
		Service: name, Version: process.Version(), LogOutput: logTo, LogFormat: flags.LogFormat, LogLevel: flags.LogLevel,
		OTLPEndpoint: flags.OTLPEndpoint, OTLPInsecure: flags.OTLPInsecure, SampleRatio: flags.TraceSampleRatio,
	})
	if err != nil {
		return err
	}
	slog.SetDefault(tel.Logger) // the OpenID library logs there
	public, admin, err := cmd.build(env{tel: tel, client: outbound.New(outbound.Config{
		Policy: outbound.Trusted(), Tracer: tel.Tracer, Propagator: tel.Propagator, // the operator named every URL
	})})
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "cannot start "+name)
	}
	group := process.Group{Logger: tel.Logger}
	group.AddLast("telemetry", tel.Task)
	listen := func(server, addr string, h http.Handler) error {
		s := process.HTTPServer{Address: addr, Handler: h, DrainTimeout: drainTimeout, Logger: tel.Logger}
		ln, err := s.Listen(ctx)
		if err != nil {
			return err
		}
		tel.Logger.InfoContext(ctx, "listening", "server", server, "address", ln.Addr().String())
		group.Add(server, s.Run)
		return nil
	}
	if err := listen(name, addr, tel.Middleware(telemetry.HTTPConfig{Server: name, AccessLevel: slog.LevelDebug})(public)); err != nil {
		return err
	}
	if flags.FaultsAddr != "" {
		if err := listen("faults", flags.FaultsAddr, admin); err != nil {
			return err
		}
	}
	return group.Run(ctx)
}
