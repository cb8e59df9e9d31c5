package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/services/tokenbroker/internal/audit"
)

const (
	// newVersionColumns is the part of an UPDATE of connections that every new
	// version of the tokens has.
	newVersionColumns = `tokens_at = clock_timestamp(), updated_at = clock_timestamp(),
		failures = 0, retry_at = NULL, unlinked_at = NULL`
	// attemptColumns is the part that leaves no attempt.
	attemptColumns = `lease_holder = NULL, lease_until = NULL, attempt_at = NULL, doubtful_attempts = 0`
	// renewedColumns is newVersionColumns for a version with a refresh token of its
	// own, or without any: nothing of an earlier attempt is left.
	renewedColumns = newVersionColumns + `, ` + attemptColumns + `, doubted = false`
)

// LeaseRequest asks for the right to make one attempt at renewing a version.
type LeaseRequest struct {
	ConnectionID string
	// Version that the attempt will present.
	Version int64
	// Holder names the attempt, uniquely.
	Holder string
	// Duration of the lease: longer than the upstream call's hard deadline.
	Duration time.Duration
	// Forced says that a backend refused the version, rather than that it is due.
	Forced bool
	// ForcedInterval is how long after a forced attempt there is no other.
	ForcedInterval time.Duration
	// MaxDoubtful is how many attempts may follow one in doubt.
	MaxDoubtful int
}

// Lease is the right to make one attempt.
type Lease struct {
	Holder string
	// Doubtful says that the provider may have spent the token, or ended the grant,
	// because of earlier attempts of ours.
	Doubtful bool
	// AfterDoubt says that the attempt before left a mark and no result.
	AfterDoubt bool
	// Failures without a certain answer, before this attempt.
	Failures int
}

// AcquireLease takes the lease and leaves the mark of an attempt, both committed
// when it returns. ok is false when the version moved, the connection cannot be
// renewed, somebody holds the lease, back-off or the interval of forced attempts
// lasts, or the attempts after one in doubt are used up: read the connection.
func (s *Store) AcquireLease(ctx context.Context, r LeaseRequest) (lease Lease, ok bool, err error) {
	lease.Holder = r.Holder
	err = s.pool.QueryRow(ctx, `
		UPDATE tokenbroker.connections SET
			lease_holder = $3, lease_until = clock_timestamp() + make_interval(secs => $4),
			doubtful_attempts = CASE WHEN attempt_at IS NULL THEN 0 ELSE doubtful_attempts + 1 END,
			doubted = doubted OR doubtful_attempts > 0,
			attempt_at = clock_timestamp(),
			forced_at = CASE WHEN $5 THEN clock_timestamp() ELSE forced_at END
		WHERE id = $1 AND version = $2 AND status = 'active' AND refreshable
			AND (lease_until IS NULL OR lease_until <= clock_timestamp())
			AND (retry_at IS NULL OR retry_at <= clock_timestamp())
			AND (NOT $5 OR forced_at IS NULL OR forced_at <= clock_timestamp() - make_interval(secs => $6))
			AND (attempt_at IS NULL OR doubtful_attempts < $7)
		RETURNING doubtful_attempts > 0 OR doubted, doubtful_attempts > 0, failures`,
		r.ConnectionID, r.Version, r.Holder, seconds(r.Duration), r.Forced, seconds(r.ForcedInterval), r.MaxDoubtful).
		Scan(&lease.Doubtful, &lease.AfterDoubt, &lease.Failures)
	if postgres.IsNoRows(err) {
		return Lease{}, false, nil
	}
	return lease, err == nil, postgres.Fault(err)
}

// Renewal is what an upstream granted for a refresh token.
type Renewal struct {
	ConnectionID string
	// PresentedVersion is the version whose refresh token was used.
	PresentedVersion int64
	Grant
	// Validity of the access token, unless SameToken says that it is the one which is
	// stored: then its end stays.
	Validity  Validity
	SameToken bool
	// Doubted says that the provider may have ended the grant all the same, since it
	// was shown a spent token.
	Doubted bool
	Record  audit.Record
}

// CommitRenewal makes the tokens the connection's next version, whoever holds the
// lease by now, unless the version has moved or the connection was disconnected:
// then committed is false. Where another attempt presented the same token, doubt
// stays with the new version until it is renewed itself: a provider that detects
// reuse may have ended the grant of both.
func (s *Store) CommitRenewal(ctx context.Context, r Renewal) (committed bool, err error) {
	err = s.change(ctx, func(c *change) error {
		ends, renew := r.Validity.left()
		tag, err := c.Exec(ctx, `
			UPDATE tokenbroker.connections SET status = 'active', version = version + 1, scopes = $3, refreshable = $4,
				expires_at = CASE WHEN $10 THEN expires_at ELSE clock_timestamp() + make_interval(secs => $5) END,
				refresh_after = CASE WHEN $10 THEN refresh_after ELSE clock_timestamp() + make_interval(secs => $6) END,
				key_id = $7, wrapped_key = $8, sealed_tokens = $9,
				doubted = $11 OR doubtful_attempts > 0 OR status <> 'active',
				`+newVersionColumns+`, `+attemptColumns+`
			WHERE id = $1 AND version = $2 AND status <> 'disconnected'`,
			r.ConnectionID, r.PresentedVersion, textArray(r.Scopes), r.Refreshable,
			ends, renew, r.Sealed.KeyID, r.Sealed.WrappedKey, r.Sealed.Ciphertext, r.SameToken, r.Doubted)
		if err != nil {
			return err
		}
		if committed = tag.RowsAffected() == 1; committed {
			c.connectionChanged(r.ConnectionID)
			c.audit(r.Record)
		}
		return nil
	})
	return committed && err == nil, err
}

// AttemptResult is what a failed attempt may have done at the provider.
type AttemptResult int

// The results.
const (
	// NotSent: nothing, the request never left.
	NotSent AttemptResult = iota
	// Denied: the provider answered that it granted nothing. It can be wrong.
	Denied
	// NoAnswer: nobody knows.
	NoAnswer
)

// FailedRenewal is an attempt without a grant and without a certain no.
type FailedRenewal struct {
	ConnectionID     string
	PresentedVersion int64
	// Lease of the attempt.
	Lease Lease
	// Result of the attempt.
	Result AttemptResult
	// Backoff until the next attempt.
	Backoff time.Duration
	Record  audit.Record
}

// FailRenewal gives the lease back and remembers the back-off, unless the version
// moved or another attempt holds the lease. The mark stays without an answer; after
// any other result the doubt is what it was before the attempt.
func (s *Store) FailRenewal(ctx context.Context, f FailedRenewal) error {
	return s.change(ctx, func(c *change) error {
		_, err := c.Exec(ctx, `
			UPDATE tokenbroker.connections SET lease_holder = NULL, lease_until = NULL,
				failures = failures + 1, retry_at = clock_timestamp() + make_interval(secs => $4),
				attempt_at = CASE WHEN $5 OR $6 THEN attempt_at END,
				doubtful_attempts = CASE WHEN $5 THEN doubtful_attempts ELSE 0 END,
				doubted = doubted OR $7
			WHERE id = $1 AND version = $2 AND lease_holder = $3`,
			f.ConnectionID, f.PresentedVersion, f.Lease.Holder, seconds(f.Backoff),
			f.Result == NoAnswer, f.Lease.AfterDoubt, f.Result != NotSent)
		c.audit(f.Record)
		return err
	})
}

// Refusal ends the use of one version of a connection's tokens.
type Refusal struct {
	ConnectionID     string
	PresentedVersion int64
	// OnlyInDoubt changes nothing unless an attempt is in doubt at this moment.
	OnlyInDoubt bool
	// LockUser locks the user's sessions until the next login.
	LockUser bool
	Record   audit.Record
}

// RequireReauthentication makes the connection ask for a new login, unless the
// version moved, and voids what caches hold: all that the user's sessions use when
// the user is locked. changed is false when there was nothing to change.
func (s *Store) RequireReauthentication(ctx context.Context, r Refusal) (changed bool, err error) {
	err = s.change(ctx, func(c *change) error {
		changed = false
		var userID string
		err := c.QueryRow(ctx, `
			UPDATE tokenbroker.connections SET status = 'reauthentication_required', updated_at = clock_timestamp(),
				failures = 0, retry_at = NULL, `+attemptColumns+`
			WHERE id = $1 AND version = $2 AND status = 'active'
				AND (NOT $3 OR (attempt_at IS NOT NULL AND coalesce(lease_until <= clock_timestamp(), true)))
			RETURNING user_id`, r.ConnectionID, r.PresentedVersion, r.OnlyInDoubt).Scan(&userID)
		if postgres.IsNoRows(err) {
			return nil
		}
		if err != nil {
			return err
		}
		changed = true
		c.audit(r.Record)
		if !r.LockUser {
			c.connectionChanged(r.ConnectionID)
			return nil
		}
		return lockUser(ctx, c, userID)
	})
	return changed && err == nil, err
}

// lockUser locks a user's sessions and voids what caches hold of them: by session,
// because some credentials come of no connection, and by connection, for watchers
// that do not know the former.
func lockUser(ctx context.Context, c *change, userID string) error {
	if _, err := c.Exec(ctx, `
		UPDATE tokenbroker.users SET locked_at = coalesce(locked_at, clock_timestamp()) WHERE id = $1`, userID); err != nil {
		return err
	}
	if err := voidSessions(ctx, c, userID); err != nil {
		return err
	}
	rows, err := c.Query(ctx, `SELECT id FROM tokenbroker.connections WHERE user_id = $1 ORDER BY id`, userID)
	if err != nil {
		return err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	for _, id := range ids {
		c.connectionChanged(id)
	}
	return err
}

// voidSessions tells caches to ask anew for all that a user's sessions use.
func voidSessions(ctx context.Context, c *change, userID string) error {
	rows, err := c.Query(ctx, `
		SELECT id FROM tokenbroker.sessions WHERE user_id = $1 AND state = 'active' ORDER BY id`, userID)
	if err != nil {
		return err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	for _, id := range ids {
		c.sessionChanged(id)
	}
	return err
}

// ProviderRealm is a configured provider and the realm that it has now.
type ProviderRealm struct {
	Provider, Realm string
	// UsedBySession says that a session's use is one of its connection here too,
	// though nobody asks for the tokens: what a renewal says of the person matters.
	UsedBySession bool
}

// DueConnections returns connections of these providers to renew ahead of expiry:
// used since their tokens were made, linked by an active session, and nobody is at
// it.
func (s *Store) DueConnections(ctx context.Context, of []ProviderRealm, limit int) ([]*Connection, error) {
	providers, realms, bySession := make([]string, len(of)), make([]string, len(of)), make([]bool, len(of))
	for i, p := range of {
		providers[i], realms[i], bySession[i] = p.Provider, p.Realm, p.UsedBySession
	}
	rows, err := s.pool.Query(ctx, `
		SELECT `+connectionColumns+` FROM tokenbroker.connections c
		JOIN unnest($2::text[], $3::text[], $4::boolean[]) AS p (provider, realm, by_session)
			ON p.provider = c.provider AND p.realm = c.realm
		WHERE c.status = 'active' AND c.refreshable AND c.refresh_after <= clock_timestamp()
			AND (c.lease_until IS NULL OR c.lease_until <= clock_timestamp())
			AND (c.retry_at IS NULL OR c.retry_at <= clock_timestamp())
			AND EXISTS (SELECT 1 FROM tokenbroker.session_links l JOIN tokenbroker.sessions s ON s.id = l.session_id
				WHERE l.connection_id = c.id AND s.state = 'active' AND s.expires_at > clock_timestamp()
					AND date_trunc('minute', c.tokens_at) <= CASE WHEN p.by_session
						THEN greatest(c.last_used_at, s.last_used_at) ELSE c.last_used_at END)
		ORDER BY c.refresh_after LIMIT $1`, limit, providers, realms, bySession)
	if err != nil {
		return nil, postgres.Fault(err)
	}
	due, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (*Connection, error) { return scanConnection(row) })
	return due, postgres.Fault(err)
}
