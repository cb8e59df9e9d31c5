package revoke

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/process"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/seal"
	"chatelaine.dev/services/tokenbroker/internal/store"
	"chatelaine.dev/services/tokenbroker/internal/upstream"
	"chatelaine.dev/services/tokenbroker/internal/upstream/endpoint"
)

const (
	// batch is tried at once.
	batch = 16
	// poll finds what was queued, and what became due.
	poll       = time.Second
	firstPause = 2 * time.Second
	maxPause   = 15 * time.Minute
	// noteTimeout bounds writing down what became of an attempt, also while stopping.
	noteTimeout = 3 * time.Second
	// DefaultGiveUpAfter is how long a provider is told again and again.
	DefaultGiveUpAfter = 7 * 24 * time.Hour
)

// Queue has the revocations that are due.
type Queue interface {
	ClaimRevocations(ctx context.Context, limit int, lease time.Duration) ([]store.Revocation, error)
	FinishRevocation(ctx context.Context, r *store.Revocation, rec *audit.Record) (finished bool, err error)
	RetryRevocation(ctx context.Context, r *store.Revocation, after time.Duration) error
	// RealmInUse tells whether something that lives may rest on the same grant; with
	// a userID, whatever that user has in the realm may.
	RealmInUse(ctx context.Context, userID string, account store.Account) (bool, error)
}

// Provider revokes tokens (RFC 7009).
type Provider interface {
	Revoke(ctx context.Context, token secret.String, hint upstream.TokenHint) error
}

// Opener opens sealed tokens.
type Opener interface {
	OpenTokens(ctx context.Context, sealed seal.Sealed, at seal.Place) (seal.Tokens, error)
}

// Config makes a Revoker. Fields are required unless they say otherwise.
type Config struct {
	Queue Queue
	// Find returns the configured provider of a realm.
	Find   func(name, realm string) (Provider, error)
	Opener Opener
	Audit  *audit.Recorder
	Logger *slog.Logger
	// Meter counts what became of revocations; nil counts nothing.
	Meter metric.MeterProvider
	// Timeout is the hard deadline of one request to a provider; zero means
	// endpoint.DefaultTimeout.
	Timeout time.Duration
	// GiveUpAfter is how long a provider is told; zero means DefaultGiveUpAfter.
	GiveUpAfter time.Duration
}

// Revoker tells providers what is given up.
type Revoker struct {
	cfg   Config
	ended metric.Int64Counter
}

// New returns a revoker; Run does its work.
func New(cfg Config) *Revoker {
	if cfg.Timeout == 0 {
		cfg.Timeout = endpoint.DefaultTimeout
	}
	if cfg.GiveUpAfter == 0 {
		cfg.GiveUpAfter = DefaultGiveUpAfter
	}
	if cfg.Meter == nil {
		cfg.Meter = noop.NewMeterProvider()
	}
	ended, err := cfg.Meter.Meter("chatelaine.dev/services/tokenbroker/internal/revoke").Int64Counter(
		"chatelaine.tokenbroker.revocations", metric.WithUnit("{revocation}"),
		metric.WithDescription("Sets of tokens that were given up, by provider and by outcome: told, spared, failed."))
	if err != nil { // the API's contract: what came back counts nothing
		cfg.Logger.Error("revocations are not counted", fault.Attr(err))
	}
	return &Revoker{cfg: cfg, ended: ended}
}

// attemptTimeout bounds one attempt: two requests, with discovery before the first.
func (r *Revoker) attemptTimeout() time.Duration { return 3 * r.cfg.Timeout }

// lease is longer than an attempt and the note of what became of it.
func (r *Revoker) lease() time.Duration { return r.attemptTimeout() + 2*noteTimeout }

// Run revokes what is due until ctx ends.
func (r *Revoker) Run(ctx context.Context) error {
	outage := process.Outage{
		Logger: r.cfg.Logger,
		Fails:  "the queue of revocations cannot be read or written, they wait until it can",
		Works:  "the queue of revocations can be read and written again",
	}
	for {
		more, err := r.Flush(ctx)
		if ctx.Err() != nil {
			return nil
		}
		outage.Note(ctx, err)
		if more && err == nil {
			continue
		}
		timer := time.NewTimer(poll/2 + rand.N(poll/2)) //nolint:gosec // spreads load, guards nothing
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

// Flush tries one batch; more says that there may be another one due.
func (r *Revoker) Flush(ctx context.Context) (more bool, err error) {
	due, err := r.cfg.Queue.ClaimRevocations(ctx, batch, r.lease())
	if err != nil {
		return false, err
	}
	errs := make([]error, len(due))
	var wg sync.WaitGroup
	for i := range due {
		wg.Go(func() { errs[i] = r.handle(ctx, &due[i]) })
	}
	wg.Wait()
	return len(due) == batch, errors.Join(errs...)
}

// What became of a revocation, for the metric.
const (
	told   = "told"
	spared = "spared"
	failed = "failed"
)

// handle makes one attempt and notes how it went. Its error is the queue's: the lease
// brings the revocation back then.
func (r *Revoker) handle(ctx context.Context, rev *store.Revocation) error {
	attempt, cancel := context.WithTimeout(ctx, r.attemptTimeout())
	defer cancel()
	became, err := r.try(attempt, rev)
	stopping := ctx.Err() != nil
	ctx, cancelNote := context.WithTimeout(context.WithoutCancel(ctx), noteTimeout)
	defer cancelNote()
	switch {
	case err == nil:
		return r.finish(ctx, rev, became, nil)
	case stopping:
		return r.cfg.Queue.RetryRevocation(ctx, rev, 0) // another replica's
	case rev.Age >= r.cfg.GiveUpAfter:
		r.cfg.Logger.LogAttrs(ctx, slog.LevelError, "tokens were not revoked at the provider, which is not told again: they end there with their time",
			slog.String("connection_id", rev.ConnectionID), slog.String("provider", rev.Provider), slog.Int("attempts", rev.Attempts), fault.Attr(err))
		return r.finish(ctx, rev, failed, &audit.Record{
			Action: audit.RevocationFailed, Outcome: audit.Outcome(err),
			UserID: rev.UserID, Provider: rev.Provider, ConnectionID: rev.ConnectionID,
		})
	}
	pause := max(pauseAfter(rev.Attempts), fault.From(err).RetryAfter)
	r.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "tokens were not revoked at the provider yet; trying again",
		slog.String("connection_id", rev.ConnectionID), slog.String("provider", rev.Provider), slog.Int("attempt", rev.Attempts),
		slog.Float64("retry_seconds", pause.Seconds()), fault.Attr(err))
	return r.cfg.Queue.RetryRevocation(ctx, rev, pause)
}

func (r *Revoker) finish(ctx context.Context, rev *store.Revocation, became string, rec *audit.Record) error {
	finished, err := r.cfg.Queue.FinishRevocation(ctx, rev, rec)
	if err != nil || !finished {
		return err
	}
	if rec != nil {
		r.cfg.Audit.Log(ctx, *rec)
	}
	r.ended.Add(ctx, 1, metric.WithAttributes(attribute.String("provider", rev.Provider), attribute.String("outcome", became)))
	return nil
}

func (r *Revoker) try(ctx context.Context, rev *store.Revocation) (became string, err error) {
	user := ""
	if rev.Staged {
		user = rev.UserID
	}
	inUse, err := r.cfg.Queue.RealmInUse(ctx, user, rev.Account)
	if err != nil || inUse {
		return spared, err
	}
	provider, err := r.cfg.Find(rev.Provider, rev.Account.Realm)
	if err != nil {
		return "", err
	}
	tokens, err := r.cfg.Opener.OpenTokens(ctx, rev.Sealed, rev.Place)
	if err != nil {
		return "", err
	}
	if !tokens.RefreshToken.IsZero() {
		if err := gone(provider.Revoke(ctx, tokens.RefreshToken, upstream.HintRefreshToken)); err != nil {
			return "", err
		}
	}
	return told, gone(provider.Revoke(ctx, tokens.AccessToken, upstream.HintAccessToken))
}

// gone takes for done what a provider refuses because there is nothing to revoke: the
// token is none any more, or one that it does not revoke (RFC 7009, section 2.2.1).
func gone(err error) error {
	if f, ok := fault.As(err); ok && f.Reason == reason.UpstreamRefused {
		switch f.Metadata[reason.OAuthError] {
		case "invalid_token", upstream.ErrorInvalidGrant, "unsupported_token_type":
			return nil
		}
	}
	return err
}

// pauseAfter doubles from two seconds to a quarter of an hour, with jitter.
func pauseAfter(attempts int) time.Duration {
	d := min(firstPause<<min(max(attempts-1, 0), 16), maxPause)
	return d/2 + rand.N(d/2+1) //nolint:gosec // spreads load, guards nothing
}
