package store

import (
	"context"
	"crypto/sha256"
	"embed"
	"io/fs"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/postgres"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// Schema is the schema that the authorization server owns.
const Schema = "authserver"

// Migrations returns the schema's migrations.
func Migrations() postgres.Migrations {
	files, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		panic(err) // the folder is embedded above
	}
	return postgres.Migrations{FS: files, Schema: Schema, Command: "authserver migrate"}
}

const rollbackTimeout = 2 * time.Second

// Store is the schema. It is safe for concurrent use.
type Store struct {
	pool *pgxpool.Pool
}

// New returns the store behind pool.
func New(pool *pgxpool.Pool) *Store { return &Store{pool: pool} }

// Digest returns the form in which anything that opens something is kept.
func Digest(value string) []byte {
	sum := sha256.Sum256([]byte(value))
	return sum[:]
}

// storable reports whether Postgres takes a text: what it does not was never
// stored, and so is not found.
func storable(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsRune(text, 0)
}

// querier is what a pool and a transaction have in common.
type querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

type txKey struct{}

// db returns the transaction that ctx carries, else the pool.
func (s *Store) db(ctx context.Context) querier {
	if tx, ok := ctx.Value(txKey{}).(pgx.Tx); ok {
		return tx
	}
	return s.pool
}

// InTx runs fn in a transaction, or in the one that ctx carries already. The
// store's methods take part in it when they get the context that fn gets. fn may
// run more than once, so it has no other effect.
func (s *Store) InTx(ctx context.Context, fn func(ctx context.Context) error) error {
	if _, nested := ctx.Value(txKey{}).(pgx.Tx); nested {
		return fn(ctx)
	}
	return postgres.Fault(postgres.InTx(ctx, s.pool, pgx.TxOptions{}, func(tx pgx.Tx) error {
		return fn(context.WithValue(ctx, txKey{}, tx))
	}))
}

// Begin starts a transaction for a caller that cannot use InTx. Commit or
// Rollback must follow with the context that it returns.
func (s *Store) Begin(ctx context.Context) (context.Context, error) {
	tx, err := s.pool.Begin(ctx)
	if err != nil {
		return ctx, postgres.Fault(err)
	}
	return context.WithValue(ctx, txKey{}, tx), nil
}

// ReasonCommit is the reason of Commit's errors: what was done may have lasted.
const ReasonCommit = "commit_unknown"

// Commit ends the transaction of Begin.
func (s *Store) Commit(ctx context.Context) error {
	tx, ok := ctx.Value(txKey{}).(pgx.Tx)
	if !ok {
		return fault.New(fault.Internal, "commit outside of a transaction")
	}
	if err := tx.Commit(ctx); err != nil {
		return postgres.From(err).WithReason(ReasonCommit)
	}
	return nil
}

// Rollback undoes the transaction of Begin, also when ctx has ended.
func (s *Store) Rollback(ctx context.Context) error {
	tx, ok := ctx.Value(txKey{}).(pgx.Tx)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	return postgres.Fault(tx.Rollback(ctx))
}
