package cli

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/outbound"
	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/internal/process"
	"chatelaine.dev/internal/rpc"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/internal/telemetry"
)

// Config is where the deployment's resources are.
type Config struct {
	Path string `name:"config" required:"" placeholder:"PATH" help:"File or folder of resources (YAML)."`
}

// Load reads the set of resources, and returns it with what was found wrong. When
// that keeps it from being used, it is told with the error, Invalid, which itself
// says no more than that there are problems.
func (f *Config) Load() (*config.Set, *config.Report, error) {
	set, report := config.Load(f.Path)
	if !report.OK() {
		return nil, nil, &invalidResources{error: errNotValid(), report: report}
	}
	return set, report, nil
}

// invalidResources is an error whose problems are told before it.
type invalidResources struct {
	error
	report *config.Report
}

// Unwrap implements the interface of package errors.
func (e *invalidResources) Unwrap() error { return e.error }

func errNotValid() error {
	return fault.New(fault.Invalid, "the resources are not valid: correct the problems above").WithReason("resources_invalid")
}

// Positive refuses the value of the flag --name when it is not greater than zero.
func Positive[T ~int | ~int32 | ~int64](name string, value T) error {
	if value > 0 {
		return nil
	}
	return fault.Newf(fault.Invalid, "--%s must be greater than zero", name)
}

// Log is how a service logs.
type Log struct {
	LogLevel  slog.Level `default:"info" help:"Least level to log: debug, info, warn, error."`
	LogFormat string     `default:"json" enum:"json,text" help:"Format of log lines: json or text."`
}

// Telemetry is Log, and where traces go.
type Telemetry struct {
	Log
	OTLPEndpoint     string  `name:"otlp-endpoint" placeholder:"HOST:PORT" help:"OTLP/gRPC collector for traces; without one no traces leave."`
	OTLPInsecure     bool    `name:"otlp-insecure" help:"Speak to the collector without TLS."`
	OTLPCA           string  `name:"otlp-ca" placeholder:"FILE" help:"Certificate authorities to trust for the collector (PEM)."`
	TraceSampleRatio float64 `default:"1" help:"Share of new traces to record, 0 to 1."`
}

// Options returns the configuration of package telemetry.
func (f *Telemetry) Options(service string) telemetry.Config {
	return telemetry.Config{
		Service: service, Version: process.Version(),
		LogFormat: f.LogFormat, LogLevel: f.LogLevel,
		OTLPEndpoint: f.OTLPEndpoint, OTLPInsecure: f.OTLPInsecure, OTLPCA: f.OTLPCA,
		SampleRatio: f.TraceSampleRatio,
	}
}

// Admin is where health and metrics are served.
type Admin struct {
	AdminAddress string `default:"${admin_address}" help:"Where to serve health and metrics (${default}); keep it private."`
}

// AdminServer is Admin, and the address of what shows the process from inside.
type AdminServer struct {
	Admin
	DebugAddress string `placeholder:"HOST:PORT" help:"Serve /debug/pprof/* and /debug/log-level here; without it nobody does. Nobody is asked who they are and profiles can hold secrets: a loopback address, for as long as you need it."`
}

// Server returns the server of the admin address.
func (f *AdminServer) Server(tel *telemetry.Telemetry, health *telemetry.Health) process.HTTPServer {
	return process.HTTPServer{
		Address: f.AdminAddress, Flag: "admin-address", Handler: tel.AdminHandler(health), Logger: tel.Logger, WriteTimeout: time.Minute,
	}
}

// AddDebug opens the debug address, if one is asked for, and adds its server to
// the group. Errors are Invalid for an address that others than this machine reach.
func (f *AdminServer) AddDebug(ctx context.Context, group *process.Group, tel *telemetry.Telemetry) error {
	if f.DebugAddress == "" {
		return nil
	}
	if !outbound.Loopback("http://" + f.DebugAddress) {
		return fault.New(fault.Invalid, "--debug-address must be a loopback address, such as 127.0.0.1:6060; ssh -L and kubectl port-forward lead there")
	}
	server := process.HTTPServer{
		Address: f.DebugAddress, Flag: "debug-address", Handler: tel.DebugHandler(), Logger: tel.Logger,
		WriteTimeout: 2 * time.Minute, // the longest answer is a CPU profile
	}
	ln, err := server.Listen(ctx)
	if err != nil {
		return err
	}
	tel.Logger.WarnContext(ctx, "profiles and the log level are open", slog.String("address", ln.Addr().String()))
	group.AddLast("debug", server.Run)
	return nil
}

// Drain is how a service stops.
type Drain struct {
	DrainDelay   time.Duration `default:"0s" help:"How long requests are still taken after a stop was asked for, while /readyz says draining: for load balancers to notice."`
	DrainTimeout time.Duration `default:"15s" help:"How long running requests may take to finish after that (${default})."`
}

// Check looks at what kong cannot. Errors are Invalid.
func (f *Drain) Check() error {
	if f.DrainDelay < 0 {
		return fault.New(fault.Invalid, "--drain-delay must not be negative")
	}
	return Positive("drain-timeout", f.DrainTimeout)
}

// StopTimeout is how long the whole stop may take: the drain, then what is left
// to be written and flushed.
func (f *Drain) StopTimeout() time.Duration { return f.DrainDelay + f.DrainTimeout + 10*time.Second }

// TLS is this service's identity towards the others.
type TLS struct {
	TLSCert string `name:"tls-cert" required:"" placeholder:"FILE" help:"This service's certificate (PEM)."`
	TLSKey  string `name:"tls-key" required:"" placeholder:"FILE" help:"The certificate's key (PEM)."`
	TLSCA   string `name:"tls-ca" required:"" placeholder:"FILE" help:"The authority of all services' certificates (PEM)."`
}

// Files returns the paths for rpc.LoadTLS.
func (f *TLS) Files() rpc.TLSFiles {
	return rpc.TLSFiles{Cert: f.TLSCert, Key: f.TLSKey, CA: f.TLSCA}
}

// DatabaseServer is where the service's database is.
type DatabaseServer struct {
	DatabaseURL            secret.String `name:"database-url" placeholder:"URL" help:"PostgreSQL URL, without a password here; from the environment it may have one."`
	DatabaseURLFile        string        `name:"database-url-file" placeholder:"FILE" help:"File with the PostgreSQL URL, in place of --database-url."`
	DatabaseConnectTimeout time.Duration `default:"5s" help:"How long making a connection to the database may take (${default}); connect_timeout in the URL wins."`
}

// URL returns the URL from the flag, the environment or the file.
func (f *DatabaseServer) URL() (secret.String, error) {
	url, err := URLFrom("database-url", f.DatabaseURL, f.DatabaseURLFile)
	if err == nil && url.IsZero() {
		return url, fault.Newf(fault.Invalid, "the database is not named: set $%s_DATABASE_URL, or give --database-url (without a password) or --database-url-file", EnvPrefix).
			WithReason("database_url")
	}
	return url, err
}

// Options returns the configuration of package postgres. Errors are Invalid.
func (f *DatabaseServer) Options(application string) (postgres.Config, error) {
	if err := Positive("database-connect-timeout", f.DatabaseConnectTimeout); err != nil {
		return postgres.Config{}, err
	}
	url, err := f.URL()
	if err != nil {
		return postgres.Config{}, err
	}
	return postgres.Config{URL: url, Application: application, ConnectTimeout: f.DatabaseConnectTimeout}, nil
}

// Database is that, and how the service uses it.
type Database struct {
	DatabaseServer
	DatabaseMaxConns         int32         `default:"16" help:"Most connections to hold (${default})."`
	DatabaseStatementTimeout time.Duration `default:"10s" help:"How long a statement may take, at most half of it waiting for a lock (${default}); statement_timeout and lock_timeout in the URL win."`
}

// Options returns the configuration of package postgres. Errors are Invalid.
func (f *Database) Options(application string) (postgres.Config, error) {
	if err := cmp.Or(
		Positive("database-max-conns", f.DatabaseMaxConns),
		Positive("database-statement-timeout", f.DatabaseStatementTimeout),
	); err != nil {
		return postgres.Config{}, err
	}
	cfg, err := f.DatabaseServer.Options(application)
	cfg.MaxConns, cfg.StatementTimeout = f.DatabaseMaxConns, f.DatabaseStatementTimeout
	return cfg, err
}

// URLFrom reads the value of a pair of flags --NAME and --NAME-file, of which one
// at most may be given; without either it is empty. Errors are Invalid.
func URLFrom(name string, url secret.String, file string) (secret.String, error) {
	switch {
	case file != "" && !url.IsZero():
		return secret.String{}, fault.Newf(fault.Invalid, "--%s and --%[1]s-file exclude each other", name)
	case file != "":
		return postgres.ReadURLFile(file)
	}
	return url, nil
}

// Dial lets a service reach public names by inside addresses.
type Dial struct {
	Dial []string `placeholder:"HOST:PORT=HOST:PORT" help:"Reach the first address at the second (repeatable)."`
}

// Dials returns the map for package outbound.
func (f *Dial) Dials() (outbound.Dials, error) {
	dials := make(outbound.Dials, len(f.Dial))
	for _, s := range f.Dial {
		from, to, err := outbound.ParseDial(s)
		if err != nil {
			return nil, fault.Newf(fault.Invalid, "--dial: %s", err)
		}
		if _, dup := dials[from]; dup {
			return nil, fault.Newf(fault.Invalid, "--dial: %s is given twice", from)
		}
		dials[from] = to
	}
	return dials, nil
}
