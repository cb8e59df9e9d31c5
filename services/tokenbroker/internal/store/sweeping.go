package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/services/tokenbroker/internal/audit"
)

// ExpireSessions ends at most limit sessions whose time is over: pending ones that
// nobody completed, and active ones. Several sweepers share the work.
func (s *Store) ExpireSessions(ctx context.Context, limit int, rec audit.Record) (ended []Ended, err error) {
	err = s.change(ctx, func(c *change) error {
		rows, err := c.Query(ctx, `
			SELECT `+sessionColumns+` FROM tokenbroker.sessions s
			WHERE s.state <> 'ended' AND s.expires_at <= clock_timestamp()
			ORDER BY s.expires_at LIMIT $1 FOR UPDATE SKIP LOCKED`, limit)
		if err != nil {
			return err
		}
		expired, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Session, error) { return scanSession(row) })
		if err != nil {
			return err
		}
		ended, err = endSessions(ctx, c, expired, EndExpired, rec)
		return err
	})
	return ended, err
}

// DropStagedLegs erases at most limit legs older than maxAge of sessions that live on
// (a reconnection that nobody completed), queues their revocation and returns how
// many they were.
func (s *Store) DropStagedLegs(ctx context.Context, maxAge time.Duration, limit int) (dropped int, err error) {
	err = s.pool.QueryRow(ctx, `
		WITH gone AS (
			DELETE FROM tokenbroker.staged_legs WHERE id IN (
				SELECT l.id FROM tokenbroker.staged_legs l JOIN tokenbroker.sessions s ON s.id = l.session_id
				WHERE s.state = 'active' AND l.created_at <= clock_timestamp() - make_interval(secs => $1)
				LIMIT $2 FOR UPDATE OF l SKIP LOCKED)
			RETURNING *
		), `+queueGoneLegs+`
		SELECT count(*) FROM gone`, seconds(maxAge), limit).Scan(&dropped)
	return dropped, postgres.Fault(err)
}

// MarkUnlinked notes since when no session links a connection, and forgets it for
// those that are linked again.
func (s *Store) MarkUnlinked(ctx context.Context) error {
	_, err := s.pool.Exec(ctx, `
		UPDATE tokenbroker.connections c
		SET unlinked_at = CASE WHEN c.unlinked_at IS NULL THEN clock_timestamp() END
		WHERE (c.unlinked_at IS NOT NULL)
			= EXISTS (SELECT 1 FROM tokenbroker.session_links l WHERE l.connection_id = c.id)`)
	return postgres.Fault(err)
}

// EraseUnlinked erases at most limit connections that no session has linked for
// the time of retention, queues their revocation and returns them.
func (s *Store) EraseUnlinked(ctx context.Context, retention time.Duration, limit int) ([]*Connection, error) {
	rows, err := s.pool.Query(ctx, `
		WITH gone AS (
			DELETE FROM tokenbroker.connections WHERE id IN (
				SELECT id FROM tokenbroker.connections u
				WHERE u.unlinked_at <= clock_timestamp() - make_interval(secs => $1)
					AND NOT EXISTS (SELECT 1 FROM tokenbroker.session_links l WHERE l.connection_id = u.id)
				ORDER BY u.unlinked_at LIMIT $2 FOR UPDATE SKIP LOCKED)
			RETURNING *
		), `+queueGoneConnections+`
		SELECT `+connectionColumns+` FROM gone c`, seconds(retention), limit)
	if err != nil {
		return nil, postgres.Fault(err)
	}
	gone, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*Connection, error) { return scanConnection(row) })
	return gone, postgres.Fault(err)
}

// Retention says how long what is over is kept.
type Retention struct {
	// Sessions after their end; Events; audit Records (at least 24 hours).
	Sessions, Events, Records time.Duration
	// Users who never completed a login, after their first leg.
	Users time.Duration
}

// strangersKept is how long a session that never had a user is kept after its end,
// with the records of its legs: long enough that those may be deleted at all.
const strangersKept = 25 * time.Hour

// Purge deletes at most limit rows of each kind that is past its retention, and
// blobs that have expired. It returns how many rows it deleted.
func (s *Store) Purge(ctx context.Context, r Retention, limit int) (deleted int64, err error) {
	for _, purge := range []struct {
		sql string
		age time.Duration
	}{
		{`WITH gone AS (DELETE FROM tokenbroker.sessions WHERE id IN (SELECT id FROM tokenbroker.sessions
				WHERE state = 'ended' AND user_id IS NULL AND ended_at <= clock_timestamp() - make_interval(secs => $1) LIMIT $2)
				RETURNING id),
			records AS (DELETE FROM tokenbroker.audit WHERE session_id <> '' AND session_id IN (SELECT id FROM gone)
				AND user_id = '' AND created_at < clock_timestamp() - interval '24 hours')
			SELECT FROM gone`, min(r.Sessions, strangersKept)},
		{`DELETE FROM tokenbroker.sessions WHERE id IN (SELECT id FROM tokenbroker.sessions
			WHERE state = 'ended' AND ended_at <= clock_timestamp() - make_interval(secs => $1) LIMIT $2)`, r.Sessions},
		{`DELETE FROM tokenbroker.events WHERE position IN (SELECT position FROM tokenbroker.events
			WHERE created_at <= clock_timestamp() - make_interval(secs => $1) ORDER BY position LIMIT $2)`, r.Events},
		{`DELETE FROM tokenbroker.audit WHERE id IN (SELECT id FROM tokenbroker.audit
			WHERE created_at <= clock_timestamp() - make_interval(secs => $1) ORDER BY id LIMIT $2)`, max(r.Records, 24*time.Hour)},
		{`DELETE FROM tokenbroker.mcp_blobs WHERE key IN (SELECT key FROM tokenbroker.mcp_blobs
			WHERE expires_at <= clock_timestamp() - make_interval(secs => $1) LIMIT $2)`, 0},
		{`DELETE FROM tokenbroker.users WHERE id IN (SELECT id FROM tokenbroker.users u
			WHERE last_login_at IS NULL AND created_at <= clock_timestamp() - make_interval(secs => $1)
				AND NOT EXISTS (SELECT 1 FROM tokenbroker.sessions s WHERE s.user_id = u.id AND s.state <> 'ended') LIMIT $2)`, r.Users},
	} {
		tag, err := s.pool.Exec(ctx, purge.sql, seconds(purge.age), limit)
		if err != nil {
			return deleted, postgres.Fault(err)
		}
		deleted += tag.RowsAffected()
	}
	return deleted, nil
}
