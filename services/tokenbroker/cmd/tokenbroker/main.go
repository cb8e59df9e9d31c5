// Command tokenbroker is the back channel: it makes every request to an upstream's
// token, userinfo, revocation and exchange endpoints, and keeps users, connections
// and sealed tokens. See its --help, and package app for how it is put together.
package main

import (
	"chatelaine.dev/internal/cli"
	"chatelaine.dev/services/tokenbroker/internal/app"
)

func main() { cli.Main(app.Program()) }
