package pgtest

import (
	"io/fs"
	"testing"
	"testing/fstest"

	"chatelaine.dev/internal/postgres"
)

// Next returns the migrations of an imagined later version: those of m, and one that
// adds a column to every table of the schema, and a table. Such additions are what a
// service must bear while replicas are replaced one after another, or after it was
// rolled back.
func Next(t testing.TB, m postgres.Migrations) postgres.Migrations {
	t.Helper()
	files := fstest.MapFS{"99999_next.sql": &fstest.MapFile{Data: []byte(`-- +goose Up
-- +goose StatementBegin
DO $$
DECLARE name text;
BEGIN
	FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = '` + m.Schema + `' AND tablename <> 'goose_db_version' LOOP
		EXECUTE format('ALTER TABLE %I.%I ADD COLUMN of_the_next_version text DEFAULT ''x''', '` + m.Schema + `', name);
	END LOOP;
END $$;
-- +goose StatementEnd
CREATE TABLE ` + m.Schema + `.of_the_next_version (id bigint PRIMARY KEY);
`)}}
	names, err := fs.Glob(m.FS, "*.sql")
	if err != nil || len(names) == 0 {
		t.Fatalf("pgtest: no migrations to add to: %v", err)
	}
	for _, name := range names {
		data, err := fs.ReadFile(m.FS, name)
		if err != nil {
			t.Fatalf("pgtest: %v", err)
		}
		files[name] = &fstest.MapFile{Data: data}
	}
	m.FS = files
	return m
}
