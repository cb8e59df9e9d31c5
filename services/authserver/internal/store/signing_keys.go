package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5"

	"chatelaine.dev/internal/postgres"
)

// SigningKey is the public half of a signing key.
type SigningKey struct {
	KID string
	JWK json.RawMessage
	// MAC proves that a server of this deployment wrote it.
	MAC []byte
	// Age is how long it has been published.
	Age time.Duration
}

// PublishKeys stores the keys of this replica's configuration, says that tokens
// signed with them may be alive for another keepFor, and returns every key that
// still verifies, of all replicas and of earlier configurations.
func (s *Store) PublishKeys(ctx context.Context, keys []SigningKey, keepFor time.Duration) ([]SigningKey, error) {
	for _, k := range keys {
		if _, err := s.db(ctx).Exec(ctx, `
			INSERT INTO authserver.signing_keys AS k (kid, jwk, mac, keep_until) VALUES ($1, $2, $3, now() + $4::interval)
			ON CONFLICT (kid) DO UPDATE SET jwk = excluded.jwk, mac = excluded.mac, keep_until = greatest(k.keep_until, excluded.keep_until)`,
			k.KID, k.JWK, k.MAC, keepFor); err != nil {
			return nil, postgres.Fault(err)
		}
	}
	rows, err := s.db(ctx).Query(ctx, `
		SELECT kid, jwk, mac, now() - published_at FROM authserver.signing_keys WHERE keep_until > now()
		ORDER BY published_at DESC, kid`)
	if err != nil {
		return nil, postgres.Fault(err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (k SigningKey, err error) {
		err = row.Scan(&k.KID, &k.JWK, &k.MAC, &k.Age)
		return k, err
	})
	return all, postgres.Fault(err)
}
