package e2e

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
)

// query reads one row of the stack's database, as its superuser.
func query(t *testing.T, sql string, args []any, into ...any) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), shared.stack.DatabaseURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(into...); err != nil {
		t.Fatal(err)
	}
}
