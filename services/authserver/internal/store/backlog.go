package store

import (
	"context"
	"time"

	"chatelaine.dev/internal/postgres"
)

// Backlog is what waits in the database, for all replicas together.
type Backlog struct {
	// SessionEnds are those that the broker has not confirmed; OldestEnd is how long
	// the oldest has waited, zero for none.
	SessionEnds int64
	OldestEnd   time.Duration
	// Logins that are under way, by what they wait for.
	Consent, Legs, Confirm int64
}

// Backlog counts what waits.
func (s *Store) Backlog(ctx context.Context) (Backlog, error) {
	var b Backlog
	err := s.db(ctx).QueryRow(ctx, `
		SELECT e.n, e.oldest, r.consent, r.legs, r.confirm
		FROM (SELECT count(*) AS n, coalesce(now() - min(created_at), '0') AS oldest FROM authserver.session_ends) e,
			(SELECT count(*) FILTER (WHERE phase = 'consent') AS consent, count(*) FILTER (WHERE phase = 'legs') AS legs,
				count(*) FILTER (WHERE phase = 'confirm') AS confirm
			FROM authserver.authorization_requests WHERE expires_at > now()) r`).
		Scan(&b.SessionEnds, &b.OldestEnd, &b.Consent, &b.Legs, &b.Confirm)
	return b, postgres.Fault(err)
}
