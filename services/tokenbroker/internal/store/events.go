package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/services/tokenbroker/internal/reason"
)

// EventChannel is the NOTIFY channel on which a commit with events wakes readers.
const EventChannel = "tokenbroker_events"

// appendEvents must be the last statement of a transaction: it takes the lock on
// the counter, which serializes it with every other that appends.
func appendEvents(ctx context.Context, tx pgx.Tx, events []Event) error {
	if len(events) == 0 {
		return nil
	}
	ended := make([]*string, len(events))
	changed := make([]*string, len(events))
	connections := make([]*string, len(events))
	for i, e := range events {
		ended[i], changed[i], connections[i] = textOrNull(e.SessionID), textOrNull(e.ChangedSessionID), textOrNull(e.ConnectionID)
	}
	_, err := tx.Exec(ctx, `
		WITH head AS (
			UPDATE tokenbroker.event_head SET position = position + $1 RETURNING position - $1 AS base
		), appended AS (
			INSERT INTO tokenbroker.events (position, kind, session_id, changed_session_id, connection_id)
			SELECT head.base + e.n, CASE
					WHEN e.session_id IS NOT NULL THEN 'session_ended'
					WHEN e.changed_session_id IS NOT NULL THEN 'session_changed'
					ELSE 'connection_changed' END,
				e.session_id, e.changed_session_id, e.connection_id
			FROM head, unnest($2::text[], $3::text[], $4::text[])
				WITH ORDINALITY AS e(session_id, changed_session_id, connection_id, n)
		)
		SELECT pg_notify($5, '')`,
		len(events), ended, changed, connections, EventChannel)
	return err
}

// EventsAfter returns at most limit events after a position, in order, and the
// head of the log at that moment. Positions have no gaps, so a position from
// which no complete sequence can be read (swept, or of another database) shows,
// and is Precondition with reason POSITION_UNKNOWN.
func EventsAfter(ctx context.Context, db postgres.Querier, position int64, limit int) (events []Event, head int64, err error) {
	rows, err := db.Query(ctx, `
		SELECT h.position, coalesce(e.position, 0), coalesce(e.session_id, ''), coalesce(e.changed_session_id, ''),
			coalesce(e.connection_id, '')
		FROM tokenbroker.event_head h
		LEFT JOIN LATERAL (
			SELECT * FROM tokenbroker.events WHERE position > $1 ORDER BY position LIMIT $2
		) e ON true
		ORDER BY e.position`, position, limit)
	if err != nil {
		return nil, 0, postgres.Fault(err)
	}
	var e Event
	_, err = pgx.ForEachRow(rows, []any{&head, &e.Position, &e.SessionID, &e.ChangedSessionID, &e.ConnectionID}, func() error {
		if e.Position != 0 {
			events = append(events, e)
		}
		return nil
	})
	if err != nil {
		return nil, 0, postgres.Fault(err)
	}
	if len(events) == 0 && position == head || len(events) > 0 && events[0].Position == position+1 {
		return events, head, nil
	}
	return nil, 0, fault.New(fault.Precondition, "the event log cannot resume there: drop what is cached and watch from 0").
		WithReason(reason.PositionUnknown)
}

// EventsAfter is the function of the same name on the store's pool.
func (s *Store) EventsAfter(ctx context.Context, position int64, limit int) ([]Event, int64, error) {
	return EventsAfter(ctx, s.pool, position, limit)
}

// Head returns the position of the newest event; 0 before the first.
func Head(ctx context.Context, db postgres.Querier) (position int64, err error) {
	err = db.QueryRow(ctx, `SELECT position FROM tokenbroker.event_head`).Scan(&position)
	return position, postgres.Fault(err)
}

// skippedPositions is more than a log can have lost.
const skippedPositions = 1 << 32

// SkipPositions moves the head of the log far ahead and wakes its readers. A database
// that lost its newest events would give their positions to others, so that who has
// read the lost ones would take the new ones for known: past the gap they are told
// that their position is unknown, and start anew.
func (s *Store) SkipPositions(ctx context.Context) (head int64, err error) {
	err = s.pool.QueryRow(ctx, `
		WITH head AS (UPDATE tokenbroker.event_head SET position = position + $1 RETURNING position)
		SELECT position FROM head, pg_notify($2, '')`, int64(skippedPositions), EventChannel).Scan(&head)
	return head, postgres.Fault(err)
}

// EndedSessions returns the sessions that ended within the past, and the head
// that this answer has taken into account: later ends have higher positions.
func (s *Store) EndedSessions(ctx context.Context, within time.Duration) (ended []Event, head int64, err error) {
	// One statement, one snapshot: the head's row comes along with every event's.
	rows, err := s.pool.Query(ctx, `
		SELECT h.position, coalesce(e.position, 0), coalesce(e.session_id, '')
		FROM tokenbroker.event_head h
		LEFT JOIN tokenbroker.events e
			ON e.kind = 'session_ended' AND e.created_at > clock_timestamp() - make_interval(secs => $1)
		ORDER BY e.position`, seconds(within))
	if err != nil {
		return nil, 0, postgres.Fault(err)
	}
	var e Event
	_, err = pgx.ForEachRow(rows, []any{&head, &e.Position, &e.SessionID}, func() error {
		if e.SessionID != "" {
			ended = append(ended, e)
		}
		return nil
	})
	return ended, head, postgres.Fault(err)
}
