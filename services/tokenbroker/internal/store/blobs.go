package store

import (
	"context"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/services/tokenbroker/internal/reason"
)

// Blob is a value that its owner has sealed.
type Blob struct {
	Sealed    []byte
	Version   int64
	ExpiresAt time.Time
}

// Blob returns a blob that has not expired, or NotFound.
func (s *Store) Blob(ctx context.Context, key string) (b Blob, err error) {
	err = s.pool.QueryRow(ctx, `
		SELECT sealed, version, expires_at FROM tokenbroker.mcp_blobs WHERE key = $1 AND expires_at > clock_timestamp()`, key).
		Scan(&b.Sealed, &b.Version, &b.ExpiresAt)
	if postgres.IsNoRows(err) {
		return Blob{}, fault.New(fault.NotFound, "there is no such blob")
	}
	return b, postgres.Fault(err)
}

// PutBlob writes a blob whose version is expected, 0 for one that must not exist
// (or has expired), and returns the new version. A mismatch is Conflict with
// reason VERSION_MISMATCH. Versions of one key only grow, until it is swept.
func (s *Store) PutBlob(ctx context.Context, key string, sealed []byte, expected int64, ttl time.Duration) (version int64, err error) {
	if expected == 0 {
		err = s.pool.QueryRow(ctx, `
			INSERT INTO tokenbroker.mcp_blobs AS b (key, sealed, version, expires_at)
			VALUES ($1, $2, 1, clock_timestamp() + make_interval(secs => $3))
			ON CONFLICT (key) DO UPDATE SET sealed = EXCLUDED.sealed, version = b.version + 1, expires_at = EXCLUDED.expires_at
			WHERE b.expires_at <= clock_timestamp()
			RETURNING version`, key, sealed, seconds(ttl)).Scan(&version)
	} else {
		err = s.pool.QueryRow(ctx, `
			UPDATE tokenbroker.mcp_blobs
			SET sealed = $2, version = version + 1, expires_at = clock_timestamp() + make_interval(secs => $3)
			WHERE key = $1 AND version = $4 AND expires_at > clock_timestamp()
			RETURNING version`, key, sealed, seconds(ttl), expected).Scan(&version)
	}
	if postgres.IsNoRows(err) {
		return 0, fault.New(fault.Conflict, "the blob has another version").WithReason(reason.VersionMismatch)
	}
	return version, postgres.Fault(err)
}

// DeleteBlob removes a blob; an unknown one is no error.
func (s *Store) DeleteBlob(ctx context.Context, key string) error {
	_, err := s.pool.Exec(ctx, `DELETE FROM tokenbroker.mcp_blobs WHERE key = $1`, key)
	return postgres.Fault(err)
}
