// Package pgcluster runs a private PostgreSQL server from the binaries that a
// machine has: for tests (package pgtest) and for the local stack.
//
// [Start] makes the data folder with initdb when it is new and reuses it when it
// is not, starts postgres with a Unix socket in a private folder and, when asked
// for, on 127.0.0.1 with a password, and waits until it answers. Postgres refuses
// to run as root, so a root process starts it as the user postgres, or nobody. On
// Linux the server gets a signal when the process that started it dies.
//
// [Cluster.Standby] starts a synchronous standby beside it, [Cluster.Promote] makes
// that a primary, and [Cluster.Crash] ends a server as a crash does, for tests of what
// outlives one.
//
// Binaries are looked for in $PGBINDIR, in PATH, and where packages of Debian, Red
// Hat and Homebrew put them.
//
// What it leaves out: upgrades of a data folder made by an older major version,
// tuning, a fail-over by itself, and anything that a production database needs.
package pgcluster
