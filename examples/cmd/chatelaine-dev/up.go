package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"chatelaine.dev/examples/browse"
	"chatelaine.dev/examples/demo"
	"chatelaine.dev/examples/people"
	"chatelaine.dev/examples/stack"
)

type upCmd struct {
	OTLPEndpoint string `name:"otlp-endpoint" placeholder:"HOST:PORT" help:"OTLP/gRPC collector for the traces of all processes."`
}

// Run starts the stack and waits for Ctrl-C.
func (c *upCmd) Run(ctx context.Context, f *flags) (err error) {
	s, err := f.start(ctx, stack.Config{OTLPEndpoint: c.OTLPEndpoint})
	if err != nil {
		return err
	}
	defer func() {
		fmt.Println("\nstopping")
		err = errors.Join(err, s.Stop())
	}()
	if err := f.welcome(os.Stdout, s); err != nil {
		return err
	}
	return s.Wait(ctx)
}

type demoCmd struct {
	Person string `default:"alice" help:"Who logs in."`
}

// Run starts the stack, walks the demo and stops the stack.
func (c *demoCmd) Run(ctx context.Context, f *flags) (err error) {
	directory, err := people.Load(f.People)
	if err != nil {
		return err
	}
	person, ok := directory.ByUsername(c.Person)
	if !ok {
		return fmt.Errorf("--person %s: nobody of that name", c.Person)
	}
	s, err := f.start(ctx, stack.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Stop()) }()
	broker, err := s.DialBroker("operator")
	if err != nil {
		return err
	}
	defer func() { _ = broker.Close() }()
	return demo.Run(ctx, demo.Config{
		Stack: s, Broker: broker, Out: os.Stdout,
		Account: browse.Account{Username: person.Username, Password: person.Password.Reveal()},
	})
}

type cleanCmd struct{}

// Run removes the folder, and Postgres' data where that lies elsewhere.
func (c *cleanCmd) Run(f *flags) error {
	removed, err := stack.Remove(f.Dir)
	for _, dir := range removed {
		fmt.Println("removed", dir)
	}
	if err == nil && len(removed) == 0 {
		fmt.Println("nothing is kept in", f.Dir)
	}
	return err
}

func (f *flags) start(ctx context.Context, cfg stack.Config) (*stack.Stack, error) {
	dir, bin, err := f.paths()
	if err != nil {
		return nil, err
	}
	cfg.Dir, cfg.BinDir, cfg.PeopleFile = dir, bin, f.People
	cfg.Ports = stack.DefaultPorts(f.PortOffset)
	cfg.Progress = func(line string) { fmt.Println("·", line) }
	return stack.Start(ctx, cfg)
}

// welcome prints what to do next.
func (f *flags) welcome(out io.Writer, s *stack.Stack) error {
	directory, err := people.Load(f.People)
	if err != nil {
		return err
	}
	url := s.MCPURL()
	fmt.Fprintf(out, "\nEverything runs. Point an MCP client at\n\n    %s\n\nand log in, at both providers, as one of\n\n", url)
	for _, p := range directory.All() {
		fmt.Fprintf(out, "    %-8s password %s\n", p.Username, p.Password.Reveal())
	}
	fmt.Fprintf(out, `
Claude Code:

    claude mcp add --transport http chatelaine %[1]s

VS Code, in .vscode/mcp.json:

    {"servers": {"chatelaine": {"type": "http", "url": "%[1]s"}}}

Cursor, in ~/.cursor/mcp.json:

    {"mcpServers": {"chatelaine": {"url": "%[1]s"}}}

Then try
  · "Which repositories do I have?"     the call carries your token of octohub
  · "What was on my payslip?"           the call carries a token that was exchanged for payroll
  · "Is everything up?"                 the call carries no credential
  · a second person in a private browser window: each sees their own data
  · %[2]s/repos, one backend alone
  · the logs in %[3]s, joined by trace_id

Ctrl-C stops all of it; the next "make up" finds its data again.
`, url, url, s.LogDir())
	return nil
}
