package store

import (
	"context"

	"github.com/jackc/pgx/v5"

	"chatelaine.dev/internal/postgres"
)

// ConnectionCount is how many connections of a provider have a status.
type ConnectionCount struct {
	Provider string
	Status   ConnectionStatus
	Count    int64
}

// CountConnections counts connections by provider and status. It reads the whole
// table: bound it with ctx.
func (s *Store) CountConnections(ctx context.Context) ([]ConnectionCount, error) {
	rows, err := s.pool.Query(ctx, `SELECT provider, status, count(*) FROM tokenbroker.connections GROUP BY 1, 2`)
	if err != nil {
		return nil, postgres.Fault(err)
	}
	counts, err := pgx.CollectRows(rows, pgx.RowToStructByPos[ConnectionCount])
	return counts, postgres.Fault(err)
}

// KeyCount is how many stored values a key-encryption key protects.
type KeyCount struct {
	KeyID string
	Count int64
}

// CountKeys counts the values that each key-encryption key in use protects. It reads
// indexes alone: bound it with ctx.
func (s *Store) CountKeys(ctx context.Context) ([]KeyCount, error) {
	rows, err := s.pool.Query(ctx, `SELECT key_id, count(*) FROM (`+sealedValues+`) used GROUP BY key_id`)
	if err != nil {
		return nil, postgres.Fault(err)
	}
	counts, err := pgx.CollectRows(rows, pgx.RowToStructByPos[KeyCount])
	return counts, postgres.Fault(err)
}
