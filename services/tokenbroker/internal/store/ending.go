package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/services/tokenbroker/internal/audit"
)

// endSessions ends sessions whose rows are locked. rec is completed for each.
func endSessions(ctx context.Context, c *change, sessions []Session, endReason string, rec audit.Record) ([]Ended, error) {
	if len(sessions) == 0 {
		return nil, nil
	}
	ids := make([]string, len(sessions))
	for i := range sessions {
		ids[i] = sessions[i].ID
	}
	if _, err := c.Exec(ctx, `
		UPDATE tokenbroker.sessions SET state = 'ended', ended_at = clock_timestamp(), end_reason = $2
		WHERE id = ANY($1)`, ids, endReason); err != nil {
		return nil, err
	}
	if _, err := c.Exec(ctx, `DELETE FROM tokenbroker.session_links WHERE session_id = ANY($1)`, ids); err != nil {
		return nil, err
	}
	rows, err := c.Query(ctx, `
		WITH gone AS (DELETE FROM tokenbroker.staged_legs WHERE session_id = ANY($1) RETURNING *), `+queueGoneLegs+`
		SELECT `+stagedColumns+` FROM gone`, ids)
	if err != nil {
		return nil, err
	}
	legs, err := pgx.CollectRows(rows, scanStaged)
	if err != nil {
		return nil, err
	}
	staged := make(map[string][]StagedLeg, len(legs))
	for _, l := range legs {
		staged[l.SessionID] = append(staged[l.SessionID], l)
	}
	ended := make([]Ended, len(sessions))
	for i := range sessions {
		was := &sessions[i]
		rec.SessionID, rec.UserID, rec.ClientID = was.ID, was.UserID, was.ClientID
		ended[i] = Ended{Changed: true, State: was.State, UserID: was.UserID, Staged: staged[was.ID], Record: rec}
		if was.UserID != "" { // see the package comment
			c.audit(rec)
		}
		if was.State == SessionActive {
			c.sessionEnded(was.ID)
		}
	}
	return ended, nil
}

// endBatch is how many sessions one transaction ends: readers of events wait for it.
const endBatch = 500

// SessionsToEnd says whose sessions EndSessions ends: one user's or everybody's.
type SessionsToEnd struct {
	// UserID is empty with Everybody.
	UserID string
	// Everybody must be said: an empty UserID alone ends nothing.
	Everybody bool
	// Reason is kept with each session, and is the outcome of its record.
	Reason string
	// Record is completed with session, user and client, and kept for each.
	Record audit.Record
	// Each, if set, is given what every committed batch ended, for the log.
	Each func([]Ended)
}

// EndedSessions counts what EndSessions has ended.
type EndedSessions struct {
	// Active sessions, and Pending ones: logins that were under way.
	Active, Pending int
}

// EndSessions ends every session that is not over and began before the call, in
// transactions of at most 500 sessions, each with its events and audit records. It
// may be interrupted, and run again, at any time: the count says what was ended
// also with an error. Errors: Invalid with field user_id unless one of UserID and
// Everybody is set.
func (s *Store) EndSessions(ctx context.Context, which SessionsToEnd) (count EndedSessions, err error) {
	if which.Everybody == (which.UserID != "") {
		return count, fault.New(fault.Invalid, "").WithField("user_id", "name one user, or say that everybody is meant")
	}
	var before time.Time
	if err := s.pool.QueryRow(ctx, `SELECT clock_timestamp()`).Scan(&before); err != nil {
		return count, postgres.Fault(err)
	}
	for more := true; more; {
		var ended []Ended
		ended, more, err = s.endNext(ctx, &which, before)
		if err != nil {
			return count, err
		}
		for i := range ended {
			if ended[i].State == SessionActive {
				count.Active++
			} else {
				count.Pending++
			}
		}
		if which.Each != nil && len(ended) > 0 {
			which.Each(ended)
		}
	}
	return count, nil
}

// endNext ends one batch; more says that there are others.
func (s *Store) endNext(ctx context.Context, which *SessionsToEnd, before time.Time) (ended []Ended, more bool, err error) {
	const matches = `s.state <> 'ended' AND s.created_at <= $1 AND ($2 = '' OR s.user_id = $2)`
	err = s.change(ctx, func(c *change) error {
		// In one order, so that two that run at once do not lock each other out; this
		// one has an index of the sessions that are not over.
		rows, err := c.Query(ctx, `
			SELECT `+sessionColumns+` FROM tokenbroker.sessions s WHERE `+matches+`
			ORDER BY s.expires_at, s.id LIMIT $3 FOR UPDATE`, before, which.UserID, endBatch)
		if err != nil {
			return err
		}
		sessions, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Session, error) { return scanSession(row) })
		if err != nil {
			return err
		}
		rec := which.Record
		rec.Outcome = which.Reason
		if ended, err = endSessions(ctx, c, sessions, which.Reason, rec); err != nil {
			return err
		}
		// Fewer than a batch may also mean that others ended some of it meanwhile.
		return c.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM tokenbroker.sessions s WHERE `+matches+`)`,
			before, which.UserID).Scan(&more)
	})
	return ended, more, err
}
