package cli

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/alecthomas/kong"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/process"
	"chatelaine.dev/internal/telemetry"
)

// reporter tells the error that ends the program, in the format of its log:
// whatever collects the log then reads why a service did not start.
type reporter struct {
	name   string
	stderr io.Writer
	json   bool
}

// report tells err and returns the exit status.
func (r reporter) report(err error) int {
	if r.json && err != nil {
		logger, lerr := telemetry.NewLogger(r.stderr, "json", slog.LevelInfo) // whatever the level: it is the last word
		if lerr == nil {
			logProblems(logger.With(slog.String("service", r.name)), err)
			return process.Status(err)
		}
	}
	if invalid, ok := errors.AsType[*invalidResources](err); ok {
		_, _ = invalid.report.WriteTo(r.stderr) // the error below says it too
	}
	return process.Report(r.name, r.stderr, err)
}

// logProblems writes a line for each thing that is wrong.
func logProblems(logger *slog.Logger, err error) {
	if invalid, ok := errors.AsType[*invalidResources](err); ok {
		invalid.report.Log(logger)
	}
	for _, problem := range fault.Parts(err) {
		logger.Error("ended with an error", fault.Attr(problem))
	}
}

// logsJSON tells whether the command that was given, or meant, logs in JSON. A
// command without a log prints text.
func logsJSON(kctx *kong.Context, args []string, parsed bool) bool {
	for _, flag := range kctx.Flags() {
		if flag.Name != "log-format" {
			continue
		}
		if parsed {
			return kctx.FlagValue(flag) == "json"
		}
		return written(flag, args) == "json"
	}
	return false
}

// written looks for the value of a flag on a command line that could not be
// parsed, where it may stand behind the mistake, and in the environment.
func written(flag *kong.Flag, args []string) string {
	value := flag.Default
	for _, name := range flag.Envs {
		if v, ok := os.LookupEnv(name); ok {
			value = v
		}
	}
	for i, arg := range args {
		if v, ok := strings.CutPrefix(arg, "--"+flag.Name+"="); ok {
			value = v
		} else if arg == "--"+flag.Name && i+1 < len(args) {
			value = args[i+1]
		}
	}
	return value
}
