package store

import (
	"context"
	"crypto/rand"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/reason"
)

// Store is the broker's database. It is safe for concurrent use.
type Store struct{ pool *pgxpool.Pool }

// New returns a store on a pool whose database has the schema.
func New(pool *pgxpool.Pool) *Store { return &Store{pool: pool} }

// Prefixes of ids, so that people can tell them apart.
const (
	prefixUser       = "usr_"
	prefixSession    = "ses_"
	prefixConnection = "con_"
	prefixLeg        = "leg_"
)

// newID returns a random id of 130 bits.
func newID(prefix string) string { return prefix + strings.ToLower(rand.Text()) }

// NewConnectionID and NewLegID return ids for rows whose tokens are sealed before
// the row exists.
func NewConnectionID() string { return newID(prefixConnection) }

// NewLegID returns the id of a new staged leg.
func NewLegID() string { return newID(prefixLeg) }

// change is a transaction that may append events and audit records.
type change struct {
	pgx.Tx
	events  []Event
	records []audit.Record
}

func (c *change) sessionEnded(id string) { c.events = append(c.events, Event{SessionID: id}) }

func (c *change) sessionChanged(id string) { c.events = append(c.events, Event{ChangedSessionID: id}) }

func (c *change) connectionChanged(id string) { c.events = append(c.events, Event{ConnectionID: id}) }

func (c *change) audit(rec audit.Record) { c.records = append(c.records, rec) }

// change runs fn in a transaction that ends with its audit records and, last
// because of the counter's lock, its events.
func (s *Store) change(ctx context.Context, fn func(*change) error) error {
	return postgres.Fault(postgres.InTx(ctx, s.pool, pgx.TxOptions{}, func(tx pgx.Tx) error {
		c := &change{Tx: tx}
		if err := fn(c); err != nil {
			return err
		}
		if err := insertAudit(ctx, tx, c.records); err != nil {
			return err
		}
		return appendEvents(ctx, tx, c.events)
	}))
}

// errStale says that what a change was prepared with is no longer so; prepare again.
var errStale = fault.New(fault.Conflict, "somebody else changed it at the same time").WithReason("stale")

// IsStale reports that a change was prepared with rows that changed since.
func IsStale(err error) bool {
	return fault.ReasonOf(err) == errStale.Reason && fault.KindOf(err) == fault.Conflict
}

func sessionNotFound() *fault.Error {
	return fault.New(fault.NotFound, "there is no such session").WithReason(reason.SessionNotFound)
}

func sessionEnded() *fault.Error {
	return fault.New(fault.Precondition, "the session has ended").WithReason(reason.SessionEnded)
}

func connectionNotFound() *fault.Error {
	return fault.New(fault.NotFound, "there is no such connection").WithReason(reason.ConnectionNotFound)
}

// timeOrNull maps Go's zero time to NULL.
func timeOrNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// textOrNull maps "" to NULL.
func textOrNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// or returns *p, or the zero value for NULL.
func or[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}

// textArray maps nil to an empty array.
func textArray(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// seconds is how durations go into SQL: make_interval(secs => $n).
func seconds(d time.Duration) float64 { return d.Seconds() }
