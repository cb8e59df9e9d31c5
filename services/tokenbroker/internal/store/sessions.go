package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/reason"
)

// BeginSession creates a pending session that ends after lifetime unless it is
// activated.
func (s *Store) BeginSession(ctx context.Context, clientID, clientName string, lifetime time.Duration) (id string, expiresAt time.Time, err error) {
	id = newID(prefixSession)
	err = s.pool.QueryRow(ctx, `
		INSERT INTO tokenbroker.sessions (id, state, client_id, client_name, expires_at)
		VALUES ($1, 'pending', $2, $3, clock_timestamp() + make_interval(secs => $4))
		RETURNING expires_at`,
		id, clientID, clientName, seconds(lifetime)).Scan(&expiresAt)
	return id, expiresAt, postgres.Fault(err)
}

// PendingSessions counts the sessions that are pending, up to a limit.
func (s *Store) PendingSessions(ctx context.Context, limit int) (n int, err error) {
	err = s.pool.QueryRow(ctx, `
		SELECT count(*) FROM (SELECT FROM tokenbroker.sessions WHERE state = 'pending' LIMIT $1) pending`, limit).Scan(&n)
	return n, postgres.Fault(err)
}

const sessionColumns = `s.id, s.state, s.client_id, s.client_name, s.user_id, s.created_at, s.last_used_at,
	s.expires_at, s.ends_at, s.expires_at <= clock_timestamp(),
	EXISTS (SELECT 1 FROM tokenbroker.users u WHERE u.id = s.user_id AND u.locked_at IS NOT NULL)`

func scanSession(row pgx.Row) (s Session, err error) {
	var userID *string
	var lastUsed, ends *time.Time
	err = row.Scan(&s.ID, &s.State, &s.ClientID, &s.ClientName, &userID, &s.CreatedAt, &lastUsed,
		&s.ExpiresAt, &ends, &s.Expired, &s.Locked)
	s.UserID, s.LastUsedAt, s.EndsAt = or(userID), or(lastUsed), or(ends)
	return s, err
}

// LoadSession returns a session with its links.
func (s *Store) LoadSession(ctx context.Context, id string) (Session, error) {
	var session Session
	err := postgres.InTx(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) (err error) {
		session, err = loadSession(ctx, tx, id, "")
		return err
	})
	return session, postgres.Fault(err)
}

// loadSession reads a session with its links; lock is "" or "FOR UPDATE".
func loadSession(ctx context.Context, tx pgx.Tx, id, lock string) (Session, error) {
	session, err := scanSession(tx.QueryRow(ctx, `SELECT `+sessionColumns+` FROM tokenbroker.sessions s WHERE s.id = $1 `+lock, id))
	if postgres.IsNoRows(err) {
		return Session{}, sessionNotFound()
	}
	if err != nil {
		return Session{}, err
	}
	links, err := linksOf(ctx, tx, []string{id})
	session.Links = links[id]
	return session, err
}

// lockSession is loadSession for a change; a session that is over is refused.
func lockSession(ctx context.Context, tx pgx.Tx, id string) (Session, error) {
	session, err := loadSession(ctx, tx, id, "FOR UPDATE")
	if err == nil && session.Over() {
		return session, sessionEnded()
	}
	return session, err
}

// linksOf returns links by session. A staged leg hides the link that it will replace.
func linksOf(ctx context.Context, db postgres.Querier, sessions []string) (map[string][]Link, error) {
	rows, err := db.Query(ctx, `
		SELECT session_id, provider, coalesce(max(connection_id), ''), bool_or(staged), bool_and(skipped) FROM (
			SELECT session_id, provider, connection_id, false AS staged, connection_id IS NULL AS skipped
			FROM tokenbroker.session_links WHERE session_id = ANY($1)
			UNION ALL
			SELECT session_id, provider, NULL, true, false
			FROM tokenbroker.staged_legs WHERE session_id = ANY($1)
		) links GROUP BY session_id, provider ORDER BY session_id, provider`, sessions)
	if err != nil {
		return nil, err
	}
	links := make(map[string][]Link, len(sessions))
	var id string
	var l Link
	_, err = pgx.ForEachRow(rows, []any{&id, &l.Provider, &l.ConnectionID, &l.Staged, &l.Skipped}, func() error {
		links[id] = append(links[id], l)
		return nil
	})
	return links, err
}

// ListSessions returns a user's sessions with their links, newest first, after the
// cursor; the zero cursor starts at the newest.
func (s *Store) ListSessions(ctx context.Context, userID string, after Cursor, limit int) ([]Session, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT `+sessionColumns+` FROM tokenbroker.sessions s
		WHERE s.user_id = $1 AND ($3 = '' OR (s.created_at, s.id) < ($2, $3))
		ORDER BY s.created_at DESC, s.id DESC LIMIT $4`, userID, timeOrNull(after.CreatedAt), after.ID, limit)
	if err != nil {
		return nil, postgres.Fault(err)
	}
	sessions, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Session, error) { return scanSession(row) })
	if err != nil {
		return nil, postgres.Fault(err)
	}
	ids := make([]string, len(sessions))
	for i := range sessions {
		ids[i] = sessions[i].ID
	}
	links, err := linksOf(ctx, s.pool, ids)
	for i := range sessions {
		sessions[i].Links = links[sessions[i].ID]
	}
	return sessions, postgres.Fault(err)
}

// ActiveSession returns a session that may be used now; any other is
// Precondition with reason SESSION_ENDED, an unknown one too. It notes the use,
// to the minute.
func (s *Store) ActiveSession(ctx context.Context, id string) (ActiveSession, error) {
	a := ActiveSession{ID: id}
	var usedLately bool
	var left float64
	asked := time.Now()
	err := s.pool.QueryRow(ctx, `
		SELECT s.user_id, s.client_id, extract(epoch FROM s.expires_at - clock_timestamp())::float8, u.locked_at IS NOT NULL, h.position,
			coalesce(s.last_used_at > clock_timestamp() - interval '1 minute', false)
		FROM tokenbroker.sessions s
		JOIN tokenbroker.users u ON u.id = s.user_id
		CROSS JOIN tokenbroker.event_head h
		WHERE s.id = $1 AND s.state = 'active' AND s.expires_at > clock_timestamp()`, id).
		Scan(&a.UserID, &a.ClientID, &left, &a.Locked, &a.Position, &usedLately)
	if postgres.IsNoRows(err) {
		return ActiveSession{}, sessionEnded()
	}
	a.ExpiresAt = asked.Add(interval(&left))
	if err == nil && !usedLately {
		_, err = s.pool.Exec(ctx, `
			UPDATE tokenbroker.sessions SET last_used_at = date_trunc('minute', clock_timestamp())
			WHERE id = $1 AND state = 'active'`, id)
	}
	return a, postgres.Fault(err)
}

// TouchSession moves the end of an active session to idle from now, at most to
// its absolute end, which it returns. Errors: NotFound, Denied with reason
// CLIENT_MISMATCH, Precondition with reason SESSION_ENDED, or SESSION_LOCKED for
// one that is good again as soon as its user logs in.
func (s *Store) TouchSession(ctx context.Context, id, clientID string, idle time.Duration) (endsAt time.Time, err error) {
	err = s.pool.QueryRow(ctx, `
		UPDATE tokenbroker.sessions s
		SET expires_at = least(s.ends_at, greatest(s.expires_at, clock_timestamp() + make_interval(secs => $3))),
			last_used_at = date_trunc('minute', clock_timestamp())
		FROM tokenbroker.users u
		WHERE s.id = $1 AND s.client_id = $2 AND s.state = 'active' AND s.expires_at > clock_timestamp()
			AND u.id = s.user_id AND u.locked_at IS NULL
		RETURNING s.ends_at`, id, clientID, seconds(idle)).Scan(&endsAt)
	if !postgres.IsNoRows(err) {
		return endsAt, postgres.Fault(err)
	}
	session, err := s.LoadSession(ctx, id)
	switch {
	case err != nil:
		return time.Time{}, err
	case session.ClientID != clientID:
		return time.Time{}, ClientMismatch()
	case session.State == SessionActive && !session.Expired && session.Locked:
		return time.Time{}, sessionLocked()
	}
	return time.Time{}, sessionEnded()
}

func sessionLocked() error {
	return fault.New(fault.Precondition, "the session is locked until the person logs in again").
		WithReason(reason.SessionLocked)
}

// ClientMismatch is the error for a session that belongs to another client.
func ClientMismatch() *fault.Error {
	return fault.New(fault.Denied, "the session belongs to another client").WithReason(reason.ClientMismatch)
}

// Ended is what ending a session found and erased.
type Ended struct {
	// Changed is false when the session was unknown or over before.
	Changed bool
	// State before.
	State  SessionState
	UserID string
	// Staged legs that were erased; their revocation is queued.
	Staged []StagedLeg
	// Record is what was kept of it, for the log.
	Record audit.Record
	// Failed is what was kept of the legs that ended it, for the log.
	Failed []audit.Record
}

// EndSession ends a session at once: it drops links, erases staged tokens and,
// when the session was active, appends an event. Ending twice is no error. failed
// are records of legs that ended the login; they are completed, and each is kept
// once, also when the session is over already.
func (s *Store) EndSession(ctx context.Context, id, endReason string, rec audit.Record, failed ...audit.Record) (ended Ended, err error) {
	err = s.change(ctx, func(c *change) error {
		ended = Ended{}
		session, err := loadSession(ctx, c, id, "FOR UPDATE")
		if fault.ReasonOf(err) == reason.SessionNotFound {
			return nil
		}
		if err != nil {
			return err
		}
		kept, err := keepFailedLegs(ctx, c, &session, failed)
		if err != nil {
			return err
		}
		if session.State != SessionEnded {
			all, err := endSessions(ctx, c, []Session{session}, endReason, rec)
			if err != nil {
				return err
			}
			ended = all[0]
		}
		ended.Failed = kept
		return nil
	})
	return ended, err
}

// keepFailedLegs keeps the records that there are none like yet, and returns them.
// The session's row is locked, so that a call that is repeated finds them. What nobody
// came back from before there was a user is returned alone: see the package comment.
func keepFailedLegs(ctx context.Context, c *change, session *Session, failed []audit.Record) (kept []audit.Record, err error) {
	for _, rec := range failed {
		rec.SessionID, rec.UserID, rec.ClientID = session.ID, session.UserID, session.ClientID
		if rec.UserID == "" && rec.Outcome == audit.Abandoned {
			kept = append(kept, rec)
			continue
		}
		var known bool
		if err := c.QueryRow(ctx, `
			SELECT EXISTS (SELECT 1 FROM tokenbroker.audit
				WHERE session_id = $1 AND action = $2 AND provider = $3 AND outcome = $4)`,
			rec.SessionID, string(rec.Action), rec.Provider, rec.Outcome).Scan(&known); err != nil {
			return nil, err
		}
		if !known {
			c.audit(rec)
			kept = append(kept, rec)
		}
	}
	return kept, nil
}
