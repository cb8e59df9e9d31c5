package audit

import (
	"context"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/rpc"
	"chatelaine.dev/internal/telemetry"
)

// Action says what was done.
type Action string

// The actions, as in broker.v1.AuditRecord.
const (
	LegRedeemed             Action = "leg.redeemed"
	LegSkipped              Action = "leg.skipped"
	LegFailed               Action = "leg.failed"
	SessionActivated        Action = "session.activated"
	SessionEnded            Action = "session.ended"
	CredentialIssued        Action = "credential.issued"
	CredentialRefused       Action = "credential.refused"
	ConnectionRefreshed     Action = "connection.refreshed"
	ConnectionRefreshFailed Action = "connection.refresh_failed"
	ConnectionDisconnected  Action = "connection.disconnected"
	// RevocationFailed: a provider was not told that tokens are given up.
	RevocationFailed Action = "revocation.failed"
)

// Success is the outcome of what worked. Other outcomes are reasons, such as
// CONNECTION_REQUIRED.
const Success = "success"

// Abandoned is the outcome of a leg that nobody came back from; see broker.v1.SkipReason.
const Abandoned = "ABANDONED"

// Record is one thing that was done. Peer and TraceID are filled in from the
// context where they are empty. Fields that do not apply stay empty.
type Record struct {
	// ID and Time are the store's; a new record has neither.
	ID   int64
	Time time.Time

	Action       Action
	Outcome      string
	UserID       string
	SessionID    string
	ClientID     string
	Backend      string
	Provider     string
	ConnectionID string
	// Strategy of a credential: upstreamInject, tokenExchange …
	Strategy string
	// Peer is the service that asked: authserver, gateway, operator; empty for
	// what the broker does on its own.
	Peer string
	// TraceID is 32 hex digits.
	TraceID string
}

// Outcome returns Success for nil, else the error's reason, else its kind.
func Outcome(err error) string {
	if err == nil {
		return Success
	}
	if reason := fault.ReasonOf(err); reason != "" {
		return reason
	}
	return fault.KindOf(err).String()
}

// Store keeps records.
type Store interface {
	// InsertAudit returns once the records are durable.
	InsertAudit(ctx context.Context, records ...Record) error
}

// Recorder keeps records, logs and counts them. It is safe for concurrent use.
type Recorder struct {
	store   Store
	log     *slog.Logger
	counter metric.Int64Counter
}

// NewRecorder returns a recorder that counts nothing.
func NewRecorder(store Store, log *slog.Logger) *Recorder {
	return &Recorder{store: store, log: log, counter: noop.Int64Counter{}}
}

// NewCountingRecorder returns a recorder that counts records by action, outcome,
// provider and backend.
func NewCountingRecorder(store Store, log *slog.Logger, meter metric.MeterProvider) (*Recorder, error) {
	counter, err := meter.Meter("chatelaine.dev/services/tokenbroker/internal/audit").Int64Counter(
		"chatelaine.tokenbroker.audit.records", metric.WithUnit("{record}"),
		metric.WithDescription("Audit records: what was done, by action, outcome, provider and backend."))
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "cannot make the audit metric")
	}
	return &Recorder{store: store, log: log, counter: counter}, nil
}

// Record inserts the record and logs it. When it fails, what the record is
// about must not be handed out.
func (r *Recorder) Record(ctx context.Context, rec Record) error {
	rec = rec.Complete(ctx)
	if err := r.store.InsertAudit(ctx, rec); err != nil {
		return err
	}
	r.Log(ctx, rec)
	return nil
}

// Log writes the line of a record that the store already has, and counts it.
func (r *Recorder) Log(ctx context.Context, rec Record) {
	rec = rec.Complete(ctx)
	telemetry.Audit(ctx, r.log, string(rec.Action), rec.Outcome, // the handler adds trace_id
		slog.String("user_id", rec.UserID), slog.String("session_id", rec.SessionID), slog.String("client_id", rec.ClientID),
		slog.String("backend", rec.Backend), slog.String("provider", rec.Provider), slog.String("connection_id", rec.ConnectionID),
		slog.String("strategy", rec.Strategy), slog.String("peer", rec.Peer))
	r.count(ctx, &rec)
}

func (r *Recorder) count(ctx context.Context, rec *Record) {
	backend := rec.Backend
	if rec.Strategy == "" { // not one of the configuration's: it could be any text
		backend = ""
	}
	r.counter.Add(ctx, 1, metric.WithAttributes(
		attribute.String("action", string(rec.Action)), attribute.String("outcome", rec.Outcome),
		attribute.String("provider", rec.Provider), attribute.String("backend", backend)))
}

// Complete returns the record with the peer's name and the trace id of ctx
// where it has none.
func (rec Record) Complete(ctx context.Context) Record {
	if rec.Peer == "" {
		rec.Peer, _ = rpc.PeerName(ctx)
	}
	if rec.TraceID == "" {
		if span := trace.SpanContextFromContext(ctx); span.HasTraceID() {
			rec.TraceID = span.TraceID().String()
		}
	}
	return rec
}
