package store

import (
	"context"
	"time"

	"chatelaine.dev/internal/postgres"
	brokerv1 "chatelaine.dev/proto/broker/v1"
)

// sweepBatch bounds the rows of one statement, so that none holds locks for long; a
// step is repeated until it finds fewer.
const sweepBatch = 500

// SweepPolicy says how long what is over is kept.
type SweepPolicy struct {
	// EndedGrants are kept for the records of support.
	EndedGrants time.Duration
	// UnusedClients were registered and nobody ever approved a login of theirs;
	// IdleClients once finished one and have no grant any more.
	UnusedClients, IdleClients time.Duration
	// Grace is that of refresh tokens.
	Grace time.Duration
}

// triedClients is how long a client whose login somebody approved, and nobody ever
// finished, is kept after the last attempt: its program remembers the registration.
const triedClients = 7 * 24 * time.Hour

// Swept counts what a sweep has removed.
type Swept struct {
	Requests, Grants, Records, Clients, Keys int64
}

// Sweep removes what has expired: chains that were abandoned and grants without
// a living token (for both, the end of their session goes into the outbox),
// records of ended grants, unused registrations without a grant or a chain, used
// refresh tokens and their answers, and signing keys of which no token is alive.
// Several replicas may sweep at once, beside those who use the rows: what is locked
// waits for the next sweep.
func (s *Store) Sweep(ctx context.Context, p SweepPolicy) (Swept, error) {
	var n Swept
	var uncounted int64
	steps := []struct {
		count *int64
		run   func(ctx context.Context) (int64, error)
	}{
		{&n.Requests, s.sweepRequests},
		{&n.Grants, s.sweepGrants},
		{&n.Records, func(ctx context.Context) (int64, error) { return s.sweepRecords(ctx, p.EndedGrants) }},
		{&n.Clients, func(ctx context.Context) (int64, error) { return s.sweepClients(ctx, p.UnusedClients, p.IdleClients) }},
		{&uncounted, func(ctx context.Context) (int64, error) { return s.sweepAnswers(ctx, p.Grace) }},
		{&uncounted, s.sweepUsedTokens},
		{&n.Keys, s.sweepKeys},
	}
	for _, step := range steps {
		for {
			rows, err := step.run(ctx)
			*step.count += rows
			if err != nil {
				return n, err
			}
			if rows < sweepBatch {
				break
			}
		}
	}
	return n, nil
}

// sweepAnswers erases answers that nobody may fetch again.
func (s *Store) sweepAnswers(ctx context.Context, grace time.Duration) (int64, error) {
	tag, err := s.db(ctx).Exec(ctx, `
		UPDATE authserver.refresh_tokens SET sealed_answer = NULL WHERE signature_hash IN (
			SELECT signature_hash FROM authserver.refresh_tokens
			WHERE sealed_answer IS NOT NULL AND used_at <= now() - $2::interval
			LIMIT $1 FOR UPDATE SKIP LOCKED)`, sweepBatch, grace)
	return tag.RowsAffected(), postgres.Fault(err)
}

// sweepUsedTokens keeps a used token, which shows reuse, as long as it could have
// been used itself.
func (s *Store) sweepUsedTokens(ctx context.Context) (int64, error) {
	tag, err := s.db(ctx).Exec(ctx, `
		DELETE FROM authserver.refresh_tokens WHERE signature_hash IN (
			SELECT signature_hash FROM authserver.refresh_tokens WHERE used_at IS NOT NULL AND expires_at <= now()
			LIMIT $1 FOR UPDATE SKIP LOCKED)`, sweepBatch)
	return tag.RowsAffected(), postgres.Fault(err)
}

func (s *Store) sweepKeys(ctx context.Context) (int64, error) {
	tag, err := s.db(ctx).Exec(ctx, `
		DELETE FROM authserver.signing_keys WHERE kid IN (
			SELECT kid FROM authserver.signing_keys WHERE keep_until <= now() LIMIT $1 FOR UPDATE SKIP LOCKED)`, sweepBatch)
	return tag.RowsAffected(), postgres.Fault(err)
}

// sweepRequests names the leg that a chain was abandoned in: the one under way, unless
// its provider was linked or skipped.
func (s *Store) sweepRequests(ctx context.Context) (rows int64, err error) {
	err = s.db(ctx).QueryRow(ctx, `
		WITH dead AS (
			DELETE FROM authserver.authorization_requests WHERE id IN (
				SELECT id FROM authserver.authorization_requests WHERE expires_at <= now()
				LIMIT $1 FOR UPDATE SKIP LOCKED)
			RETURNING id, session_id, phase, progress),
		queued AS (
			INSERT INTO authserver.session_ends (session_id, reason, failed_provider, failed_reason)
			SELECT d.session_id, $2, coalesce(l.provider, ''), CASE WHEN l.provider IS NULL THEN 0 ELSE $3::smallint END
			FROM dead d LEFT JOIN authserver.legs l ON l.request_id = d.id AND d.phase = 'legs'
				AND d.progress->'providers' @> jsonb_build_array(jsonb_build_object('name', l.provider, 'state', $4::text))
			WHERE d.session_id <> ''
			ON CONFLICT (session_id) DO NOTHING)
		SELECT count(*) FROM dead`,
		sweepBatch, int16(brokerv1.SessionEndReason_SESSION_END_REASON_CHAIN_FAILED),
		int16(brokerv1.SkipReason_SKIP_REASON_ABANDONED), string(LinkMissing)).Scan(&rows)
	return rows, postgres.Fault(err)
}

// sweepGrants leaves a minute between the end of the last token and the end of
// the grant, for clocks that differ.
func (s *Store) sweepGrants(ctx context.Context) (rows int64, err error) {
	err = s.db(ctx).QueryRow(ctx, `
		WITH old AS (
			SELECT id, status FROM authserver.grants
			WHERE status <> 'ended' AND tokens_until <= now() - interval '1 minute'
			LIMIT $1 FOR UPDATE SKIP LOCKED),
		dead AS (
			UPDATE authserver.grants g SET status = 'ended', ended_at = now() FROM old WHERE g.id = old.id
			RETURNING g.session_id, old.status AS was),
		queued AS (
			INSERT INTO authserver.session_ends (session_id, reason)
			SELECT session_id, CASE was WHEN 'pending' THEN $2::smallint ELSE $3::smallint END FROM dead
			ON CONFLICT (session_id) DO NOTHING)
		SELECT count(*) FROM dead`,
		sweepBatch, int16(brokerv1.SessionEndReason_SESSION_END_REASON_CHAIN_FAILED),
		int16(brokerv1.SessionEndReason_SESSION_END_REASON_EXPIRED)).Scan(&rows)
	return rows, postgres.Fault(err)
}

func (s *Store) sweepRecords(ctx context.Context, after time.Duration) (int64, error) {
	tag, err := s.db(ctx).Exec(ctx, `
		DELETE FROM authserver.grants WHERE id IN (
			SELECT id FROM authserver.grants WHERE status = 'ended' AND ended_at <= now() - $2::interval
			LIMIT $1 FOR UPDATE SKIP LOCKED)`, sweepBatch, after)
	return tag.RowsAffected(), postgres.Fault(err)
}

// sweepClients locks the rows first: a chain or grant that is being made holds a
// share lock on its client, which is then skipped.
func (s *Store) sweepClients(ctx context.Context, unused, idle time.Duration) (int64, error) {
	tag, err := s.db(ctx).Exec(ctx, `
		DELETE FROM authserver.clients WHERE id IN (
			SELECT c.id FROM authserver.clients c
			WHERE coalesce(c.used_at <= now() - $3::interval, c.tried_at <= now() - $4::interval, c.created_at <= now() - $2::interval)
				AND NOT EXISTS (SELECT FROM authserver.grants g WHERE g.client_id = c.id)
				AND NOT EXISTS (SELECT FROM authserver.authorization_requests r WHERE r.client_id = c.id)
			LIMIT $1 FOR UPDATE OF c SKIP LOCKED)`, sweepBatch, unused, idle, max(unused, triedClients))
	return tag.RowsAffected(), postgres.Fault(err)
}
