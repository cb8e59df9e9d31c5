// Package postgres opens, migrates and talks about a service's database.
//
// [Open] returns a pgx pool with bounds and timeouts; it does not wait for the
// server. [Migrations] applies a service's embedded, numbered SQL files into the
// schema that the service owns, under an advisory lock, and [Migrations.Check]
// is the readiness check that says which command to run when the schema is
// behind. [InTx] runs a function in a transaction. [Fault] is where driver errors
// end: a store turns each into the one error type before it returns.
//
// Spans carry the SQL text, never its arguments. A URL is a secret.
//
// What it leaves out: query builders, object mapping, and down migrations: a
// schema is changed so that the previous version of the service still runs.
package postgres
