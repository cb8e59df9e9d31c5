package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// Querier reads: a pool, a connection or a transaction.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Beginner begins transactions: a pool or a connection.
type Beginner interface {
	BeginTx(ctx context.Context, opts pgx.TxOptions) (pgx.Tx, error)
}

const (
	maxTxAttempts   = 3
	rollbackTimeout = 2 * time.Second
)

// InTx runs fn in a transaction and commits when it returns nil. When Postgres
// says that it conflicted with another one (serialization failure, deadlock), it
// is run again, three times in all, so fn must have no effect outside of tx.
// The error is fn's own, or the driver's: pass it to Fault.
func InTx(ctx context.Context, db Beginner, opts pgx.TxOptions, fn func(tx pgx.Tx) error) error {
	for attempt := 1; ; attempt++ {
		err := inTx(ctx, db, opts, fn)
		if err == nil || attempt == maxTxAttempts || !isSerialization(err) || ctx.Err() != nil {
			return err
		}
	}
}

func inTx(ctx context.Context, db Beginner, opts pgx.TxOptions, fn func(tx pgx.Tx) error) error {
	tx, err := db.BeginTx(ctx, opts)
	if err != nil {
		return err
	}
	committed := false
	defer func() { // also when fn panics
		if committed {
			return
		}
		// With ctx canceled a rollback would only break the connection.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
		defer cancel()
		_ = tx.Rollback(ctx) // a failure closes the connection, which rolls back too
	}()
	if err := fn(tx); err != nil {
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	committed = true
	return nil
}
