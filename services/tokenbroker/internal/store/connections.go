package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/services/tokenbroker/internal/audit"
)

const connectionColumns = `c.id, c.user_id, c.provider, c.realm, c.subject, c.name, c.scopes, c.status, c.version,
	c.refreshable, c.expires_at, c.refresh_after, c.key_id, c.wrapped_key, c.sealed_tokens,
	c.created_at, c.updated_at, c.last_used_at,
	coalesce(c.expires_at <= clock_timestamp(), false),
	coalesce(c.refresh_after <= clock_timestamp(), false),
	greatest(0, extract(epoch FROM c.expires_at - clock_timestamp()))::float8,
	greatest(0, extract(epoch FROM c.lease_until - clock_timestamp()))::float8,
	greatest(0, extract(epoch FROM c.retry_at - clock_timestamp()))::float8,
	c.attempt_at IS NOT NULL AND coalesce(c.lease_until <= clock_timestamp(), true),
	c.doubtful_attempts,
	coalesce(extract(epoch FROM clock_timestamp() - c.forced_at), -1)::float8,
	coalesce(c.last_used_at > clock_timestamp() - interval '1 minute', false)`

// connectionRow takes a row of connectionColumns, which may come from an outer join.
type connectionRow struct {
	id, userID, provider, realm, subject, name, status, keyID *string
	scopes                                                    []string
	version                                                   *int64
	refreshable, inDoubt                                      *bool
	expires, refresh, created, updated, used                  *time.Time
	wrapped, sealed                                           []byte
	expired, due, usedLately                                  bool
	remaining, lease, retry, forced                           *float64
	doubtful                                                  *int
}

func (r *connectionRow) targets() []any {
	return []any{
		&r.id, &r.userID, &r.provider, &r.realm, &r.subject, &r.name, &r.scopes, &r.status, &r.version,
		&r.refreshable, &r.expires, &r.refresh, &r.keyID, &r.wrapped, &r.sealed,
		&r.created, &r.updated, &r.used,
		&r.expired, &r.due, &r.remaining, &r.lease, &r.retry, &r.inDoubt, &r.doubtful, &r.forced, &r.usedLately,
	}
}

// connection returns nil for the empty side of an outer join.
func (r *connectionRow) connection() *Connection {
	if r.id == nil {
		return nil
	}
	c := &Connection{
		ID: *r.id, UserID: or(r.userID), Provider: or(r.provider),
		Account: Account{Realm: or(r.realm), Subject: or(r.subject), Name: or(r.name)},
		Status:  ConnectionStatus(or(r.status)), Version: or(r.version),
		CreatedAt: or(r.created), UpdatedAt: or(r.updated), LastUsedAt: or(r.used),
	}
	c.Grant = Grant{Scopes: r.scopes, Refreshable: or(r.refreshable), ExpiresAt: or(r.expires), RefreshAfter: or(r.refresh)}
	c.Sealed.KeyID, c.Sealed.WrappedKey, c.Sealed.Ciphertext = or(r.keyID), r.wrapped, r.sealed
	c.Clock = ConnectionClock{
		Expired: r.expired, Due: r.due, UsedLately: r.usedLately,
		Remaining: interval(r.remaining), LeaseRemaining: interval(r.lease), RetryIn: interval(r.retry),
		InDoubt: or(r.inDoubt), DoubtfulAttempts: or(r.doubtful), ForcedAgo: interval(r.forced),
	}
	return c
}

func interval(secs *float64) time.Duration { return time.Duration(or(secs) * float64(time.Second)) }

func scanConnection(row pgx.Row) (*Connection, error) {
	var r connectionRow
	if err := row.Scan(r.targets()...); err != nil {
		return nil, err
	}
	return r.connection(), nil
}

// Connection returns a connection, or NotFound.
func (s *Store) Connection(ctx context.Context, id string) (*Connection, error) {
	c, err := scanConnection(s.pool.QueryRow(ctx, `SELECT `+connectionColumns+` FROM tokenbroker.connections c WHERE c.id = $1`, id))
	if postgres.IsNoRows(err) {
		return nil, connectionNotFound()
	}
	return c, postgres.Fault(err)
}

// ConnectionCursor is a position in the list of a user's connections: the last one of
// a page.
type ConnectionCursor struct {
	Provider string
	Cursor
}

// ListConnections returns a user's connections by provider name, oldest first, after
// the cursor; the zero cursor starts at the first.
func (s *Store) ListConnections(ctx context.Context, userID string, after ConnectionCursor, limit int) ([]*Connection, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT `+connectionColumns+` FROM tokenbroker.connections c
		WHERE c.user_id = $1 AND ($4 = '' OR (c.provider, c.created_at, c.id) > ($2, $3, $4))
		ORDER BY c.provider, c.created_at, c.id LIMIT $5`,
		userID, after.Provider, timeOrNull(after.CreatedAt), after.ID, limit)
	if err != nil {
		return nil, postgres.Fault(err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*Connection, error) { return scanConnection(row) })
	return list, postgres.Fault(err)
}

// Opening is what a session has at a provider, in one snapshot.
type Opening struct {
	// Session may be used; UserID and ClientID are set.
	Session ActiveSession
	// Connection is nil when the session has none there.
	Connection *Connection
}

// Open reads what a session has at a provider. A session that may not be used is
// Precondition with reason SESSION_ENDED, as an unknown one.
func (s *Store) Open(ctx context.Context, sessionID, provider string) (Opening, error) {
	o := Opening{Session: ActiveSession{ID: sessionID}}
	var r connectionRow
	var left float64
	asked := time.Now()
	err := s.pool.QueryRow(ctx, `
		SELECT s.user_id, s.client_id, extract(epoch FROM s.expires_at - clock_timestamp())::float8, u.locked_at IS NOT NULL, h.position,
			`+connectionColumns+`
		FROM tokenbroker.sessions s
		JOIN tokenbroker.users u ON u.id = s.user_id
		CROSS JOIN tokenbroker.event_head h
		LEFT JOIN tokenbroker.session_links l ON l.session_id = s.id AND l.provider = $2
		LEFT JOIN tokenbroker.connections c ON c.id = l.connection_id AND c.user_id = s.user_id
		WHERE s.id = $1 AND s.state = 'active' AND s.expires_at > clock_timestamp()`, sessionID, provider).
		Scan(append([]any{
			&o.Session.UserID, &o.Session.ClientID, &left, &o.Session.Locked, &o.Session.Position,
		}, r.targets()...)...)
	if postgres.IsNoRows(err) {
		return Opening{}, sessionEnded()
	}
	o.Session.ExpiresAt = asked.Add(interval(&left))
	o.Connection = r.connection()
	if c := o.Connection; c != nil && !c.ExpiresAt.IsZero() {
		c.Clock.EndsAt = asked.Add(c.Clock.Remaining)
	}
	return o, postgres.Fault(err)
}

// NoteUse notes that a connection's token was handed out, to the minute.
func (s *Store) NoteUse(ctx context.Context, connectionID string) error {
	_, err := s.pool.Exec(ctx, `
		UPDATE tokenbroker.connections SET last_used_at = date_trunc('minute', clock_timestamp()) WHERE id = $1`, connectionID)
	return postgres.Fault(err)
}

// RealmInUse reports whether something that lives may rest on the same grant as
// tokens of an account: a connection, or a leg of a session that is not over, of
// that account. With a userID, any connection of the user in that realm counts.
// Revoking the tokens could take it along. A connection that asks for a new login has
// nothing to lose.
func (s *Store) RealmInUse(ctx context.Context, userID string, a Account) (inUse bool, err error) {
	err = s.pool.QueryRow(ctx, `
		SELECT EXISTS (SELECT 1 FROM tokenbroker.connections
				WHERE realm = $2 AND status = 'active' AND (user_id = $1 OR subject = $3))
			OR EXISTS (SELECT 1 FROM tokenbroker.staged_legs l JOIN tokenbroker.sessions s ON s.id = l.session_id
				WHERE l.realm = $2 AND l.subject = $3 AND s.state <> 'ended' AND s.expires_at > clock_timestamp())`,
		userID, a.Realm, a.Subject).Scan(&inUse)
	return inUse, postgres.Fault(err)
}

// Disconnect erases a connection's tokens, drops its links, queues the revocation and
// appends an event. It returns the connection as it was, or nil when it was
// disconnected before. Errors: NotFound.
func (s *Store) Disconnect(ctx context.Context, id string, rec audit.Record) (was *Connection, record audit.Record, err error) {
	err = s.change(ctx, func(c *change) error {
		was = nil
		found, err := scanConnection(c.QueryRow(ctx, `
			SELECT `+connectionColumns+` FROM tokenbroker.connections c WHERE c.id = $1 FOR UPDATE`, id))
		if postgres.IsNoRows(err) {
			return connectionNotFound()
		}
		if err != nil || found.Status == ConnectionDisconnected {
			return err
		}
		gone := OfConnection(found)
		if err := queueRevocation(ctx, c, &gone); err != nil {
			return err
		}
		if _, err := c.Exec(ctx, `
			UPDATE tokenbroker.connections SET status = 'disconnected', version = version + 1, refreshable = false,
				expires_at = NULL, refresh_after = NULL, key_id = NULL, wrapped_key = NULL, sealed_tokens = NULL,
				`+renewedColumns+`
			WHERE id = $1`, id); err != nil {
			return err
		}
		if _, err := c.Exec(ctx, `DELETE FROM tokenbroker.session_links WHERE connection_id = $1`, id); err != nil {
			return err
		}
		rec.UserID, rec.Provider = found.UserID, found.Provider
		was, record = found, rec
		c.audit(rec)
		c.connectionChanged(id)
		return nil
	})
	return was, record, err
}
