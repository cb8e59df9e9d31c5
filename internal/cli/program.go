package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"runtime"

	"github.com/alecthomas/kong"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/internal/process"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/internal/telemetry"
)

// EnvPrefix begins the names of all environment twins.
const EnvPrefix = "CHATELAINE"

// Program is a service's command line; F is the struct of serve's flags.
type Program[F any] struct {
	// Name is the program's, Summary one line for --help.
	Name    string
	Summary string
	// AdminAddress is the default of --admin-address, when F embeds Admin.
	AdminAddress string
	// Vars are further variables (${name}) of flag tags.
	Vars kong.Vars

	// Serve runs until ctx ends.
	Serve func(ctx context.Context, flags *F) error
	// Migrations are what the command migrate applies; without them it says that
	// there is nothing to do, so that all services are deployed the same way.
	Migrations func() (postgres.Migrations, error)
	// Commands are the service's own: nil, or a pointer to a struct in kong's
	// notation whose commands are each a Command.
	Commands any
}

// Command is a command that a service adds to its Program: a pointer to a struct
// of flags.
type Command interface {
	// Run works until it is done or ctx ends (SIGINT, SIGTERM). What was asked for
	// goes to stdout, the log to stderr.
	Run(ctx context.Context, stdout, stderr io.Writer) error
}

// environment ends the text of --help: what no flag says.
const environment = "Each flag can be given in the environment, under the name in brackets. Secrets that resources and flags name as NAME/KEY are read from the file $" +
	secret.DirEnv + "/NAME/KEY, or from the environment variable NAME_KEY in upper case."

type grammar[F any] struct {
	Serve    F              `cmd:"" help:"Run the service."`
	Validate validateCmd    `cmd:"" help:"Check a set of resources without starting anything."`
	Health   healthcheckCmd `cmd:"" name:"healthcheck" help:"Ask the service that runs on this host whether it is ready; status 0 says yes, 1 no."`
	Version  struct{}       `cmd:"" help:"Print the version."`
	kong.Plugins
}

type validateCmd struct{ Config }

type migrateGrammar struct {
	Migrate migrateCmd `cmd:"" help:"Bring the database schema up to date."`
}

// statelessGrammar is for a service that has no database.
type statelessGrammar struct {
	Migrate struct{} `cmd:"" help:"Do nothing: this service keeps nothing in a database."`
}

type migrateCmd struct {
	DatabaseServer
	Log
}

// Main runs the program with this process's arguments and exits.
func Main[F any](p Program[F]) {
	os.Exit(p.Run(os.Args[1:], os.Stdout, os.Stderr))
}

// Run runs the program and returns its exit status: 0, 1 for a failure, 2 for
// wrong flags or invalid resources.
func (p Program[F]) Run(args []string, stdout, stderr io.Writer) int {
	var g grammar[F]
	var migrate migrateGrammar
	g.Plugins = kong.Plugins{&statelessGrammar{}}
	if p.Migrations != nil {
		g.Plugins = kong.Plugins{&migrate}
	}
	if p.Commands != nil {
		g.Plugins = append(g.Plugins, p.Commands)
	}
	helped := false
	parser, err := kong.New(&g,
		kong.Name(p.Name), kong.Description(p.Summary),
		kong.DefaultEnvars(EnvPrefix),
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { helped = true }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Vars{"admin_address": p.AdminAddress}.CloneWith(p.Vars),
	)
	if err != nil {
		return process.Report(p.Name, stderr, fault.Wrap(fault.Internal, err, "the flags are misdefined"))
	}
	parser.Model.Detail = environment
	for _, command := range parser.Model.Children {
		command.Detail = environment
	}
	kctx, err := parser.Parse(args)
	if helped { // --help printed; that parsing went on does not matter
		return process.ExitOK
	}
	tell := reporter{name: p.Name, stderr: stderr}
	if err != nil {
		if wrong, ok := errors.AsType[*kong.ParseError](err); ok {
			tell.json = logsJSON(wrong.Context, args, false)
		}
		return tell.report(fault.New(fault.Invalid, err.Error()+" (see --help)"))
	}
	tell.json = logsJSON(kctx, args, true)
	if err := refusePasswords(kctx); err != nil {
		return tell.report(err)
	}
	return tell.report(process.UntilSignal(func(ctx context.Context) error {
		if command, ok := kctx.Selected().Target.Addr().Interface().(Command); ok {
			return command.Run(ctx, stdout, stderr)
		}
		switch kctx.Command() {
		case "validate":
			return validate(g.Validate.Config.Path, stdout)
		case "healthcheck":
			return g.Health.run(ctx, stdout)
		case "version":
			fmt.Fprintln(stdout, p.Name, process.Version(), runtime.Version())
			return nil
		case "migrate":
			return p.migrate(ctx, &migrate.Migrate, stdout, stderr)
		default:
			return p.Serve(ctx, &g.Serve)
		}
	}))
}

// validate writes all problems, warnings too, and the totals.
func validate(path string, out io.Writer) error {
	ok, err := config.CheckPath(path, out)
	switch {
	case err != nil:
		return fault.Wrap(fault.Internal, err, "the report cannot be written")
	case !ok:
		return errNotValid()
	}
	return nil
}

func (p Program[F]) migrate(ctx context.Context, cmd *migrateCmd, stdout, stderr io.Writer) error {
	if p.Migrations == nil {
		fmt.Fprintln(stdout, p.Name, "keeps nothing in a database: nothing to migrate")
		return nil
	}
	database, err := cmd.Options("") // the migrations have their own name
	if err != nil {
		return err
	}
	m, err := p.Migrations()
	if err != nil {
		return err
	}
	m.ConnectTimeout = database.ConnectTimeout
	logger, err := telemetry.NewLogger(stderr, cmd.LogFormat, cmd.LogLevel)
	if err != nil {
		return err
	}
	n, err := m.Up(ctx, database.URL, logger)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "schema %s is up to date, %d migrations applied\n", m.Schema, n)
	return nil
}

// refusePasswords looks at what was written on the command line, not at what
// came from the environment.
func refusePasswords(kctx *kong.Context) error {
	for _, element := range kctx.Path {
		flag := element.Flag
		if flag == nil || element.Resolved || flag.Target.Type() != reflect.TypeFor[secret.String]() {
			continue
		}
		value, ok := kctx.FlagValue(flag).(secret.String)
		if ok && postgres.HasPassword(value.Reveal()) {
			return fault.Newf(fault.Invalid, "--%s has a password, which every user of this machine can see: set %s in the environment, or use --%[1]s-file",
				flag.Name, flag.Envs[0]).WithReason("password_in_flag")
		}
	}
	return nil
}
