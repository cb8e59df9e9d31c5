package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/reason"
)

const stagedColumns = `id, session_id, provider, realm, subject, name, scopes, refreshable, expires_at, refresh_after,
	key_id, wrapped_key, sealed_tokens`

func scanStaged(row pgx.CollectableRow) (l StagedLeg, err error) {
	var expires, refresh *time.Time
	err = row.Scan(&l.ID, &l.SessionID, &l.Provider, &l.Realm, &l.Subject, &l.Name, &l.Scopes, &l.Refreshable,
		&expires, &refresh, &l.Sealed.KeyID, &l.Sealed.WrappedKey, &l.Sealed.Ciphertext)
	l.ExpiresAt, l.RefreshAfter = or(expires), or(refresh)
	return l, err
}

// deleteStaged erases the staged legs of a session, or those of the named providers,
// and queues their revocation.
func deleteStaged(ctx context.Context, tx pgx.Tx, sessionID string, providers ...string) ([]StagedLeg, error) {
	rows, err := tx.Query(ctx, `
		WITH gone AS (DELETE FROM tokenbroker.staged_legs
			WHERE session_id = $1 AND (cardinality($2::text[]) = 0 OR provider = ANY($2)) RETURNING *),
		`+queueGoneLegs+`
		SELECT `+stagedColumns+` FROM gone`, sessionID, textArray(providers))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, scanStaged)
}

// NewLeg is a leg that an upstream has granted.
type NewLeg struct {
	StagedLeg
	// Validity of the access token.
	Validity Validity
	// Primary is set for the primary provider's leg: it sets the session's user.
	Primary *PrimaryIdentity
	// Configured are the names of all providers that the configuration has.
	Configured []string
	// Record is completed with user and client, and kept with the leg.
	Record audit.Record
}

// Staged is the outcome of StageLeg.
type Staged struct {
	// LegID is the leg's.
	LegID string
	// Session as it is now.
	Session Session
	// Previous is the account that the user had at the provider before, when it
	// is another one.
	Previous *Account
	// Replaced is an earlier leg of the same provider in this session.
	Replaced *StagedLeg
	// Record is what was kept of it, for the log.
	Record audit.Record
}

// StageLeg keeps a leg's tokens until the session is activated. Errors: NotFound,
// Precondition with reason SESSION_ENDED, PRIMARY_REQUIRED (the session has no
// user yet) or IDENTITY_INVALID (the session is another user's).
func (s *Store) StageLeg(ctx context.Context, leg NewLeg) (staged Staged, err error) {
	err = s.change(ctx, func(c *change) error {
		staged = Staged{LegID: leg.ID}
		session, err := lockSession(ctx, c, leg.SessionID)
		if err != nil {
			return err
		}
		if err := setUser(ctx, c, &session, leg.Primary); err != nil {
			return err
		}
		replaced, err := deleteStaged(ctx, c, leg.SessionID, leg.Provider)
		if err != nil {
			return err
		}
		if len(replaced) > 0 {
			staged.Replaced = &replaced[0]
		}
		if err := insertStaged(ctx, c, &leg); err != nil {
			return err
		}
		if staged.Previous, err = previousAccount(ctx, c, session.UserID, &leg); err != nil {
			return err
		}
		userID := session.UserID
		if staged.Session, err = loadSession(ctx, c, leg.SessionID, ""); err != nil {
			return err
		}
		staged.Record = leg.Record
		staged.Record.UserID, staged.Record.ClientID = userID, session.ClientID
		c.audit(staged.Record)
		return nil
	})
	return staged, err
}

// setUser sets the session's user by the primary leg, once.
func setUser(ctx context.Context, tx pgx.Tx, session *Session, primary *PrimaryIdentity) error {
	if primary == nil {
		if session.UserID == "" {
			return fault.New(fault.Precondition, "the primary provider's leg must run first").WithReason(reason.PrimaryRequired)
		}
		return nil
	}
	userID, err := findOrCreateUser(ctx, tx, *primary)
	if err != nil {
		return err
	}
	switch session.UserID {
	case userID:
		return nil
	case "":
		session.UserID = userID
		_, err = tx.Exec(ctx, `UPDATE tokenbroker.sessions SET user_id = $2 WHERE id = $1`, session.ID, userID)
		return err
	}
	return fault.New(fault.Precondition, "the session belongs to another person").WithReason(reason.IdentityInvalid)
}

func insertStaged(ctx context.Context, tx pgx.Tx, l *NewLeg) error {
	ends, renew := l.Validity.left()
	_, err := tx.Exec(ctx, `
		INSERT INTO tokenbroker.staged_legs (`+stagedColumns+`)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8,
			clock_timestamp() + make_interval(secs => $9), clock_timestamp() + make_interval(secs => $10), $11, $12, $13)`,
		l.ID, l.SessionID, l.Provider, l.Realm, l.Subject, l.Name, textArray(l.Scopes), l.Refreshable,
		ends, renew, l.Sealed.KeyID, l.Sealed.WrappedKey, l.Sealed.Ciphertext)
	return err
}

// previousAccount returns the account that the user had at the provider before,
// when it is not the one of the leg. A connection that was made under another name
// of the provider counts, unless that name is configured for a provider of its own.
func previousAccount(ctx context.Context, tx pgx.Tx, userID string, leg *NewLeg) (*Account, error) {
	rows, err := tx.Query(ctx, `
		SELECT realm, subject, name FROM tokenbroker.connections
		WHERE user_id = $1 AND realm = $2 AND (provider = $3 OR NOT provider = ANY($4))
		ORDER BY (provider = $3) DESC, tokens_at DESC LIMIT 1`,
		userID, leg.Realm, leg.Provider, textArray(leg.Configured))
	if err != nil {
		return nil, err
	}
	found, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Account])
	if err != nil || len(found) == 0 || found[0].Subject == leg.Subject {
		return nil, err
	}
	return &found[0], nil
}

// SkippedLeg is the outcome of SkipProvider.
type SkippedLeg struct {
	Session Session
	// Erased is a leg of the provider that was staged before, if any.
	Erased *StagedLeg
	// Record is what was kept of it, for the log.
	Record audit.Record
}

// SkipProvider notes that a pending session goes without a provider, and erases
// what was staged of it. A link of an active session stays as it is. Errors are
// those of LoadSession and Precondition with reason SESSION_ENDED.
func (s *Store) SkipProvider(ctx context.Context, sessionID, provider, why string, rec audit.Record) (skipped SkippedLeg, err error) {
	err = s.change(ctx, func(c *change) error {
		skipped = SkippedLeg{}
		session, err := lockSession(ctx, c, sessionID)
		if err != nil {
			return err
		}
		erased, err := deleteStaged(ctx, c, sessionID, provider)
		if err != nil {
			return err
		}
		if len(erased) > 0 {
			skipped.Erased = &erased[0]
		}
		if _, err := c.Exec(ctx, `
			INSERT INTO tokenbroker.session_links (session_id, provider, skip_reason) VALUES ($1, $2, $3)
			ON CONFLICT (session_id, provider) DO UPDATE SET skip_reason = EXCLUDED.skip_reason
			WHERE tokenbroker.session_links.connection_id IS NULL`, sessionID, provider, why); err != nil {
			return err
		}
		if skipped.Session, err = loadSession(ctx, c, sessionID, ""); err != nil {
			return err
		}
		rec.UserID, rec.ClientID = session.UserID, session.ClientID
		skipped.Record = rec
		c.audit(rec)
		return nil
	})
	return skipped, err
}
