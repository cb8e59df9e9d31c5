package store

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/services/tokenbroker/internal/audit"
)

// Plan is what an activation starts from: read without locks, so that tokens can
// be sealed for their new place outside of the transaction.
type Plan struct {
	Session Session
	Legs    []PlannedLeg
}

// PlannedLeg is a staged leg and the connection that it will renew, or nil.
type PlannedLeg struct {
	StagedLeg
	Existing *Connection
}

// PlanActivation reads a session, its staged legs no older than maxAge, and the
// connections of the same accounts.
func (s *Store) PlanActivation(ctx context.Context, sessionID string, maxAge time.Duration) (plan Plan, err error) {
	opts := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	err = postgres.InTx(ctx, s.pool, opts, func(tx pgx.Tx) error {
		plan = Plan{}
		session, err := loadSession(ctx, tx, sessionID, "")
		if err != nil {
			return err
		}
		plan.Session = session
		rows, err := tx.Query(ctx, `
			SELECT `+stagedColumns+` FROM tokenbroker.staged_legs
			WHERE session_id = $1 AND created_at > clock_timestamp() - make_interval(secs => $2)
			ORDER BY provider`, sessionID, seconds(maxAge))
		if err != nil {
			return err
		}
		legs, err := pgx.CollectRows(rows, scanStaged)
		if err != nil {
			return err
		}
		for _, leg := range legs {
			existing, err := connectionOf(ctx, tx, session.UserID, leg.Provider, leg.Account)
			if err != nil {
				return err
			}
			plan.Legs = append(plan.Legs, PlannedLeg{StagedLeg: leg, Existing: existing})
		}
		return nil
	})
	return plan, postgres.Fault(err)
}

func connectionOf(ctx context.Context, tx pgx.Tx, userID, provider string, a Account) (*Connection, error) {
	c, err := scanConnection(tx.QueryRow(ctx, `
		SELECT `+connectionColumns+` FROM tokenbroker.connections c
		WHERE c.user_id = $1 AND c.realm = $2 AND c.subject = $3 AND c.provider = $4`,
		userID, a.Realm, a.Subject, provider))
	if postgres.IsNoRows(err) {
		return nil, nil
	}
	return c, err
}

// Promotion turns one staged leg into a connection's tokens.
type Promotion struct {
	LegID        string
	ConnectionID string
	Provider     string
	Account
	Grant
	// FromVersion is the version that is replaced; 0 makes a new connection.
	FromVersion int64
	// KeepsRefreshToken says that the sealed tokens have the refresh token of
	// FromVersion. A renewal that is at it right now makes the plan stale, since
	// it spends that token; doubt about an earlier one stays with the token.
	KeepsRefreshToken bool
}

// Activation makes a session usable.
type Activation struct {
	SessionID string
	UserID    string
	// Lifetime is the absolute one, Idle the one until the next touch; both from now.
	Lifetime, Idle time.Duration
	Promotions     []Promotion
	// LoginLeg is the primary provider's leg when it is among the promotions: the
	// person has logged in, under this name, and their sessions are unlocked.
	LoginLeg, LoginName string
	Record              audit.Record

	// loggedIn is when LoginLeg came.
	loggedIn time.Time
}

// Activate promotes staged legs and activates the session in one transaction. An
// active session stays as it is but for the promotions. Errors: IsStale when the
// plan is no longer true (plan again), those of lockSession, and Precondition with
// reason SESSION_LOCKED when the login is older than what has locked the person.
func (s *Store) Activate(ctx context.Context, a Activation) (session Session, err error) {
	// One order of locks for all: connections by id.
	slices.SortFunc(a.Promotions, func(x, y Promotion) int { return strings.Compare(x.ConnectionID, y.ConnectionID) })
	err = s.change(ctx, func(c *change) error {
		locked, err := lockSession(ctx, c, a.SessionID)
		if err != nil {
			return err
		}
		if locked.UserID != a.UserID {
			return errStale
		}
		for i := range a.Promotions {
			redeemed, err := promote(ctx, c, &locked, &a.Promotions[i])
			if err != nil {
				return err
			}
			if a.Promotions[i].LegID == a.LoginLeg {
				a.loggedIn = redeemed
			}
		}
		if err := a.finish(ctx, c, &locked); err != nil {
			return err
		}
		session, err = loadSession(ctx, c, a.SessionID, "")
		return err
	})
	if postgres.IsForeignKeyViolation(err) { // the sweeper erased the connection
		return Session{}, errStale
	}
	return session, err
}

func (a *Activation) finish(ctx context.Context, c *change, session *Session) error {
	if a.LoginLeg != "" { // first: what it unlocks are the sessions that were active before
		if err := unlockUser(ctx, c, a); err != nil {
			return err
		}
	}
	if session.State == SessionPending {
		// Legs that were not planned (of a provider that the configuration no longer
		// has, or too old) have no place in an active session.
		if _, err := deleteStaged(ctx, c, a.SessionID); err != nil {
			return err
		}
		if _, err := c.Exec(ctx, `
			UPDATE tokenbroker.sessions SET state = 'active', activated_at = now(),
				ends_at = now() + make_interval(secs => $2), expires_at = now() + make_interval(secs => least($2, $3)),
				last_used_at = date_trunc('minute', now())
			WHERE id = $1`, a.SessionID, seconds(a.Lifetime), seconds(a.Idle)); err != nil {
			return err
		}
		c.audit(a.Record)
	}
	return nil
}

// unlockUser notes a login. Caches of sessions that were locked until now hold
// refusals. A login from before the lock says nothing of the time since.
func unlockUser(ctx context.Context, c *change, a *Activation) error {
	var lockedAt *time.Time
	if err := c.QueryRow(ctx, `
		SELECT locked_at FROM tokenbroker.users WHERE id = $1 FOR NO KEY UPDATE`, a.UserID).Scan(&lockedAt); err != nil {
		return err
	}
	if lockedAt != nil && !a.loggedIn.After(*lockedAt) {
		return sessionLocked()
	}
	if _, err := c.Exec(ctx, `
		UPDATE tokenbroker.users SET last_login_at = clock_timestamp(), locked_at = NULL, name = $2 WHERE id = $1`,
		a.UserID, a.LoginName); err != nil {
		return err
	}
	if lockedAt == nil {
		return nil
	}
	return voidSessions(ctx, c, a.UserID)
}

// promote returns when the leg came. The token's end is that of the leg.
func promote(ctx context.Context, c *change, session *Session, p *Promotion) (came time.Time, err error) {
	var expires, refresh *time.Time
	err = c.QueryRow(ctx, `
		DELETE FROM tokenbroker.staged_legs WHERE id = $1 AND session_id = $2 RETURNING created_at, expires_at, refresh_after`,
		p.LegID, session.ID).Scan(&came, &expires, &refresh)
	if postgres.IsNoRows(err) {
		return came, errStale // the leg was run again, or skipped
	}
	if err != nil {
		return came, err
	}
	var tag pgconn.CommandTag
	if p.FromVersion == 0 {
		tag, err = c.Exec(ctx, `
			INSERT INTO tokenbroker.connections (id, user_id, provider, realm, subject, name, scopes, status, version,
				refreshable, expires_at, refresh_after, tokens_at, key_id, wrapped_key, sealed_tokens)
			VALUES ($1, $2, $3, $4, $5, $6, $7, 'active', 1, $8, $9, $10, clock_timestamp(), $11, $12, $13)
			ON CONFLICT ON CONSTRAINT connections_account DO NOTHING`,
			p.ConnectionID, session.UserID, p.Provider, p.Realm, p.Subject, p.Name, textArray(p.Scopes),
			p.Refreshable, expires, refresh,
			p.Sealed.KeyID, p.Sealed.WrappedKey, p.Sealed.Ciphertext)
	} else {
		columns, condition := renewedColumns, ``
		if p.KeepsRefreshToken {
			columns, condition = newVersionColumns, ` AND (lease_until IS NULL OR lease_until <= clock_timestamp())`
		}
		tag, err = c.Exec(ctx, `
			UPDATE tokenbroker.connections SET status = 'active', version = version + 1, name = $3, scopes = $4,
				refreshable = $5, expires_at = $6, refresh_after = $7, key_id = $8, wrapped_key = $9, sealed_tokens = $10,
				`+columns+`
			WHERE id = $1 AND version = $2`+condition,
			p.ConnectionID, p.FromVersion, p.Name, textArray(p.Scopes),
			p.Refreshable, expires, refresh,
			p.Sealed.KeyID, p.Sealed.WrappedKey, p.Sealed.Ciphertext)
		c.connectionChanged(p.ConnectionID)
	}
	if err != nil {
		return came, err
	}
	if tag.RowsAffected() == 0 {
		return came, errStale // renewed, or made, by somebody else meanwhile
	}
	return came, link(ctx, c, session, p.Provider, p.ConnectionID)
}

// link makes the session use the connection. What caches hold of the one that it
// used before, or of its having none, is void.
func link(ctx context.Context, c *change, session *Session, provider, connectionID string) error {
	var before string
	if i := slices.IndexFunc(session.Links, func(l Link) bool { return l.Provider == provider }); i >= 0 {
		before = session.Links[i].ConnectionID
	}
	if before == connectionID {
		return nil
	}
	if before != "" { // for watchers that do not know changes of sessions
		c.connectionChanged(before)
	}
	if session.State == SessionActive {
		c.sessionChanged(session.ID)
	}
	_, err := c.Exec(ctx, `
		INSERT INTO tokenbroker.session_links (session_id, provider, connection_id) VALUES ($1, $2, $3)
		ON CONFLICT (session_id, provider) DO UPDATE SET connection_id = EXCLUDED.connection_id, skip_reason = NULL`,
		session.ID, provider, connectionID)
	return err
}
