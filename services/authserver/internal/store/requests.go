package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/postgres"
)

// Phase is how far an authorization request has come.
type Phase string

// The phases, in their order.
const (
	PhaseConsent Phase = "consent" // waiting for the person to approve
	PhaseLegs    Phase = "legs"    // walking through the providers
	PhaseConfirm Phase = "confirm" // waiting for the person to confirm a change of account
)

// AuthorizationRequest is a client's request on its way through the chain.
type AuthorizationRequest struct {
	ID          string
	ClientID    string
	BrowserHash []byte // Digest of the browser's cookie
	Phase       Phase
	SessionID   string // the broker's; empty in PhaseConsent
	UserID      string // the broker's; empty until the primary leg has run
	Params      Params
	Progress    Progress
	// Version counts the changes of the stored request.
	Version int64
	// ExpiresAt is set by the database, from the Lifetime given to CreateRequest.
	ExpiresAt time.Time
}

// Params are the checked parameters of the client's request.
type Params struct {
	// RedirectURI is where the answer goes. RedirectURISent tells whether the
	// client named it, and so must repeat it at the token endpoint.
	RedirectURI     string `json:"redirect_uri"`
	RedirectURISent bool   `json:"redirect_uri_sent"`
	State           string `json:"state,omitempty"`
	// Scopes that will be granted, Resources (RFC 8707) the tokens will be for.
	Scopes        []string `json:"scopes,omitempty"`
	Resources     []string `json:"resources"`
	CodeChallenge string   `json:"code_challenge"`
}

// Progress is what the chain has of each provider, primary first.
type Progress struct {
	Providers []Provider      `json:"providers"`
	Changes   []AccountChange `json:"changes,omitempty"`
}

// Legs are the ids of all legs that the chain has redeemed, or none when it does not
// know them all: brokers of the version before do not say.
func (p *Progress) Legs() []string {
	var ids []string
	for i := range p.Providers {
		if p.Providers[i].State != LinkLinked {
			continue
		}
		if p.Providers[i].LegID == "" {
			return nil
		}
		ids = append(ids, p.Providers[i].LegID)
	}
	return ids
}

// LinkState is what a chain has of one provider.
type LinkState string

// The states of a link.
const (
	LinkMissing LinkState = "missing"
	LinkLinked  LinkState = "linked"
	LinkSkipped LinkState = "skipped"
)

// Provider is an upstream provider as it was when the chain began, and what the
// chain has of it.
type Provider struct {
	Name                  string            `json:"name"`
	OIDC                  bool              `json:"oidc,omitempty"`
	Primary               bool              `json:"primary,omitempty"`
	Optional              bool              `json:"optional,omitempty"`
	Issuer                string            `json:"issuer,omitempty"`
	AuthorizationEndpoint string            `json:"authorization_endpoint"`
	ClientID              string            `json:"client_id"`
	Scopes                []string          `json:"scopes,omitempty"`
	RedirectURI           string            `json:"redirect_uri"`
	Parameters            map[string]string `json:"parameters,omitempty"`
	IssRequired           bool              `json:"iss_required,omitempty"`
	Unavailable           bool              `json:"unavailable,omitempty"`
	State                 LinkState         `json:"state"`
	// LegID is the broker's, of the leg that was redeemed.
	LegID string `json:"leg_id,omitempty"`
}

// AccountChange is a provider where the person arrived with another account.
type AccountChange struct {
	Provider string `json:"provider"`
	Previous string `json:"previous"`
	New      string `json:"new"`
}

// Leg is the walk through one provider.
type Leg struct {
	RequestID   string
	Provider    string
	RedirectURI string
	Sealed      []byte // PKCE verifier and nonce
}

// SpentLeg is a leg whose state has come back.
type SpentLeg struct {
	Provider string
	// Retry says that nothing came of it, and that it may be walked anew; before, it
	// may still be under way.
	Retry bool
}

const requestColumns = `id, client_id, browser_hash, phase, session_id, user_id, params, progress, version, expires_at`

func scanRequest(row pgx.CollectableRow) (AuthorizationRequest, error) {
	var r AuthorizationRequest
	err := row.Scan(&r.ID, &r.ClientID, &r.BrowserHash, &r.Phase, &r.SessionID, &r.UserID, &r.Params, &r.Progress, &r.Version, &r.ExpiresAt)
	return r, err
}

// CreateRequest stores a request in PhaseConsent that expires after lifetime. Its
// client is kept as long.
func (s *Store) CreateRequest(ctx context.Context, r *AuthorizationRequest, lifetime time.Duration) error {
	r.Phase = PhaseConsent
	err := s.db(ctx).QueryRow(ctx, `
		INSERT INTO authserver.authorization_requests (id, client_id, browser_hash, phase, params, progress, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, now() + $7::interval)
		RETURNING expires_at`,
		r.ID, r.ClientID, r.BrowserHash, r.Phase, r.Params, r.Progress, lifetime).Scan(&r.ExpiresAt)
	if postgres.IsForeignKeyViolation(err) {
		return fault.Wrap(fault.NotFound, err, "the client is not registered any more")
	}
	return postgres.Fault(err)
}

// Request returns a live request of this browser, or NotFound.
func (s *Store) Request(ctx context.Context, id string, browserHash []byte) (*AuthorizationRequest, error) {
	if !storable(id) {
		return nil, fault.New(fault.NotFound, "")
	}
	return s.oneRequest(ctx, `
		SELECT `+requestColumns+` FROM authserver.authorization_requests
		WHERE id = $1 AND browser_hash = $2 AND expires_at > now()`, id, browserHash)
}

// ApproveRequest moves a request of this browser from PhaseConsent to PhaseLegs
// with its pending session, and notes that a person wants its client: who merely
// opens a link must not keep a registration. It is NotFound unless it was in
// PhaseConsent: of two approvals one wins.
func (s *Store) ApproveRequest(ctx context.Context, id string, browserHash []byte, sessionID string) (*AuthorizationRequest, error) {
	// Once an hour is enough for the note, and keeps logins from waiting for each other.
	return s.oneRequest(ctx, `
		WITH approved AS (
			UPDATE authserver.authorization_requests SET phase = 'legs', session_id = $3, version = version + 1
			WHERE id = $1 AND browser_hash = $2 AND phase = 'consent' AND expires_at > now()
			RETURNING `+requestColumns+`),
		tried AS (
			UPDATE authserver.clients c SET tried_at = now() FROM approved a
			WHERE c.id = a.client_id AND (c.tried_at IS NULL OR c.tried_at <= now() - interval '1 hour'))
		SELECT `+requestColumns+` FROM approved`, id, browserHash, sessionID)
}

// ReasonChanged is the reason of a Conflict: the request is not what the caller has
// read any more.
const ReasonChanged = "request_changed"

// SaveRequest stores phase, user and progress, and counts the version. It is
// NotFound when the chain has ended meanwhile, and Conflict with ReasonChanged when
// somebody else has stored something since r was read.
func (s *Store) SaveRequest(ctx context.Context, r *AuthorizationRequest) error {
	tag, err := s.db(ctx).Exec(ctx, `
		UPDATE authserver.authorization_requests SET phase = $2, user_id = $3, progress = $4, version = version + 1
		WHERE id = $1 AND version = $5 AND expires_at > now()`, r.ID, r.Phase, r.UserID, r.Progress, r.Version)
	if err != nil {
		return postgres.Fault(err)
	}
	if tag.RowsAffected() == 0 {
		if _, err := s.Request(ctx, r.ID, r.BrowserHash); err != nil {
			return err
		}
		return fault.New(fault.Conflict, "the request was changed at the same time").WithReason(ReasonChanged)
	}
	r.Version++
	return nil
}

// TakeRequest removes a request, its leg with it, and returns it. It is NotFound
// when somebody else took it, or when it expired: a request ends once.
func (s *Store) TakeRequest(ctx context.Context, id string, browserHash []byte) (*AuthorizationRequest, error) {
	return s.oneRequest(ctx, `
		DELETE FROM authserver.authorization_requests
		WHERE id = $1 AND browser_hash = $2 AND expires_at > now()
		RETURNING `+requestColumns, id, browserHash)
}

func (s *Store) oneRequest(ctx context.Context, sql string, args ...any) (*AuthorizationRequest, error) {
	rows, err := s.db(ctx).Query(ctx, sql, args...)
	if err != nil {
		return nil, postgres.Fault(err)
	}
	r, err := pgx.CollectExactlyOneRow(rows, scanRequest)
	if err != nil {
		return nil, postgres.Fault(err)
	}
	return &r, nil
}

// StartLeg stores the leg of a request under its state; a leg that was under way
// is replaced, so that its state is worth nothing any more.
func (s *Store) StartLeg(ctx context.Context, state string, leg Leg) error {
	tag, err := s.db(ctx).Exec(ctx, `
		INSERT INTO authserver.legs (state_hash, request_id, provider, redirect_uri, sealed)
		SELECT $1, r.id, $3, $4, $5 FROM authserver.authorization_requests r
		WHERE r.id = $2 AND r.phase = 'legs' AND r.expires_at > now()
		ON CONFLICT (request_id) DO UPDATE SET state_hash = excluded.state_hash, provider = excluded.provider,
			redirect_uri = excluded.redirect_uri, sealed = excluded.sealed, retry_at = NULL`,
		Digest(state), leg.RequestID, leg.Provider, leg.RedirectURI, leg.Sealed)
	return affected(tag.RowsAffected(), err)
}

// TakeLeg spends a state and returns the leg, with its request, when state, browser
// and one of the providers fit, the state was not spent before, and the request
// walks through its legs and has not expired. Otherwise it is NotFound and nothing
// has changed: a callback in another browser cannot spoil the leg. The leg may be
// walked anew when nothing came of it within busy.
func (s *Store) TakeLeg(ctx context.Context, state string, providers []string, browserHash []byte, busy time.Duration) (*Leg, *AuthorizationRequest, error) {
	rows, err := s.db(ctx).Query(ctx, `
		UPDATE authserver.legs l SET retry_at = now() + $4::interval FROM authserver.authorization_requests r
		WHERE l.state_hash = $1 AND l.retry_at IS NULL AND l.provider = ANY ($2) AND r.id = l.request_id AND r.browser_hash = $3
			AND r.phase = 'legs' AND r.expires_at > now()
		RETURNING l.request_id, l.provider, l.redirect_uri, l.sealed,
			r.id, r.client_id, r.browser_hash, r.phase, r.session_id, r.user_id, r.params, r.progress, r.version, r.expires_at`,
		Digest(state), providers, browserHash, busy)
	if err != nil {
		return nil, nil, postgres.Fault(err)
	}
	type taken struct {
		leg Leg
		req AuthorizationRequest
	}
	t, err := pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (t taken, err error) {
		r := &t.req
		err = row.Scan(&t.leg.RequestID, &t.leg.Provider, &t.leg.RedirectURI, &t.leg.Sealed,
			&r.ID, &r.ClientID, &r.BrowserHash, &r.Phase, &r.SessionID, &r.UserID, &r.Params, &r.Progress, &r.Version, &r.ExpiresAt)
		return t, err
	})
	if err != nil {
		return nil, nil, postgres.Fault(err)
	}
	return &t.leg, &t.req, nil
}

// ReleaseLeg says that nothing came of a leg whose state was spent.
func (s *Store) ReleaseLeg(ctx context.Context, state string) error {
	_, err := s.db(ctx).Exec(ctx, `
		UPDATE authserver.legs SET retry_at = now() WHERE state_hash = $1 AND retry_at > now()`, Digest(state))
	return postgres.Fault(err)
}

// SpentLeg returns the request of this browser whose last leg had this state, which
// was spent, or NotFound.
func (s *Store) SpentLeg(ctx context.Context, state string, providers []string, browserHash []byte) (*AuthorizationRequest, SpentLeg, error) {
	var leg SpentLeg
	var id string
	err := s.db(ctx).QueryRow(ctx, `
		SELECT l.request_id, l.provider, l.retry_at <= now()
		FROM authserver.legs l JOIN authserver.authorization_requests r ON r.id = l.request_id
		WHERE l.state_hash = $1 AND l.retry_at IS NOT NULL AND l.provider = ANY ($2) AND r.browser_hash = $3 AND r.expires_at > now()`,
		Digest(state), providers, browserHash).Scan(&id, &leg.Provider, &leg.Retry)
	if err != nil {
		return nil, SpentLeg{}, postgres.Fault(err)
	}
	req, err := s.Request(ctx, id, browserHash)
	return req, leg, err
}

// LegElsewhere reports whether a state is alive in another browser than this one:
// what an error page needs to know.
func (s *Store) LegElsewhere(ctx context.Context, state string, browserHash []byte) (bool, error) {
	var elsewhere bool
	err := s.db(ctx).QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM authserver.legs l JOIN authserver.authorization_requests r ON r.id = l.request_id
			WHERE l.state_hash = $1 AND l.retry_at IS NULL AND r.browser_hash <> $2 AND r.expires_at > now())`, Digest(state), browserHash).Scan(&elsewhere)
	return elsewhere, postgres.Fault(err)
}

// affected turns "no row changed" into NotFound.
func affected(rows int64, err error) error {
	if err != nil {
		return postgres.Fault(err)
	}
	if rows == 0 {
		return fault.New(fault.NotFound, "")
	}
	return nil
}
