package pgtest

import "testing"

func TestStatementsThatTheVersionBeforeMayNotSurviveAreFound(t *testing.T) {
	t.Parallel()
	for sql, want := range map[string]int{
		"CREATE TABLE a.b (n int NOT NULL UNIQUE, m text CHECK (m <> ''));\nCREATE INDEX ON a.b (n);": 0,
		"ALTER TABLE a.b ADD COLUMN n int;":                                                  0,
		"ALTER TABLE a.b ADD COLUMN n int NOT NULL DEFAULT 0, ADD COLUMN m text;":            0,
		"ALTER TABLE a.b ADD COLUMN n numeric(1, 2) NOT NULL, ADD COLUMN m text DEFAULT '';": 1,
		"ALTER TABLE a.b ADD COLUMN n int REFERENCES a.c;":                                   1,
		"-- one; DROP TABLE is talked about\nUPDATE a.b SET n = 'DROP COLUMN; x';":           0,
		"alter table a.b drop column n;":                                                     1,
		"ALTER TABLE a.b RENAME n TO m; ALTER TABLE a.b RENAME TO c;":                        2,
		"ALTER TABLE a.b ALTER COLUMN n SET NOT NULL;":                                       1,
		"ALTER TABLE a.b ALTER n TYPE bigint;":                                               1,
		"ALTER TABLE a.b ALTER n DROP NOT NULL;":                                             0,
		"ALTER TABLE a.b\n  ADD CONSTRAINT c CHECK (n > 0);":                                 1,
		"CREATE UNIQUE INDEX ON a.b (n);":                                                    1,
		"DROP INDEX a.b_n;":                                                                  0,
		"DELETE FROM a.b;":                                                                   1,
		Tolerated + " nobody reads it.\nALTER TABLE a.b DROP COLUMN n;":                      0,
		Tolerated + " x.\nDROP TABLE a.b;\nDROP TABLE a.c;":                                  1,
		"-- Not tolerated.\nDROP TABLE a.b;":                                                 1,
	} {
		if found := intolerable("-- +goose Up\n\n" + sql); len(found) != want {
			t.Errorf("%s\nfinds %d statements, want %d: %q", sql, len(found), want, found)
		}
	}
}
