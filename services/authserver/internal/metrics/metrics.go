package metrics

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/authserver/internal/store"
)

const scope = "chatelaine.dev/services/authserver"

// backlogTimeout bounds what a scrape may wait for the database.
const backlogTimeout = 2 * time.Second

// Outcomes that are no OAuth error code.
const (
	// Completed: a login that ended with a code.
	Completed = "completed"
	// Abandoned: a login that nobody finished within its ten minutes.
	Abandoned = "abandoned"
	// Issued: tokens that were; Repeated: the same ones again, within the grace.
	Issued   = "issued"
	Repeated = "repeated"
	// Registered: a client that was.
	Registered = "registered"
	// Limited: a request of an address that sent too many.
	Limited = "limited"
)

// Recorder counts. It is safe for concurrent use.
type Recorder struct {
	started, finished, refused, legs, tokens, registrations, ended metric.Int64Counter
}

// Backlog tells what waits in the database.
type Backlog interface {
	Backlog(ctx context.Context) (store.Backlog, error)
}

// New makes the instruments; backlog is asked when somebody reads the metrics.
func New(provider metric.MeterProvider, backlog Backlog) (*Recorder, error) {
	meter := provider.Meter(scope)
	r := &Recorder{}
	for _, c := range []struct {
		counter                 *metric.Int64Counter
		name, unit, description string
	}{
		{&r.started, "logins.started", "{login}", "Authorization requests that passed the checks."},
		{&r.finished, "logins.finished", "{login}", "Logins that are over, by outcome."},
		{&r.refused, "requests.refused", "{request}", "Authorization requests that did not pass the checks, by reason."},
		{&r.legs, "legs", "{leg}", "Steps of legs, by provider and outcome."},
		{&r.tokens, "tokens", "{request}", "Token requests, by grant type and outcome."},
		{&r.registrations, "registrations", "{request}", "Client registrations, by outcome."},
		{&r.ended, "sessions.ended", "{session}", "Sessions that were ended here after their login, by reason."},
	} {
		var err error
		if *c.counter, err = meter.Int64Counter("chatelaine.authserver."+c.name, metric.WithUnit(c.unit), metric.WithDescription(c.description)); err != nil {
			return nil, fault.Wrap(fault.Internal, err, "cannot make a metric")
		}
	}
	return r, watch(meter, backlog)
}

// watch makes the gauges of what waits. All replicas say the same. While the database
// cannot be asked there is no value, which is better than a wrong one.
func watch(meter metric.Meter, backlog Backlog) error {
	gauge := func(name, unit, description string) (metric.Float64ObservableGauge, error) {
		return meter.Float64ObservableGauge("chatelaine.authserver."+name, metric.WithUnit(unit), metric.WithDescription(description))
	}
	length, err := gauge("outbox.length", "{session}", "Ended sessions that the broker has not confirmed.")
	if err != nil {
		return fault.Wrap(fault.Internal, err, "cannot make a metric")
	}
	age, err := gauge("outbox.oldest.age", "s", "How long the oldest of them has waited; 0 when there is none.")
	if err != nil {
		return fault.Wrap(fault.Internal, err, "cannot make a metric")
	}
	pending, err := gauge("logins.pending", "{login}", "Logins that are under way, by what they wait for.")
	if err != nil {
		return fault.Wrap(fault.Internal, err, "cannot make a metric")
	}
	_, err = meter.RegisterCallback(func(ctx context.Context, o metric.Observer) error {
		ctx, cancel := context.WithTimeout(ctx, backlogTimeout)
		defer cancel()
		b, err := backlog.Backlog(ctx)
		if err != nil {
			return nil //nolint:nilerr // readiness says so, and once
		}
		o.ObserveFloat64(length, float64(b.SessionEnds))
		o.ObserveFloat64(age, b.OldestEnd.Seconds())
		for phase, n := range map[store.Phase]int64{store.PhaseConsent: b.Consent, store.PhaseLegs: b.Legs, store.PhaseConfirm: b.Confirm} {
			o.ObserveFloat64(pending, float64(n), metric.WithAttributes(attribute.String("phase", string(phase))))
		}
		return nil
	}, length, age, pending)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "cannot make a metric")
	}
	return nil
}

// LoginStarted counts an authorization request that passed the checks.
func (r *Recorder) LoginStarted(ctx context.Context) {
	if r != nil {
		r.started.Add(ctx, 1)
	}
}

// LoginFinished counts logins that are over: Completed, Abandoned or the OAuth error
// code that the client was told.
func (r *Recorder) LoginFinished(ctx context.Context, outcome string, n int64) {
	if r != nil && n > 0 {
		r.finished.Add(ctx, n, metric.WithAttributes(attribute.String("outcome", outcome)))
	}
}

// RequestRefused counts an authorization request that did not pass the checks.
func (r *Recorder) RequestRefused(ctx context.Context, reason string) {
	if r != nil {
		r.refused.Add(ctx, 1, metric.WithAttributes(attribute.String("reason", reason)))
	}
}

// Leg counts what happened in a leg.
func (r *Recorder) Leg(ctx context.Context, provider, outcome string) {
	if r != nil {
		r.legs.Add(ctx, 1, metric.WithAttributes(attribute.String("provider", provider), attribute.String("outcome", outcome)))
	}
}

// Tokens counts a token request: Issued, Repeated or an OAuth error code. What
// is no grant type of ours counts as other.
func (r *Recorder) Tokens(ctx context.Context, grantType, outcome string) {
	if r == nil {
		return
	}
	switch grantType {
	case "authorization_code", "refresh_token":
	default:
		grantType = "other"
	}
	r.tokens.Add(ctx, 1, metric.WithAttributes(attribute.String("grant_type", grantType), attribute.String("outcome", outcome)))
}

// Registration counts one: Registered, Limited or an error code.
func (r *Recorder) Registration(ctx context.Context, outcome string) {
	if r != nil {
		r.registrations.Add(ctx, 1, metric.WithAttributes(attribute.String("outcome", outcome)))
	}
}

// SessionEnded counts a session that was ended here after its login.
func (r *Recorder) SessionEnded(ctx context.Context, reason string) {
	if r != nil {
		r.ended.Add(ctx, 1, metric.WithAttributes(attribute.String("reason", reason)))
	}
}
