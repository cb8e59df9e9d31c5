package pgtest

import (
	"testing"
	"testing/fstest"

	"chatelaine.dev/internal/postgres"
)

func migrations(schema string) postgres.Migrations {
	return postgres.Migrations{Schema: schema, Command: "test", FS: fstest.MapFS{
		"0001_rows.sql": {Data: []byte("-- +goose Up\nCREATE TABLE " + schema + ".rows (n int PRIMARY KEY);\n")},
	}}
}

func TestNewGivesEachTestADatabaseOfItsOwn(t *testing.T) {
	t.Parallel()
	for range 3 {
		pool := New(t, migrations("own"))
		if _, err := pool.Exec(t.Context(), `INSERT INTO own.rows VALUES (1)`); err != nil {
			t.Errorf("not a fresh, migrated database: %v", err)
		}
	}
	var exists bool
	if err := New(t, migrations("other")).QueryRow(t.Context(), `SELECT to_regclass('own.rows') IS NOT NULL`).Scan(&exists); err != nil || exists {
		t.Errorf("other migrations were applied: %v, %v", exists, err)
	}
}

func TestADatabaseGoesWithItsTestEvenWhileItIsInUse(t *testing.T) {
	t.Parallel()
	var name string
	t.Run("inner", func(t *testing.T) {
		pool := New(t)
		if err := pool.QueryRow(t.Context(), `SELECT current_database()`).Scan(&name); err != nil {
			t.Fatal(err)
		}
		leaked, err := postgres.Open(t.Context(), postgres.Config{URL: server.url(name)})
		if err != nil {
			t.Fatal(err)
		}
		if err := leaked.Ping(t.Context()); err != nil { // stays connected
			t.Fatal(err)
		}
		t.Cleanup(func() { go leaked.Close() })
	})
	var exists bool
	if err := server.admin.QueryRow(t.Context(), `SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1)`, name).Scan(&exists); err != nil || exists {
		t.Errorf("database %s stayed: %v, %v", name, exists, err)
	}
}
