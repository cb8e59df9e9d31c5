// Command k8s-load is the client and the person of the Kubernetes tests: `walk`
// makes one login and three tool calls, `run` does not stop until it is told to.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/alecthomas/kong"

	"chatelaine.dev/deploy/internal/load"
	"chatelaine.dev/examples/browse"
	"chatelaine.dev/internal/process"
)

type flags struct {
	MCPURL     string            `name:"mcp-url" default:"http://localhost:8000/mcp" help:"Where the MCP client goes (${default})."`
	Dial       map[string]string `mapsep:"," placeholder:"HOST:PORT=HOST:PORT" help:"Reach the first address at the second."`
	Username   string            `default:"alice" help:"Who logs in (${default})."`
	Password   string            `default:"alice-password" hidden:""`
	Callers    int               `default:"4" help:"Clients that call tools at once (${default})."`
	People     int               `default:"2" help:"People who log in at once (${default})."`
	CallPause  time.Duration     `default:"50ms" help:"Pause after each call (${default})."`
	LoginPause time.Duration     `default:"1s" help:"Pause after each login (${default})."`

	Walk struct{} `cmd:"" help:"One login and three tool calls, each step printed."`
	Run  struct{} `cmd:"" help:"Work until SIGTERM, print what happened each second."`
}

func main() {
	var f flags
	k := kong.Parse(&f, kong.Name("k8s-load"), kong.Description("A client and a person that do not rest."))
	process.Main("k8s-load", func(ctx context.Context) error {
		cfg := load.Config{
			MCPURL: f.MCPURL, Dials: f.Dial, Account: browse.Account{Username: f.Username, Password: f.Password},
			Callers: f.Callers, People: f.People, CallPause: f.CallPause, LoginPause: f.LoginPause, Out: os.Stdout,
		}
		if k.Command() == "walk" {
			return load.Walk(ctx, cfg)
		}
		stats, err := load.Run(ctx, cfg)
		if bad := stats.Failed + stats.Unavailable; err == nil && bad > 0 {
			err = errors.New(fmt.Sprint(bad, " failures; the last: ", stats.Last))
		}
		return err
	})
}
