package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"chatelaine.dev/examples/bench"
	"chatelaine.dev/examples/browse"
	"chatelaine.dev/examples/people"
	"chatelaine.dev/examples/stack"
	"chatelaine.dev/internal/fault"
)

type benchCmd struct {
	Connections int           `default:"16" help:"Connections, each with one call under way (${default})."`
	Rounds      int           `default:"5" help:"Rounds; each measures all targets, one after the other (${default})."`
	Duration    time.Duration `default:"2s" help:"How long one target is measured in one round (${default})."`
	WarmUp      time.Duration `default:"1s" help:"How long each target is called before the first round (${default})."`
	TextBytes   int           `default:"256" help:"Length of the text that is echoed, in bytes (${default})."`
	MCPVersion  string        `name:"mcp-version" default:"2026-07-28" enum:"2026-07-28,2025-11-25" help:"MCP version: 2026-07-28, stateless, or 2025-11-25, with sessions (${default})."`
	PlainJSON   bool          `name:"plain-json" help:"Let the backend answer plain JSON, not an event stream."`
	Source      string        `default:"." placeholder:"DIR" help:"Root of the source tree, where the broker's own benchmark is (${default}); empty leaves it out."`
	JSON        string        `name:"json" type:"path" placeholder:"FILE" help:"Write all that was measured to this file."`
}

// Run measures, prints the table and removes what the run kept.
func (c *benchCmd) Run(ctx context.Context, f *flags) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	_, bin, err := f.paths()
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	directory, err := people.Load("")
	if err != nil {
		return err
	}
	person := directory.All()[0]
	dir, err := os.MkdirTemp("", "chatelaine-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, forget(dir, err == nil)) }()
	settings := bench.Settings{
		Connections: c.Connections, Rounds: c.Rounds, Duration: c.Duration, WarmUp: c.WarmUp,
		TextBytes: c.TextBytes, Version: c.MCPVersion, PlainJSON: c.PlainJSON,
	}
	fmt.Println("· this takes about", settings.Estimate(), "once everything is compiled")
	report, err := bench.Run(ctx, bench.Config{
		BinDir: bin, Dir: dir, Helper: []string{self}, Source: c.Source, Settings: settings,
		Account:  browse.Account{Username: person.Username, Password: person.Password.Reveal()},
		Progress: func(line string) { fmt.Println("·", line) },
	})
	if err != nil {
		return fmt.Errorf("%w\nthe logs are kept in %s", err, dir)
	}
	if c.JSON != "" {
		if err := writeJSON(c.JSON, report); err != nil {
			return err
		}
	}
	_, err = report.WriteTo(os.Stdout)
	return err
}

func (c *benchCmd) check() error {
	for name, bad := range map[string]bool{
		"connections must be 1 to 1000": c.Connections < 1 || c.Connections > 1000,
		"rounds must be 1 to 100":       c.Rounds < 1 || c.Rounds > 100,
		"duration must be 100ms to 5m":  c.Duration < 100*time.Millisecond || c.Duration > 5*time.Minute,
		"warm-up must be 100ms to 5m":   c.WarmUp < 100*time.Millisecond || c.WarmUp > 5*time.Minute,
		"text-bytes must be 0 to 65536": c.TextBytes < 0 || c.TextBytes > 65536,
	} {
		if bad {
			return fault.New(fault.Invalid, "--"+name)
		}
	}
	return nil
}

// forget removes the run's data, and its folder unless the logs are wanted.
func forget(dir string, all bool) error {
	data, err := stack.PostgresDir(filepath.Join(dir, "stack"))
	if err != nil {
		return err
	}
	err = os.RemoveAll(data)
	if all {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	return err
}

func writeJSON(path string, report *bench.Report) error {
	text, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644) //nolint:gosec // figures, no secrets
}

type benchBackendCmd struct {
	PlainJSON bool `name:"plain-json"`
}

// Run serves the MCP server that is called through everything.
func (c *benchBackendCmd) Run(ctx context.Context) error {
	return bench.Serve(ctx, bench.Backend(c.PlainJSON), os.Stdout)
}

type benchProxyCmd struct {
	Target      *url.URL `required:""`
	Connections int      `required:""`
}

// Run serves the reverse proxy that the gateway is compared with.
func (c *benchProxyCmd) Run(ctx context.Context) error {
	return bench.Serve(ctx, bench.Proxy(c.Target, c.Connections), os.Stdout)
}
