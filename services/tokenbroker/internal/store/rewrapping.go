package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/services/tokenbroker/internal/seal"
)

// SealedTables returns the tables that hold sealed values. Each has the columns id,
// key_id, wrapped_key and sealed_tokens.
func (s *Store) SealedTables() []string { return []string{"connections", "revocations", "staged_legs"} }

// sealedValues selects table and key of every sealed value.
const sealedValues = `
	SELECT key_id, 'connections' AS held_by FROM tokenbroker.connections WHERE key_id IS NOT NULL
	UNION ALL SELECT key_id, 'revocations' FROM tokenbroker.revocations
	UNION ALL SELECT key_id, 'staged_legs' FROM tokenbroker.staged_legs`

// WrappedKey is the wrapped data key of a stored value.
type WrappedKey struct {
	// Table and Row that hold it.
	Table, Row string
	// Place of the value, without its version: data keys are not bound to one.
	Place seal.Place
	// Sealed has KeyID and WrappedKey, and no ciphertext.
	Sealed seal.Sealed
}

// KeyUse is what a key-encryption key protects in one table.
type KeyUse struct {
	KeyID, Table string
	// Count of values, at least 1.
	Count int64
	// Sample is one of them.
	Sample WrappedKey
}

// KeysInUse returns what each key-encryption key protects, by key and table.
func (s *Store) KeysInUse(ctx context.Context) ([]KeyUse, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT key_id, held_by, count(*) FROM (`+sealedValues+`) used GROUP BY 1, 2 ORDER BY 1, 2`)
	if err != nil {
		return nil, postgres.Fault(err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (u KeyUse, err error) {
		err = row.Scan(&u.KeyID, &u.Table, &u.Count)
		return u, err
	})
	if err != nil {
		return nil, postgres.Fault(err)
	}
	uses := found[:0]
	for _, u := range found {
		sample, err := s.wrappedKeys(ctx, u.Table, `key_id = $1 LIMIT 1`, u.KeyID)
		if err != nil {
			return nil, err
		}
		if len(sample) == 0 {
			continue // gone meanwhile: nothing to lose
		}
		u.Sample = sample[0]
		uses = append(uses, u)
	}
	return uses, nil
}

// KeysToRewrap returns at most limit data keys of a table that another key than
// newest wraps, by row, after the row of that id; "" starts at the first.
func (s *Store) KeysToRewrap(ctx context.Context, table, newest, after string, limit int) ([]WrappedKey, error) {
	return s.wrappedKeys(ctx, table, `key_id <> $1 AND id > $2 ORDER BY id LIMIT $3`, newest, after, limit)
}

// wrappedKeys selects from a table of sealedTables.
func (s *Store) wrappedKeys(ctx context.Context, table, which string, args ...any) ([]WrappedKey, error) {
	place := `'` + table + `', id`
	if table == "revocations" { // sealed where they came from
		place = `origin_table, origin_row`
	}
	rows, err := s.pool.Query(ctx, fmt.Sprintf(`SELECT id, %s, key_id, wrapped_key FROM tokenbroker.%s WHERE `, place, table)+which, args...)
	if err != nil {
		return nil, postgres.Fault(err)
	}
	keys, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (WrappedKey, error) {
		k := WrappedKey{Table: table, Place: seal.Place{Column: sealedColumn}}
		err := row.Scan(&k.Row, &k.Place.Table, &k.Place.Row, &k.Sealed.KeyID, &k.Sealed.WrappedKey)
		return k, err
	})
	return keys, postgres.Fault(err)
}

// Rewrapped is a data key, before and after.
type Rewrapped struct {
	Row      string
	Old, New seal.Sealed
}

// Rewrap replaces wrapped keys of a table, each where it is still the old one, and
// returns how many it replaced. Rows that somebody has locked stay as they are: what
// is being renewed gets a new key anyhow, and nobody waits.
func (s *Store) Rewrap(ctx context.Context, table string, keys []Rewrapped) (replaced int64, err error) {
	rows, before, ids, after := make([]string, len(keys)), make([][]byte, len(keys)), make([]string, len(keys)), make([][]byte, len(keys))
	for i, k := range keys {
		rows[i], before[i], ids[i], after[i] = k.Row, k.Old.WrappedKey, k.New.KeyID, k.New.WrappedKey
	}
	tag, err := s.pool.Exec(ctx, fmt.Sprintf(`
		UPDATE tokenbroker.%[1]s t SET key_id = n.key_id, wrapped_key = n.after
		FROM (
			SELECT r.id, k.key_id, k.after
			FROM unnest($1::text[], $2::bytea[], $3::text[], $4::bytea[]) AS k(id, before, key_id, after)
			JOIN tokenbroker.%[1]s r ON r.id = k.id AND r.wrapped_key = k.before
			ORDER BY r.id FOR NO KEY UPDATE OF r SKIP LOCKED
		) n
		WHERE t.id = n.id`, table), rows, before, ids, after)
	return tag.RowsAffected(), postgres.Fault(err)
}
