package refresh

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"
	"golang.org/x/sync/singleflight"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/seal"
	"chatelaine.dev/services/tokenbroker/internal/store"
	"chatelaine.dev/services/tokenbroker/internal/upstream"
)

// Reader reads what sessions have.
type Reader interface {
	Open(ctx context.Context, sessionID, provider string) (store.Opening, error)
	Connection(ctx context.Context, id string) (*store.Connection, error)
	NoteUse(ctx context.Context, connectionID string) error
	DueConnections(ctx context.Context, of []store.ProviderRealm, limit int) ([]*store.Connection, error)
}

// Leases keeps attempts and their results.
type Leases interface {
	AcquireLease(ctx context.Context, r store.LeaseRequest) (store.Lease, bool, error)
	CommitRenewal(ctx context.Context, r store.Renewal) (committed bool, err error)
	FailRenewal(ctx context.Context, f store.FailedRenewal) error
	RequireReauthentication(ctx context.Context, r store.Refusal) (changed bool, err error)
	// QueueRevocation gives up tokens that found no place.
	QueueRevocation(ctx context.Context, r store.Revocation) error
}

// Provider renews tokens.
type Provider interface {
	Refresh(ctx context.Context, r upstream.RefreshRequest) (upstream.Grant, error)
	RefreshInDoubt() string
	Primary() bool
}

// Sealer seals and opens tokens.
type Sealer interface {
	SealTokens(ctx context.Context, t seal.Tokens, at seal.Place) (seal.Sealed, error)
	OpenTokens(ctx context.Context, sealed seal.Sealed, at seal.Place) (seal.Tokens, error)
}

// Config makes a Refresher. Fields are required unless they say otherwise.
type Config struct {
	Reader Reader
	Leases Leases
	Sealer Sealer
	// Find returns the configured provider of that name if it has that realm: a
	// name that was pointed elsewhere must not get the old provider's tokens.
	Find func(name, realm string) (Provider, error)
	// Providers lists what Find finds, for Run.
	Providers func() []store.ProviderRealm
	// PrimaryName returns the primary provider's name.
	PrimaryName func() string
	// LockOnPrimary says whether a certain invalid_grant of the primary provider
	// locks the user's sessions.
	LockOnPrimary func() bool
	Audit         *audit.Recorder
	Logger        *slog.Logger
	// Meter counts attempts; nil counts none.
	Meter metric.MeterProvider

	// CallTimeout is the hard deadline of an upstream call, counted from before the
	// lease is taken; zero means DefaultCallTimeout.
	CallTimeout time.Duration
	// Lease is how long one is held; zero means DefaultLease. It must be longer
	// than CallTimeout.
	Lease time.Duration
	// ForcedInterval is how long after a forced renewal there is no other of the
	// same connection; zero means DefaultForcedInterval.
	ForcedInterval time.Duration
}

// Defaults of Config.
const (
	DefaultCallTimeout    = 10 * time.Second
	DefaultLease          = 20 * time.Second
	DefaultForcedInterval = 10 * time.Second
)

const (
	// maxDoubtful is how many attempts follow one whose result nobody knows.
	maxDoubtful = 1
	// pollEvery is how often a waiter looks whether another replica is done.
	pollEvery = 100 * time.Millisecond
	// patience is how long a caller with a token that is still valid waits for its
	// successor.
	patience = 2 * time.Second
	// spare is how long a token must live on to be served without its successor.
	spare = 5 * time.Second
	// commitFor is how long a result is tried to be committed: it may hold the only
	// valid token.
	commitFor = 2 * time.Minute
)

// Refresher opens what sessions may use and keeps it fresh. It is safe for
// concurrent use.
type Refresher struct {
	cfg    Config
	flight singleflight.Group
	// inFlight counts attempts, which outlive their callers.
	inFlight atomic.Int64
	attempts metric.Int64Counter
}

// New returns a refresher.
func New(cfg Config) *Refresher {
	if cfg.CallTimeout == 0 {
		cfg.CallTimeout = DefaultCallTimeout
	}
	if cfg.Lease == 0 {
		cfg.Lease = DefaultLease
	}
	if cfg.ForcedInterval == 0 {
		cfg.ForcedInterval = DefaultForcedInterval
	}
	if cfg.Meter == nil {
		cfg.Meter = noop.NewMeterProvider()
	}
	attempts, err := cfg.Meter.Meter("chatelaine.dev/services/tokenbroker/internal/refresh").Int64Counter(
		"chatelaine.tokenbroker.refresh.attempts", metric.WithUnit("{attempt}"),
		metric.WithDescription("Attempts at renewing connections, by provider and outcome."))
	if err != nil { // the API's contract: what came back counts nothing
		cfg.Logger.Error("renewals are not counted", fault.Attr(err))
	}
	return &Refresher{cfg: cfg, attempts: attempts}
}

// finished logs and counts an attempt whose record the store has.
func (r *Refresher) finished(ctx context.Context, rec audit.Record) {
	r.cfg.Audit.Log(ctx, rec)
	r.attempts.Add(ctx, 1, metric.WithAttributes(
		attribute.String("provider", rec.Provider), attribute.String("outcome", rec.Outcome)))
}

// Token returns what a session may use at a provider, renewed when it is due.
// Errors: Precondition with reason SESSION_ENDED, CONNECTION_REQUIRED or
// REAUTHENTICATION_REQUIRED, Unavailable with reason UPSTREAM_UNAVAILABLE; those
// about a provider name it in metadata["provider"].
func (r *Refresher) Token(ctx context.Context, sessionID, provider string) (Token, error) {
	opening, err := r.open(ctx, sessionID, provider)
	if err != nil {
		return Token{}, err
	}
	if c := opening.Connection; c.Clock.Due || c.Clock.Expired {
		if err := r.renewDue(ctx, c); err != nil {
			return Token{}, err
		}
		if opening, err = r.open(ctx, sessionID, provider); err != nil {
			return Token{}, err
		}
	}
	c := opening.Connection
	if c.Clock.Expired {
		return Token{}, unavailable(provider, c.Clock.RetryIn)
	}
	tokens, err := r.cfg.Sealer.OpenTokens(ctx, c.Sealed, c.Place())
	if err != nil {
		return Token{}, err
	}
	if !c.Clock.UsedLately {
		if err := r.cfg.Reader.NoteUse(ctx, c.ID); err != nil {
			return Token{}, err
		}
	}
	return Token{
		AccessToken: tokens.AccessToken, IDToken: tokens.IDToken, RefreshToken: tokens.RefreshToken, ExpiresAt: c.Clock.EndsAt, Scopes: c.Scopes, Realm: c.Realm,
		UserID: c.UserID, ConnectionID: c.ID, Version: c.Version,
		ObservedPosition: opening.Session.Position,
	}, nil
}

// open reads what a session has and refuses what it may not use. The connection
// of the result is active, and of the realm that the provider has now.
func (r *Refresher) open(ctx context.Context, sessionID, provider string) (store.Opening, error) {
	o, err := r.cfg.Reader.Open(ctx, sessionID, provider)
	if err != nil {
		return o, err
	}
	c := o.Connection
	switch {
	case o.Session.Locked:
		return o, reauthenticate(r.cfg.PrimaryName())
	case c == nil || c.Status == store.ConnectionDisconnected:
		return o, connectionRequired(provider)
	}
	if _, err := r.cfg.Find(provider, c.Realm); err != nil {
		return o, connectionRequired(provider)
	}
	if c.Status != store.ConnectionActive || (c.Clock.Expired && !c.Refreshable) {
		return o, reauthenticate(provider)
	}
	return o, nil
}

// renewDue renews a connection that is due. With a token that is still good for a
// moment it does not wait for long, and no failure matters but a certain one.
func (r *Refresher) renewDue(ctx context.Context, c *store.Connection) error {
	if !c.Refreshable {
		return nil
	}
	valid := c.Clock.Remaining > spare
	if valid {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	_, err := r.renew(ctx, c.ID, c.Version, false)
	if valid && err != nil && fault.ReasonOf(err) != reason.ReauthenticationRequired {
		r.cfg.Logger.LogAttrs(ctx, slog.LevelInfo, "serving a token that is still valid",
			slog.String("connection_id", c.ID), fault.Attr(err))
		return nil
	}
	return err
}

// Renew renews a connection because a backend refused this version of its token.
// renewed is true when the connection has another version by now, whoever made
// it; false when there is nothing that a renewal could bring. Errors are those of
// Token, and NotFound.
func (r *Refresher) Renew(ctx context.Context, connectionID string, version int64) (renewed bool, err error) {
	return r.renew(ctx, connectionID, version, true)
}

// renew shares one attempt between all callers of this process that ask for the
// same thing.
func (r *Refresher) renew(ctx context.Context, connectionID string, version int64, forced bool) (bool, error) {
	key := fmt.Sprintf("%s %d %t", connectionID, version, forced)
	done := r.flight.DoChan(key, func() (any, error) {
		r.inFlight.Add(1)
		defer r.inFlight.Add(-1)
		// Callers come and go; the attempt belongs to none of them.
		detached, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.cfg.Lease+commitFor)
		defer cancel()
		return r.attempt(detached, connectionID, version, forced)
	})
	select {
	case <-ctx.Done():
		return false, fault.From(ctx.Err())
	case result := <-done:
		renewed, _ := result.Val.(bool)
		return renewed, result.Err
	}
}

// inDoubtRetry reports whether a provider takes a second attempt with a token
// whose first one left no result.
func inDoubtRetry(p Provider) bool { return p.RefreshInDoubt() != config.RefreshInDoubtReauthenticate }

func connectionRequired(provider string) error {
	return fault.Newf(fault.Precondition, "the session has no connection to %s", provider).
		WithReason(reason.ConnectionRequired, reason.Provider, provider)
}

func reauthenticate(provider string) error {
	return fault.Newf(fault.Precondition, "%s asks for a new login", provider).
		WithReason(reason.ReauthenticationRequired, reason.Provider, provider)
}

func unavailable(provider string, retryIn time.Duration) error {
	return fault.Newf(fault.Unavailable, "%s cannot be asked at the moment", provider).
		WithReason(reason.UpstreamUnavailable, reason.Provider, provider).WithRetryAfter(retryIn)
}
