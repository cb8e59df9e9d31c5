// Command chatelaine-dev runs the whole house on one machine, for people who try
// it or work on it. `make up`, `make demo` and `make bench` call it.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/alecthomas/kong"

	"chatelaine.dev/internal/process"
)

type flags struct {
	Dir        string `default:".run" help:"Folder of data, keys and logs."`
	BinDir     string `name:"bin" default:"bin" help:"Folder of the built programs."`
	PortOffset int    `help:"Move all ports by this number."`
	People     string `placeholder:"FILE" help:"People to use in place of alice and bob (YAML)."`

	Up    upCmd    `cmd:"" help:"Start everything and keep it running."`
	Demo  demoCmd  `cmd:"" help:"Start everything, walk one login and three tool calls, stop."`
	Bench benchCmd `cmd:"" help:"Compare the gateway with a plain reverse proxy, and measure GetCredential."`
	Clean cleanCmd `cmd:"" help:"Forget everything that was kept between runs."`
	Init  initCmd  `cmd:"" help:"Make the keys, certificates and secrets that containers find in their volumes."`

	// What bench starts as processes of their own.
	BenchBackend benchBackendCmd `cmd:"" hidden:""`
	BenchProxy   benchProxyCmd   `cmd:"" hidden:""`
}

func main() {
	var f flags
	k := kong.Parse(&f, kong.Name("chatelaine-dev"), kong.Description("Run Chatelaine's demo on this machine."))
	process.Main("chatelaine-dev", func(ctx context.Context) error {
		k.BindTo(ctx, (*context.Context)(nil))
		return k.Run(&f)
	})
}

// paths makes folders absolute, because processes and Postgres need that.
func (f *flags) paths() (dir, bin string, err error) {
	if dir, err = filepath.Abs(f.Dir); err != nil {
		return "", "", err
	}
	if bin, err = filepath.Abs(f.BinDir); err != nil {
		return "", "", err
	}
	if _, err := os.Stat(filepath.Join(bin, "gateway")); err != nil {
		return "", "", fmt.Errorf("the programs are not built: %w (make build builds them)", err)
	}
	return dir, bin, nil
}
