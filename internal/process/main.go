package process

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"chatelaine.dev/internal/fault"
)

// Exit statuses of Main. The command line's own is that of sysexits' EX_USAGE.
const (
	ExitOK      = 0
	ExitFailure = 1
	ExitUsage   = 2
)

// Main runs run with a context that ends on SIGINT or SIGTERM, prints its error
// to standard error (see Report), and exits. A second signal kills at once.
func Main(name string, run func(ctx context.Context) error) {
	os.Exit(Run(name, os.Stderr, run))
}

// Run is Main without the exit: it returns the exit status.
func Run(name string, stderr io.Writer, run func(ctx context.Context) error) int {
	return Report(name, stderr, UntilSignal(run))
}

// UntilSignal runs run with a context that ends on SIGINT or SIGTERM. A second
// signal kills at once.
func UntilSignal(run func(ctx context.Context) error) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // back to the default: the next signal ends the process
	return run(ctx)
}

// Report prints err, with its causes, to the terminal (one line, unless its
// message is a list of several) and returns the exit status.
func Report(name string, stderr io.Writer, err error) int {
	if err != nil {
		fmt.Fprintf(stderr, "%s: %s\n", name, fault.Terminal(err))
	}
	return Status(err)
}

// Status is the exit status of a program that ends with err: ExitUsage for kind
// Invalid (wrong flags or configuration), ExitFailure for the rest, ExitOK for nil.
func Status(err error) int {
	switch {
	case err == nil:
		return ExitOK
	case fault.KindOf(err) == fault.Invalid:
		return ExitUsage
	}
	return ExitFailure
}

// version is set by the linker: -ldflags "-X chatelaine.dev/internal/process.version=v1.2.3".
var version string

// Version returns the program's version: the linker's, else that of the main
// module, else the revision of the source, else "devel".
func Version() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	revision, dirty := "", ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "+dirty"
			}
		}
	}
	if revision == "" {
		return "devel"
	}
	return revision[:min(12, len(revision))] + dirty
}
