package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"chatelaine.dev/internal/postgres"
	brokerv1 "chatelaine.dev/proto/broker/v1"
)

// SessionEnd is an end of a session that the broker has not confirmed.
type SessionEnd struct {
	SessionID string
	Reason    brokerv1.SessionEndReason
	Failed    FailedLeg
	// Attempts counts this claim.
	Attempts int
}

// FailedLeg is the leg that ended a login. The zero value means that none did, or
// that the broker has a record of it.
type FailedLeg struct {
	Provider string
	Reason   brokerv1.SkipReason
}

// QueueSessionEnd puts the end of a session into the outbox. The first reason counts.
func (s *Store) QueueSessionEnd(ctx context.Context, sessionID string, reason brokerv1.SessionEndReason) error {
	return s.queue(ctx, sessionID, reason, FailedLeg{})
}

// QueueChainEnd does the same for a login that came to nothing.
func (s *Store) QueueChainEnd(ctx context.Context, sessionID string, failed FailedLeg) error {
	return s.queue(ctx, sessionID, brokerv1.SessionEndReason_SESSION_END_REASON_CHAIN_FAILED, failed)
}

func (s *Store) queue(ctx context.Context, sessionID string, reason brokerv1.SessionEndReason, failed FailedLeg) error {
	_, err := s.db(ctx).Exec(ctx, `
		INSERT INTO authserver.session_ends (session_id, reason, failed_provider, failed_reason) VALUES ($1, $2, $3, $4)
		ON CONFLICT (session_id) DO NOTHING`,
		sessionID, int16(reason), failed.Provider, int16(failed.Reason)) //nolint:gosec // enums of less than ten values
	return postgres.Fault(err)
}

// urgentEnds come before all others: somebody may be using a session that a thief
// has, or that its client has given up.
func urgentEnds() []int16 {
	return []int16{
		int16(brokerv1.SessionEndReason_SESSION_END_REASON_REFRESH_TOKEN_REUSED),
		int16(brokerv1.SessionEndReason_SESSION_END_REASON_CODE_REPLAYED),
		int16(brokerv1.SessionEndReason_SESSION_END_REASON_CLIENT_REVOKED),
	}
}

// ClaimSessionEnds takes up to limit ends that are due, urgent ones first. Other
// replicas do not see them before lease has passed, after which they are due again.
func (s *Store) ClaimSessionEnds(ctx context.Context, limit int, lease time.Duration) ([]SessionEnd, error) {
	rows, err := s.db(ctx).Query(ctx, `
		UPDATE authserver.session_ends SET attempts = attempts + 1, next_attempt_at = now() + $2::interval
		WHERE session_id IN (
			SELECT session_id FROM authserver.session_ends WHERE next_attempt_at <= now()
			ORDER BY (reason = ANY ($3)) DESC, next_attempt_at LIMIT $1 FOR UPDATE SKIP LOCKED)
		RETURNING session_id, reason, failed_provider, failed_reason, attempts`, limit, lease, urgentEnds())
	if err != nil {
		return nil, postgres.Fault(err)
	}
	ends, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e SessionEnd, err error) {
		var reason, failed int16
		err = row.Scan(&e.SessionID, &reason, &e.Failed.Provider, &failed, &e.Attempts)
		e.Reason, e.Failed.Reason = brokerv1.SessionEndReason(reason), brokerv1.SkipReason(failed)
		return e, err
	})
	return ends, postgres.Fault(err)
}

// SessionEndDone removes an end that the broker has confirmed.
func (s *Store) SessionEndDone(ctx context.Context, sessionID string) error {
	_, err := s.db(ctx).Exec(ctx, `DELETE FROM authserver.session_ends WHERE session_id = $1`, sessionID)
	return postgres.Fault(err)
}

// RetrySessionEnd makes an end due again after a pause.
func (s *Store) RetrySessionEnd(ctx context.Context, sessionID string, after time.Duration) error {
	_, err := s.db(ctx).Exec(ctx, `
		UPDATE authserver.session_ends SET next_attempt_at = now() + $2::interval WHERE session_id = $1`, sessionID, after)
	return postgres.Fault(err)
}
