// Package pgtest gives each test a fresh database on a real PostgreSQL.
//
// A test package calls [Main] from TestMain; it starts one private server for the
// test binary (package pgcluster), or uses the server that
// CHATELAINE_TEST_DATABASE_URL names, and removes all that it made. [New] and
// [URL] return a database of the test's own, with the given migrations applied,
// that is dropped when the test ends.
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
//
//	func TestStore(t *testing.T) {
//		t.Parallel()
//		pool := pgtest.New(t, schema.Migrations())
//
// [HoldMigrations] holds a service's migrations to what a replica of the version
// before survives.
//
// Tests are never skipped: without Postgres the binary fails and says what to
// install. A test binary that is killed takes its server with it; the folder that
// is left over is removed by the next run.
package pgtest
