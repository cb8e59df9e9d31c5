package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/seal"
)

// Revocation is a set of tokens that nobody here uses any more and that its provider
// shall forget.
type Revocation struct {
	// ID is the store's.
	ID string
	// UserID that the tokens belonged to; empty when that was never known.
	UserID string
	// ConnectionID that was given up; empty for a leg.
	ConnectionID string
	// Staged says that the tokens are of a login that came to nothing: then they give
	// way to whatever the person has in the realm. Of a connection that was given up,
	// only the same account's tokens are spared.
	Staged   bool
	Provider string
	// Account has no name here.
	Account Account
	Sealed  seal.Sealed
	// Place that the tokens were sealed for.
	Place seal.Place
	// Attempts that began, the present one included.
	Attempts int
	// Age since the tokens were given up.
	Age time.Duration
}

// OfConnection is the revocation of what a connection holds, or would have held.
func OfConnection(c *Connection) Revocation {
	return Revocation{UserID: c.UserID, ConnectionID: c.ID, Provider: c.Provider, Account: c.Account, Sealed: c.Sealed, Place: c.Place()}
}

// OfLeg is the revocation of what a leg holds, or would have held.
func OfLeg(userID string, l *StagedLeg) Revocation {
	return Revocation{UserID: userID, Staged: true, Provider: l.Provider, Account: l.Account, Sealed: l.Sealed, Place: l.Place()}
}

const revocationColumns = `user_id, connection_id, staged, provider, realm, subject,
	origin_table, origin_row, origin_version, key_id, wrapped_key, sealed_tokens`

// The rest of a statement whose CTE gone has the rows that it deletes.
const (
	queueGoneLegs = `queued AS (INSERT INTO tokenbroker.revocations (` + revocationColumns + `)
		SELECT coalesce(s.user_id, ''), '', true, g.provider, g.realm, g.subject, 'staged_legs', g.id, 1,
			g.key_id, g.wrapped_key, g.sealed_tokens
		FROM gone g LEFT JOIN tokenbroker.sessions s ON s.id = g.session_id)`
	queueGoneConnections = `queued AS (INSERT INTO tokenbroker.revocations (` + revocationColumns + `)
		SELECT user_id, id, false, provider, realm, subject, 'connections', id, version, key_id, wrapped_key, sealed_tokens
		FROM gone WHERE sealed_tokens IS NOT NULL)`
)

type execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

func queueRevocation(ctx context.Context, db execer, r *Revocation) error {
	_, err := db.Exec(ctx, `
		INSERT INTO tokenbroker.revocations (`+revocationColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
		r.UserID, r.ConnectionID, r.Staged, r.Provider, r.Account.Realm, r.Account.Subject,
		r.Place.Table, r.Place.Row, r.Place.Version, r.Sealed.KeyID, r.Sealed.WrappedKey, r.Sealed.Ciphertext)
	return err
}

// QueueRevocation keeps tokens that never got a place of their own until their
// provider has heard that they are given up. What the store erases itself it queues
// itself.
func (s *Store) QueueRevocation(ctx context.Context, r Revocation) error {
	return postgres.Fault(queueRevocation(ctx, s.pool, &r))
}

// ClaimRevocations returns at most limit revocations that are due. Nobody else gets
// them before the lease is over.
func (s *Store) ClaimRevocations(ctx context.Context, limit int, lease time.Duration) ([]Revocation, error) {
	rows, err := s.pool.Query(ctx, `
		UPDATE tokenbroker.revocations r SET attempts = r.attempts + 1, due_at = clock_timestamp() + make_interval(secs => $2)
		FROM (SELECT id FROM tokenbroker.revocations WHERE due_at <= clock_timestamp()
			ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED) due
		WHERE r.id = due.id
		RETURNING r.id, `+revocationColumns+`, attempts, extract(epoch FROM clock_timestamp() - created_at)::float8`,
		limit, seconds(lease))
	if err != nil {
		return nil, postgres.Fault(err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r Revocation, err error) {
		var age float64
		err = row.Scan(&r.ID, &r.UserID, &r.ConnectionID, &r.Staged, &r.Provider, &r.Account.Realm, &r.Account.Subject,
			&r.Place.Table, &r.Place.Row, &r.Place.Version, &r.Sealed.KeyID, &r.Sealed.WrappedKey, &r.Sealed.Ciphertext,
			&r.Attempts, &age)
		r.Place.Column, r.Age = sealedColumn, interval(&age)
		return r, err
	})
	return list, postgres.Fault(err)
}

// FinishRevocation erases a claimed revocation, and keeps the record if there is one.
// A claim that somebody else has taken over is theirs to finish.
func (s *Store) FinishRevocation(ctx context.Context, r *Revocation, rec *audit.Record) (finished bool, err error) {
	err = s.change(ctx, func(c *change) error {
		tag, err := c.Exec(ctx, `DELETE FROM tokenbroker.revocations WHERE id = $1 AND attempts = $2`, r.ID, r.Attempts)
		if finished = err == nil && tag.RowsAffected() == 1; finished && rec != nil {
			c.audit(*rec)
		}
		return err
	})
	return finished && err == nil, err
}

// RetryRevocation makes a claimed revocation due again after a pause.
func (s *Store) RetryRevocation(ctx context.Context, r *Revocation, after time.Duration) error {
	_, err := s.pool.Exec(ctx, `
		UPDATE tokenbroker.revocations SET due_at = clock_timestamp() + make_interval(secs => $3)
		WHERE id = $1 AND attempts = $2`, r.ID, r.Attempts, seconds(after))
	return postgres.Fault(err)
}

// RevocationQueue is how much waits to be revoked.
type RevocationQueue struct {
	Count int64
	// Oldest is how long the first of them has waited; zero without any.
	Oldest time.Duration
}

// CountRevocations counts what waits to be revoked.
func (s *Store) CountRevocations(ctx context.Context) (q RevocationQueue, err error) {
	var oldest *float64
	err = s.pool.QueryRow(ctx, `
		SELECT count(*), extract(epoch FROM clock_timestamp() - min(created_at))::float8 FROM tokenbroker.revocations`).
		Scan(&q.Count, &oldest)
	q.Oldest = interval(oldest)
	return q, postgres.Fault(err)
}
