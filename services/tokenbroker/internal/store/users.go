package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"chatelaine.dev/internal/postgres"
)

// PrimaryIdentity is who a person is in the primary provider's realm.
type PrimaryIdentity struct {
	// SubjectField names where the subject comes from (the claim or field), so
	// that a change of it in the configuration cannot merge two people.
	Realm, SubjectField, Subject string
}

// findOrCreateUser returns the id of the one user of an identity. What is shown
// of the user is set by a completed login only.
func findOrCreateUser(ctx context.Context, tx pgx.Tx, who PrimaryIdentity) (id string, err error) {
	// DO UPDATE, not DO NOTHING: it returns the row that somebody else made at
	// the same time, and waits for them.
	err = tx.QueryRow(ctx, `
		INSERT INTO tokenbroker.users (id, realm, subject_field, subject) VALUES ($1, $2, $3, $4)
		ON CONFLICT (realm, subject_field, subject) DO UPDATE SET realm = EXCLUDED.realm
		RETURNING id`,
		newID(prefixUser), who.Realm, who.SubjectField, who.Subject).Scan(&id)
	return id, err
}

// Cursor is a position in a list of users or of sessions: the last one of a page.
type Cursor struct {
	CreatedAt time.Time
	ID        string
}

// ListUsers returns people who have completed a login, newest first, after the
// cursor; the zero cursor starts at the newest.
func (s *Store) ListUsers(ctx context.Context, after Cursor, limit int) ([]User, error) {
	rows, err := s.pool.Query(ctx, `
		SELECT id, realm, subject, name, created_at, last_login_at FROM tokenbroker.users
		WHERE last_login_at IS NOT NULL AND ($2 = '' OR (created_at, id) < ($1, $2))
		ORDER BY created_at DESC, id DESC LIMIT $3`,
		timeOrNull(after.CreatedAt), after.ID, limit)
	if err != nil {
		return nil, postgres.Fault(err)
	}
	users, err := pgx.CollectRows(rows, pgx.RowToStructByPos[User])
	return users, postgres.Fault(err)
}

// UserExists reports whether there is a user of this id.
func (s *Store) UserExists(ctx context.Context, userID string) (exists bool, err error) {
	err = s.pool.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM tokenbroker.users WHERE id = $1)`, userID).Scan(&exists)
	return exists, postgres.Fault(err)
}
