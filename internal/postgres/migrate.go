package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
)

// Migrations are the numbered SQL files (goose's format) of one schema.
type Migrations struct {
	// FS has the files at its root: use fs.Sub on an embed.FS.
	FS fs.FS
	// Schema is the schema that the service owns; the version table lives in it.
	Schema string
	// Command is what to tell people whose schema is behind: "authserver migrate".
	Command string
	// ConnectTimeout is Config's, for Up.
	ConnectTimeout time.Duration
}

const versionTable = "goose_db_version"

var schemaRE = regexp.MustCompile(`^[a-z][a-z0-9_]{0,62}$`)

// Up makes the schema when needed and applies what is pending. Of several that
// run at once, one works and the others wait. logger may be nil. It returns the
// number of migrations that it applied.
func (m Migrations) Up(ctx context.Context, url secret.String, logger *slog.Logger) (int, error) {
	if err := m.valid(); err != nil {
		return 0, err
	}
	cc, err := m.connConfig(url)
	if err != nil {
		return 0, err
	}
	db := stdlib.OpenDB(*cc)
	defer func() { _ = db.Close() }() // what was to be written was committed

	if err := m.createSchema(ctx, db); err != nil {
		return 0, err
	}
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockID(m.lockID()), lock.WithLockTimeout(1, 600))
	if err != nil {
		return 0, fault.Wrap(fault.Internal, err, "cannot make the migration lock")
	}
	opts := []goose.ProviderOption{
		goose.WithTableName(m.Schema + "." + versionTable),
		goose.WithSessionLocker(locker),
		goose.WithDisableGlobalRegistry(true),
	}
	if logger != nil {
		opts = append(opts, goose.WithSlog(logger))
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, m.FS, opts...)
	if err != nil {
		return 0, fault.Wrap(fault.Internal, err, "cannot read the migrations")
	}
	results, err := provider.Up(ctx)
	if err != nil {
		return applied(err), m.failed(err)
	}
	return len(results), nil
}

// connConfig is that of one connection without limits on statements: a migration
// may take as long as its tables are large, and wait for as long as they are in use.
func (m Migrations) connConfig(url secret.String) (*pgx.ConnConfig, error) {
	cc, err := pgx.ParseConfig(url.Reveal())
	if err != nil || url.IsZero() {
		return nil, invalidURL()
	}
	if err := CheckTransport(url); err != nil {
		return nil, err
	}
	setConnect(cc, m.ConnectTimeout)
	cc.RuntimeParams["application_name"] = m.Schema + " migrate"
	for _, name := range timeouts { // whatever the URL, or the role, says for the service
		cc.RuntimeParams[name] = "0"
	}
	return cc, nil
}

func applied(err error) int {
	if partial, ok := errors.AsType[*goose.PartialError](err); ok {
		return len(partial.Applied)
	}
	return 0
}

func (m Migrations) failed(err error) error {
	what := "migration of schema " + m.Schema + " failed"
	if partial, ok := errors.AsType[*goose.PartialError](err); ok && partial.Failed != nil && partial.Failed.Source != nil {
		what += fmt.Sprintf(" at version %d", partial.Failed.Source.Version)
	}
	if f := From(err); f != nil && f.Kind == fault.Unavailable {
		return f
	}
	return fault.Wrap(fault.Internal, err, what).WithReason("migration_failed")
}

// createSchema looks first, because CREATE SCHEMA IF NOT EXISTS asks for a
// privilege that a role does not need when an administrator made the schema.
func (m Migrations) createSchema(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return Fault(err)
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it has nothing to do
	// Two at once would both miss the schema and both make it.
	if _, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock($1)`, m.lockID()+1); err != nil {
		return Fault(err)
	}
	var exists bool
	if err := tx.QueryRowContext(ctx, `SELECT to_regnamespace($1) IS NOT NULL`, m.Schema).Scan(&exists); err != nil {
		return Fault(err)
	}
	if !exists {
		_, err := tx.ExecContext(ctx, `CREATE SCHEMA `+pgx.Identifier{m.Schema}.Sanitize())
		if codeOf(err) == codeInsufficientPrivilege {
			return fault.Wrap(fault.Precondition, err, "there is no schema "+m.Schema+" and this role may not create it: grant it CREATE on the database").
				WithReason("schema_missing")
		}
		if err != nil {
			return Fault(err)
		}
	}
	return Fault(tx.Commit())
}

// Pending returns the versions that are embedded and not applied. A database
// that is ahead (the next version of the service was here) has none.
func (m Migrations) Pending(ctx context.Context, db Querier) ([]int64, error) {
	if err := m.valid(); err != nil {
		return nil, err
	}
	embedded, err := m.versions()
	if err != nil {
		return nil, err
	}
	rows, err := db.Query(ctx, `SELECT version_id FROM `+pgx.Identifier{m.Schema, versionTable}.Sanitize()+` WHERE is_applied`)
	var done []int64
	if err == nil {
		done, err = pgx.CollectRows(rows, pgx.RowTo[int64])
	}
	if isUndefined(err) { // no schema, or no table: nothing was ever applied
		return embedded, nil
	}
	if err != nil {
		return nil, Fault(err)
	}
	return slices.DeleteFunc(embedded, func(v int64) bool { return slices.Contains(done, v) }), nil
}

// Check is a readiness check: the database answers and no migration is pending.
// Its error is Precondition with reason "schema_behind" and names the command.
func (m Migrations) Check(pool *pgxpool.Pool) func(context.Context) error {
	return func(ctx context.Context) error {
		pending, err := m.Pending(ctx, pool)
		if err != nil {
			return err
		}
		if len(pending) > 0 {
			return fault.Newf(fault.Precondition, "schema %s is behind by %d migrations: run `%s`", m.Schema, len(pending), m.Command).
				WithReason("schema_behind")
		}
		return nil
	}
}

func (m Migrations) valid() error {
	if m.FS == nil || !schemaRE.MatchString(m.Schema) {
		return fault.Newf(fault.Internal, "migrations need files and a schema name in lower case, got %q", m.Schema)
	}
	return nil
}

// versions reads the numbers off the file names.
func (m Migrations) versions() ([]int64, error) {
	names, err := fs.Glob(m.FS, "*.sql")
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "cannot read the migrations")
	}
	var versions []int64
	for _, name := range names {
		v, err := goose.NumericComponent(name)
		if err != nil {
			return nil, fault.Wrap(fault.Internal, err, "migration "+name+" has no number")
		}
		versions = append(versions, v)
	}
	slices.Sort(versions)
	return versions, nil
}

// lockID differs by schema, so that two services migrate at the same time.
func (m Migrations) lockID() int64 {
	h := fnv.New64a()
	h.Write([]byte("chatelaine.dev migrate " + strings.ToLower(m.Schema)))
	return int64(h.Sum64() >> 2) // shifted: it fits
}
