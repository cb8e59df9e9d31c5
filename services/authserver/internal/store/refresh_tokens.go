package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/postgres"
)

// RefreshToken is a refresh token as issued.
type RefreshToken struct {
	ExpiresAt time.Time
	// Expired is what the database's clock says, which also decides on a rotation.
	Expired bool
	// Used tells that it was rotated away; Replaceable that this was within the
	// grace window and that its successor was not used.
	Used        bool
	Replaceable bool
	// SealedAnswer carried the successor; nil unless Replaceable.
	SealedAnswer []byte
}

// CreateRefreshToken stores the first refresh token of a grant.
func (s *Store) CreateRefreshToken(ctx context.Context, signature, grantID string, expiresAt time.Time) error {
	_, err := s.db(ctx).Exec(ctx, `
		WITH token AS (
			INSERT INTO authserver.refresh_tokens (signature_hash, grant_id, expires_at) VALUES ($1, $2, $3) RETURNING grant_id, expires_at)
		UPDATE authserver.grants g SET tokens_until = greatest(g.tokens_until, token.expires_at) FROM token WHERE g.id = token.grant_id`,
		Digest(signature), grantID, expiresAt)
	return postgres.Fault(err)
}

// RefreshToken returns a refresh token, used or not, with its grant, or NotFound.
// grace is how long after its use it may be presented again.
func (s *Store) RefreshToken(ctx context.Context, signature string, grace time.Duration) (*RefreshToken, *Grant, error) {
	var t RefreshToken
	var g Grant
	err := s.db(ctx).QueryRow(ctx, `
		SELECT t.expires_at, t.expires_at <= now(), t.used_at IS NOT NULL,
			coalesce(t.used_at > now() - $2::interval AND t.sealed_answer IS NOT NULL AND n.used_at IS NULL, false),
			t.sealed_answer, `+grantColumns+`
		FROM authserver.refresh_tokens t JOIN authserver.grants g ON g.id = t.grant_id
			LEFT JOIN authserver.refresh_tokens n ON n.signature_hash = t.successor_hash
		WHERE t.signature_hash = $1`, Digest(signature), grace).
		Scan(append([]any{&t.ExpiresAt, &t.Expired, &t.Used, &t.Replaceable, &t.SealedAnswer}, g.fields()...)...)
	if err != nil {
		return nil, nil, postgres.Fault(err)
	}
	if !t.Replaceable {
		t.SealedAnswer = nil
	}
	return &t, &g, nil
}

// Rotation replaces a refresh token.
type Rotation struct {
	Old string // signature of the token that was presented
	New string // signature of its successor
	// ExpiresAt of the successor, TokensUntil of all that is issued now.
	ExpiresAt, TokensUntil time.Time
	// SealedAnswer lets whoever holds the old token have the answer again.
	SealedAnswer []byte
	// Burst is how often a new grant may rotate at once, Every how often in the long
	// run: each used token is kept until it expires, to be recognised.
	Burst int
	Every time.Duration
}

// ReasonNotRotated is the reason of RotateRefreshToken's own Conflict; a Conflict with
// another reason says nothing about the token.
const ReasonNotRotated = "refresh_token_used"

// ReasonRotatedTooOften is the reason of RotateRefreshToken's Exhausted.
const ReasonRotatedTooOften = "refreshed_too_often"

// RotateRefreshToken marks a token as used and stores its successor. It is
// Conflict when the token is used, expired or of an ended grant: of two
// rotations at once, one gets through. It is Exhausted, and nothing is spent, when
// the grant was rotated more often than it may.
func (s *Store) RotateRefreshToken(ctx context.Context, grantID string, r Rotation) error {
	return s.InTx(ctx, func(ctx context.Context) error {
		batch := &pgx.Batch{}
		// Its predecessor's answer would hand out this very token: it is spent now.
		batch.Queue(`
			UPDATE authserver.refresh_tokens SET sealed_answer = NULL
			WHERE successor_hash = $1 AND sealed_answer IS NOT NULL`, Digest(r.Old))
		batch.Queue(`
			INSERT INTO authserver.refresh_tokens (signature_hash, grant_id, expires_at) VALUES ($1, $2, $3)`,
			Digest(r.New), grantID, r.ExpiresAt)
		batch.Queue(`
			UPDATE authserver.grants SET tokens_until = greatest(tokens_until, $2), rotations = rotations + 1 WHERE id = $1`, grantID, r.TokensUntil)
		batch.Queue(`
			UPDATE authserver.clients c SET used_at = now() FROM authserver.grants g WHERE g.id = $1 AND c.id = g.client_id`, grantID)

		tag, err := s.db(ctx).Exec(ctx, `
			UPDATE authserver.refresh_tokens t SET used_at = now(), successor_hash = $2, sealed_answer = $3
			FROM authserver.grants g
			WHERE t.signature_hash = $1 AND t.used_at IS NULL AND t.expires_at > now()
				AND g.id = t.grant_id AND g.id = $4 AND g.status = 'active' AND `+mayRotate("$5", "$6"),
			Digest(r.Old), Digest(r.New), r.SealedAnswer, grantID, r.Burst, r.Every)
		if err != nil {
			return postgres.Fault(err)
		}
		if tag.RowsAffected() == 0 {
			return s.notRotated(ctx, grantID, r)
		}
		return postgres.Fault(s.db(ctx).(pgx.Tx).SendBatch(ctx, batch).Close())
	})
}

// mayRotate is the condition on a grant g that its rotations are not too many.
func mayRotate(burst, every string) string {
	return `g.rotations < ` + burst + ` + floor(extract(epoch FROM now() - g.created_at) / extract(epoch FROM ` + every + `::interval))`
}

// notRotated says why a token was not rotated.
func (s *Store) notRotated(ctx context.Context, grantID string, r Rotation) error {
	var often bool
	err := s.db(ctx).QueryRow(ctx, `
		SELECT EXISTS (SELECT FROM authserver.grants g WHERE g.id = $1 AND NOT `+mayRotate("$2", "$3")+`)`,
		grantID, r.Burst, r.Every).Scan(&often)
	switch {
	case err != nil:
		return postgres.Fault(err)
	case often:
		return fault.New(fault.Exhausted, "the tokens of this login were refreshed too often").
			WithReason(ReasonRotatedTooOften).WithRetryAfter(r.Every)
	}
	return fault.New(fault.Conflict, "the refresh token was used already, or has ended").WithReason(ReasonNotRotated)
}
