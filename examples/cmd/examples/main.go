// Command examples runs one of the servers of Chatelaine's demo: the identity
// provider corp, the code host octohub, or one of the MCP servers repos, payroll
// and status. See examples --help.
package main

import (
	"os"

	"chatelaine.dev/examples/internal/app"
)

func main() { os.Exit(app.Run(os.Args[1:], os.Stdout, os.Stderr)) }
