package store

import (
	"context"

	"github.com/jackc/pgx/v5"

	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/services/tokenbroker/internal/audit"
)

const auditColumns = `action, outcome, user_id, session_id, client_id, backend, provider, connection_id, strategy, peer, trace_id`

const insertAuditSQL = `INSERT INTO tokenbroker.audit (` + auditColumns + `) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`

func auditValues(r *audit.Record) []any {
	return []any{
		string(r.Action), r.Outcome, r.UserID, r.SessionID, r.ClientID, r.Backend,
		r.Provider, r.ConnectionID, r.Strategy, r.Peer, r.TraceID,
	}
}

// executor is a pool or a transaction.
type executor interface {
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

func insertAudit(ctx context.Context, db executor, records []audit.Record) error {
	if len(records) == 0 {
		return nil
	}
	batch := &pgx.Batch{}
	for i := range records {
		batch.Queue(insertAuditSQL, auditValues(&records[i])...)
	}
	return db.SendBatch(ctx, batch).Close()
}

// InsertAudit implements audit.Store.
func (s *Store) InsertAudit(ctx context.Context, records ...audit.Record) error {
	return postgres.Fault(insertAudit(ctx, s.pool, records))
}

// AuditFilter selects audit records; empty fields match all.
type AuditFilter struct {
	UserID, SessionID, TraceID, Action string
	// Before selects records with a smaller id; 0 starts at the newest.
	Before int64
	// Limit is at least 1.
	Limit int
}

// ListAudit returns records, newest first.
func (s *Store) ListAudit(ctx context.Context, f AuditFilter) ([]audit.Record, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT id, created_at, `+auditColumns+` FROM tokenbroker.audit
		WHERE ($1 = '' OR user_id = $1) AND ($2 = '' OR session_id = $2) AND ($3 = '' OR trace_id = $3)
			AND ($4 = '' OR action = $4) AND ($5::bigint = 0 OR id < $5)
		ORDER BY id DESC LIMIT $6`,
		f.UserID, f.SessionID, f.TraceID, f.Action, f.Before, f.Limit)
	if err != nil {
		return nil, postgres.Fault(err)
	}
	records, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r audit.Record, err error) {
		err = row.Scan(&r.ID, &r.Time, &r.Action, &r.Outcome, &r.UserID, &r.SessionID, &r.ClientID,
			&r.Backend, &r.Provider, &r.ConnectionID, &r.Strategy, &r.Peer, &r.TraceID)
		return r, err
	})
	return records, postgres.Fault(err)
}
