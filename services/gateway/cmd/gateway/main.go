// Command gateway is the MCP gateway: it checks who calls, picks the backend,
// and sends each request on with the credential that the person is entitled to.
package main

import (
	"chatelaine.dev/internal/cli"
	"chatelaine.dev/services/gateway/internal/app"
)

func main() { cli.Main(app.Program()) }
