// Package cli is the command line that our services share.
//
// A [Program] has the commands serve, validate, migrate (which has nothing to do in
// a service without a database), healthcheck and version, and those that the service
// adds, each a [Command]. Flags of serve are a struct of the service's own that embeds the
// groups of this package ([Config], [Log], [Telemetry], [AdminServer], [Drain], [TLS],
// [Database], [Dial]) next to its own fields, in kong's notation:
//
//	type flags struct {
//		cli.Config
//		cli.Database
//		PublicAddress string `help:"Where to serve." default:":8080"`
//	}
//
//	func main() {
//		cli.Main(cli.Program[flags]{Name: "authserver", Serve: serve, Migrations: store.Migrations})
//	}
//
// Every flag has a twin in the environment: --database-url is
// CHATELAINE_DATABASE_URL. A flag that holds a secret (its type is
// secret.String) may not have a password as its value, since everybody on the
// machine can read it; the environment or a file may.
//
// What it leaves out: configuration of the deployment (package config), which is
// in files, not flags.
package cli
