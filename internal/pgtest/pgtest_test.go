package pgtest

import "testing"

func TestMain(m *testing.M) { Main(m) }

func TestNewGivesAWorkingDatabaseOfItsOwn(t *testing.T) {
	t.Parallel()
	a, b := New(t), New(t)
	if _, err := a.Exec(t.Context(), `CREATE TABLE only_in_a (x int)`); err != nil {
		t.Fatal(err)
	}
	var exists bool
	if err := b.QueryRow(t.Context(), `SELECT to_regclass('only_in_a') IS NOT NULL`).Scan(&exists); err != nil || exists {
		t.Errorf("a table of one test's database is seen by another's: %v, %v", exists, err)
	}
}
