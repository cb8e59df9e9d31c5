package postgres_test

import (
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/pgtest"
	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/internal/secret"
)

func file(sql string) *fstest.MapFile {
	return &fstest.MapFile{Data: []byte("-- +goose Up\n" + sql + "\n")}
}

const (
	sqlOne = `CREATE TABLE ledger.entries (id bigint PRIMARY KEY, note text NOT NULL);`
	sqlTwo = `ALTER TABLE ledger.entries ADD COLUMN amount bigint NOT NULL DEFAULT 0;`
)

func version1() postgres.Migrations {
	return postgres.Migrations{FS: fstest.MapFS{"0001_entries.sql": file(sqlOne)}, Schema: "ledger", Command: "ledgerd migrate"}
}

func version2() postgres.Migrations {
	m := version1()
	m.FS = fstest.MapFS{"0001_entries.sql": file(sqlOne), "0002_amount.sql": file(sqlTwo)}
	return m
}

func up(t *testing.T, m postgres.Migrations, url secret.String, want int) {
	t.Helper()
	if n, err := m.Up(t.Context(), url, nil); err != nil || n != want {
		t.Fatalf("Up applied %d, want %d: %s", n, want, fault.Detail(err))
	}
}

func TestAServiceIsReadyOnlyWhenItsSchemaIs(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()

	err = version2().Check(pool)(t.Context())
	if fault.ReasonOf(err) != "schema_behind" || !strings.Contains(err.Error(), "by 2 migrations: run `ledgerd migrate`") {
		t.Errorf("an empty database: %v", err)
	}
	up(t, version1(), url, 1)
	if err := version1().Check(pool)(t.Context()); err != nil {
		t.Errorf("after migrate: %v", err)
	}
	if err := version2().Check(pool)(t.Context()); fault.ReasonOf(err) != "schema_behind" {
		t.Errorf("a newer service on the old schema: %v", err)
	}
	up(t, version2(), url, 1)
	up(t, version2(), url, 0)
	for name, m := range map[string]postgres.Migrations{"the new": version2(), "the old, still running": version1()} {
		if err := m.Check(pool)(t.Context()); err != nil {
			t.Errorf("%s service: %v", name, err)
		}
	}
	pending, err := version2().Pending(t.Context(), pool)
	if err != nil || len(pending) != 0 {
		t.Errorf("pending %v, %v", pending, err)
	}
	var schema string
	if err := pool.QueryRow(t.Context(), `SELECT schemaname FROM pg_tables WHERE tablename = 'goose_db_version'`).Scan(&schema); err != nil || schema != "ledger" {
		t.Errorf("the version table is in schema %q, %v", schema, err)
	}
}

func TestReplicasThatMigrateAtOnceApplyEachFileOnce(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	var mu sync.Mutex
	var wg sync.WaitGroup
	total := 0
	for range 4 {
		wg.Go(func() {
			n, err := version2().Up(t.Context(), url, nil)
			if err != nil {
				t.Errorf("Up: %s", fault.Detail(err))
			}
			mu.Lock()
			defer mu.Unlock()
			total += n
		})
	}
	wg.Wait()
	if total != 2 {
		t.Errorf("%d migrations were applied, want 2", total)
	}
}

func TestAFailedMigrationNamesItsVersionAndChangesNothing(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	m := version1()
	m.FS = fstest.MapFS{"0001_entries.sql": file(sqlOne), "0002_bad.sql": file("CREATE TABLE ledger.half (x int); SELECT broken;")}
	n, err := m.Up(t.Context(), url, nil)
	if n != 1 || fault.ReasonOf(err) != "migration_failed" || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("applied %d, %v", n, err)
	}
	conn, err := pgx.Connect(t.Context(), url.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var half bool
	if err := conn.QueryRow(t.Context(), `SELECT to_regclass('ledger.half') IS NOT NULL`).Scan(&half); err != nil || half {
		t.Errorf("half of a migration stayed: %v, %v", half, err)
	}
}

func TestARoleWithoutTheRightToMakeSchemasCanMigrateItsOwn(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	conn, err := pgx.Connect(t.Context(), url.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	var database string
	if err := conn.QueryRow(t.Context(), `SELECT current_database()`).Scan(&database); err != nil {
		t.Fatal(err)
	}
	role := database + "_role"
	for _, sql := range []string{
		`CREATE ROLE ` + role + ` LOGIN`,
		`REVOKE CREATE ON DATABASE ` + database + ` FROM PUBLIC`,
		`CREATE SCHEMA ledger AUTHORIZATION ` + role,
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if conn, err := pgx.Connect(t.Context(), url.Reveal()); err == nil {
			_, _ = conn.Exec(t.Context(), `DROP OWNED BY `+role+`; DROP ROLE `+role)
			_ = conn.Close(t.Context())
		}
	})
	cc, err := pgx.ParseConfig(url.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	asRole := strings.Replace(url.Reveal(), "postgres://"+cc.User, "postgres://"+role, 1)
	up(t, version2(), secret.New(asRole), 2)
}

func TestMigrationsAreCheckedBeforeTheyRun(t *testing.T) {
	t.Parallel()
	for _, schema := range []string{"", "Ledger", "a b", `a"; DROP SCHEMA x`, strings.Repeat("a", 64)} {
		m := version1()
		m.Schema = schema
		if _, err := m.Up(t.Context(), secret.New("postgres://localhost/x"), nil); fault.KindOf(err) != fault.Internal {
			t.Errorf("schema %q: %v", schema, err)
		}
	}
	if _, err := version1().Up(t.Context(), secret.New("postgres://user:hunter2@[bad"), nil); fault.KindOf(err) != fault.Invalid || strings.Contains(fault.Detail(err), "hunter2") {
		t.Errorf("a bad URL: %v", fault.Detail(err))
	}
	if _, err := version1().Up(t.Context(), secret.New("postgres://u@127.0.0.1:1/x?sslmode=disable"), nil); fault.ReasonOf(err) != "database_unavailable" {
		t.Errorf("a server that is down: %v", fault.Detail(err))
	}
}

func TestPgtestAppliesMigrationsToEachDatabase(t *testing.T) {
	t.Parallel()
	for range 2 {
		pool := pgtest.New(t, version2())
		pending, err := version2().Pending(t.Context(), pool)
		if err != nil || !cmp.Equal(pending, []int64(nil)) && len(pending) != 0 {
			t.Errorf("pending %v, %v", pending, err)
		}
		if _, err := pool.Exec(t.Context(), `INSERT INTO ledger.entries (id, note) VALUES (1, 'mine')`); err != nil {
			t.Errorf("another test's row is here: %v", err)
		}
	}
}
