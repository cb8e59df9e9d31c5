package postgres

import (
	"context"
	"errors"
	"strings"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// discreetTracer is otelpgx without the server's words: the message of a data
// exception quotes the value that it is about.
type discreetTracer struct{ *otelpgx.Tracer }

func (t discreetTracer) TraceQueryEnd(ctx context.Context, conn *pgx.Conn, data pgx.TraceQueryEndData) {
	data.Err = discreet(data.Err)
	t.Tracer.TraceQueryEnd(ctx, conn, data)
}

func (t discreetTracer) TraceBatchQuery(ctx context.Context, conn *pgx.Conn, data pgx.TraceBatchQueryData) {
	data.Err = discreet(data.Err)
	t.Tracer.TraceBatchQuery(ctx, conn, data)
}

func (t discreetTracer) TraceBatchEnd(ctx context.Context, conn *pgx.Conn, data pgx.TraceBatchEndData) {
	data.Err = discreet(data.Err)
	t.Tracer.TraceBatchEnd(ctx, conn, data)
}

func (t discreetTracer) TraceCopyFromEnd(ctx context.Context, conn *pgx.Conn, data pgx.TraceCopyFromEndData) {
	data.Err = discreet(data.Err)
	t.Tracer.TraceCopyFromEnd(ctx, conn, data)
}

// classDataException is that of values which do not fit (22…).
const classDataException = "22"

// discreet returns err with a text that repeats no value.
func discreet(err error) error {
	if strings.HasPrefix(codeOf(err), classDataException) {
		return &withheldError{err}
	}
	return err
}

// withheldError is a data exception without its message.
type withheldError struct{ err error }

func (e *withheldError) Error() string {
	pgErr, ok := errors.AsType[*pgconn.PgError](e.err)
	if !ok {
		return "data exception"
	}
	text := "data exception (SQLSTATE " + pgErr.Code + "), its message is withheld"
	if pgErr.ColumnName != "" {
		text += ", column " + pgErr.ColumnName
	}
	return text
}

func (e *withheldError) Unwrap() error { return e.err }
