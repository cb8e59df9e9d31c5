// Command authserver is Chatelaine's authorization server.
package main

import (
	"chatelaine.dev/internal/cli"
	"chatelaine.dev/services/authserver/internal/app"
)

func main() { cli.Main(app.Program()) }
