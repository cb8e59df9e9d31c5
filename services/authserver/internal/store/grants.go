package store

import (
	"context"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/postgres"
	brokerv1 "chatelaine.dev/proto/broker/v1"
)

// GrantStatus says what a grant is worth.
type GrantStatus string

// The states of a grant.
const (
	GrantPending GrantStatus = "pending" // its code was not redeemed yet
	GrantActive  GrantStatus = "active"
	GrantEnded   GrantStatus = "ended"
)

// Grant is what a login has led to: one session of one user with one client.
type Grant struct {
	ID        string
	SessionID string // the broker's
	UserID    string // the broker's
	ClientID  string
	Status    GrantStatus
	Scopes    []string
	Resources []string
	// ExpiresAt is the absolute end of the session.
	ExpiresAt time.Time
	// ReadAt is the database's clock when the grant was read: the time by which tokens
	// are issued, whatever the clock of this replica says.
	ReadAt time.Time
}

const grantColumns = `g.id, g.session_id, g.user_id, g.client_id, g.status, g.scopes, g.resources, g.expires_at, now()`

func (g *Grant) fields() []any {
	return []any{&g.ID, &g.SessionID, &g.UserID, &g.ClientID, &g.Status, &g.Scopes, &g.Resources, &g.ExpiresAt, &g.ReadAt}
}

// Code is an authorization code as issued.
type Code struct {
	RedirectURI   string // as the client sent it; empty when it sent none
	CodeChallenge string
	RequestedAt   time.Time
	ExpiresAt     time.Time // set by the database, from the lifespan given to CreateCode
	Used          bool
	Legs          []string // the broker's ids; empty when they are not all known
}

// CreateCode stores a pending grant with the code that opens it for lifespan.
func (s *Store) CreateCode(ctx context.Context, signature string, g Grant, c Code, lifespan time.Duration) error {
	return s.InTx(ctx, func(ctx context.Context) error {
		tag, err := s.db(ctx).Exec(ctx, `UPDATE authserver.clients SET used_at = now() WHERE id = $1`, g.ClientID)
		if err := affected(tag.RowsAffected(), err); err != nil {
			return err
		}
		// Until the code is redeemed, grant and code end together.
		if _, err := s.db(ctx).Exec(ctx, `
			INSERT INTO authserver.grants (id, session_id, user_id, client_id, status, scopes, resources, expires_at, tokens_until)
			VALUES ($1, $2, $3, $4, 'pending', $5, $6, now() + $7::interval, now() + $7::interval)`,
			g.ID, g.SessionID, g.UserID, g.ClientID, nonNil(g.Scopes), nonNil(g.Resources), lifespan); err != nil {
			return postgres.Fault(err)
		}
		_, err = s.db(ctx).Exec(ctx, `
			INSERT INTO authserver.authorization_codes
				(signature_hash, grant_id, redirect_uri, code_challenge, requested_at, expires_at, legs)
			VALUES ($1, $2, $3, $4, $5, now() + $6::interval, $7)`,
			Digest(signature), g.ID, c.RedirectURI, c.CodeChallenge, c.RequestedAt, lifespan, nonNil(c.Legs))
		return postgres.Fault(err)
	})
}

// Code returns a code, used or not, with its grant, or NotFound.
func (s *Store) Code(ctx context.Context, signature string) (*Code, *Grant, error) {
	var c Code
	var g Grant
	err := s.db(ctx).QueryRow(ctx, `
		SELECT c.redirect_uri, c.code_challenge, c.requested_at, c.expires_at, c.used_at IS NOT NULL, c.legs, `+grantColumns+`
		FROM authserver.authorization_codes c JOIN authserver.grants g ON g.id = c.grant_id
		WHERE c.signature_hash = $1`, Digest(signature)).
		Scan(append([]any{&c.RedirectURI, &c.CodeChallenge, &c.RequestedAt, &c.ExpiresAt, &c.Used, &c.Legs}, g.fields()...)...)
	if err != nil {
		return nil, nil, postgres.Fault(err)
	}
	return &c, &g, nil
}

// Reasons of ConsumeCode and ActivateGrant. Only the first is a sign of theft.
const (
	ReasonCodeUsed        = "code_used"
	ReasonCodeOver        = "code_over"
	ReasonGrantNotPending = "grant_not_pending"
)

// ConsumeCode marks a code as used. It is Conflict when it is used already, and when
// it has expired or its grant ended: of two redemptions at once, one gets through.
func (s *Store) ConsumeCode(ctx context.Context, signature string) error {
	tag, err := s.db(ctx).Exec(ctx, `
		UPDATE authserver.authorization_codes c SET used_at = now()
		FROM authserver.grants g
		WHERE c.signature_hash = $1 AND c.used_at IS NULL AND c.expires_at > now()
			AND g.id = c.grant_id AND g.status = 'pending'`, Digest(signature))
	if err != nil || tag.RowsAffected() > 0 {
		return postgres.Fault(err)
	}
	var used bool
	err = s.db(ctx).QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM authserver.authorization_codes WHERE signature_hash = $1 AND used_at IS NOT NULL)`,
		Digest(signature)).Scan(&used)
	switch {
	case err != nil:
		return postgres.Fault(err)
	case used:
		return fault.New(fault.Conflict, "the authorization code was redeemed already").WithReason(ReasonCodeUsed)
	}
	return fault.New(fault.Conflict, "the authorization code has expired, or its session has ended").WithReason(ReasonCodeOver)
}

// ActivateGrant makes a pending grant active, with the session's absolute end and
// the end of the access token that is issued with it.
func (s *Store) ActivateGrant(ctx context.Context, id string, expiresAt, tokensUntil time.Time) error {
	tag, err := s.db(ctx).Exec(ctx, `
		UPDATE authserver.grants SET status = 'active', expires_at = $2, tokens_until = $3
		WHERE id = $1 AND status = 'pending'`, id, expiresAt, tokensUntil)
	if err == nil && tag.RowsAffected() == 0 {
		return fault.New(fault.Conflict, "the grant is not pending any more").WithReason(ReasonGrantNotPending)
	}
	return postgres.Fault(err)
}

// GrantOfSession returns the grant of a session, in whatever state, or NotFound.
func (s *Store) GrantOfSession(ctx context.Context, sessionID string) (*Grant, error) {
	var g Grant
	err := s.db(ctx).QueryRow(ctx, `
		SELECT `+grantColumns+` FROM authserver.grants g WHERE g.session_id = $1`, sessionID).Scan(g.fields()...)
	if err != nil {
		return nil, postgres.Fault(err)
	}
	return &g, nil
}

// GrantAlive reports whether a session is active, belongs to user and has not
// come to its end, and what the database's clock says.
func (s *Store) GrantAlive(ctx context.Context, sessionID, userID string) (now time.Time, alive bool, err error) {
	if !storable(sessionID) || !storable(userID) {
		return now, false, nil
	}
	err = s.db(ctx).QueryRow(ctx, `
		SELECT now(), EXISTS (SELECT FROM authserver.grants
			WHERE session_id = $1 AND user_id = $2 AND status = 'active' AND expires_at > now())`,
		sessionID, userID).Scan(&now, &alive)
	return now, alive, postgres.Fault(err)
}

// ActingClient returns the client that a living session of the user was granted to,
// empty where there is no such session, and what the database's clock says.
func (s *Store) ActingClient(ctx context.Context, sessionID, userID string) (now time.Time, clientID string, err error) {
	if !storable(sessionID) || !storable(userID) {
		return now, "", nil
	}
	err = s.db(ctx).QueryRow(ctx, `
		SELECT now(), coalesce((SELECT client_id FROM authserver.grants
			WHERE session_id = $1 AND user_id = $2 AND status = 'active' AND expires_at > now()), '')`,
		sessionID, userID).Scan(&now, &clientID)
	return now, clientID, postgres.Fault(err)
}

// EndSession ends the living grant of a session and puts the end into the outbox,
// in one transaction. It reports whether there was one; a second end changes
// nothing.
func (s *Store) EndSession(ctx context.Context, sessionID string, reason brokerv1.SessionEndReason) (ended bool, err error) {
	err = s.InTx(ctx, func(ctx context.Context) error {
		tag, err := s.db(ctx).Exec(ctx, `
			UPDATE authserver.grants SET status = 'ended', ended_at = now()
			WHERE session_id = $1 AND status <> 'ended'`, sessionID)
		if err != nil {
			return postgres.Fault(err)
		}
		if ended = tag.RowsAffected() > 0; !ended {
			return nil
		}
		return s.QueueSessionEnd(ctx, sessionID, reason)
	})
	return ended, err
}

// nonNil is for columns that are NOT NULL: pgx stores a nil slice as NULL.
func nonNil(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}
