package refresh

import (
	"cmp"
	"context"
	"crypto/rand"
	"log/slog"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/store"
	"chatelaine.dev/services/tokenbroker/internal/upstream"
)

// attempt renews one version, or waits for whoever is at it. It returns true when
// the connection has a newer version.
func (r *Refresher) attempt(ctx context.Context, connectionID string, version int64, forced bool) (bool, error) {
	for {
		c, err := r.cfg.Reader.Connection(ctx, connectionID)
		if err != nil {
			return false, err
		}
		provider, err := r.cfg.Find(c.Provider, c.Realm)
		if err != nil {
			return false, connectionRequired(c.Provider)
		}
		action, err := r.decide(ctx, c, provider, version, forced)
		switch {
		case err != nil || action == doNothing:
			return false, err
		case action == isRenewed:
			return true, nil
		case action == tryNow:
			renewed, took, err := r.try(ctx, c, provider, forced)
			if took {
				return renewed, err
			}
		}
		if err := pause(ctx, pollEvery); err != nil { // somebody else is at it
			return false, err
		}
	}
}

// action is what the state of a row asks for.
type action int

const (
	doNothing action = iota // a renewal can bring nothing now
	isRenewed               // there is a newer version
	tryNow                  // nobody is at it
	waitForIt               // somebody is
)

func (r *Refresher) decide(ctx context.Context, c *store.Connection, p Provider, version int64, forced bool) (action, error) {
	switch clock := c.Clock; {
	case c.Status == store.ConnectionDisconnected:
		return doNothing, connectionRequired(c.Provider)
	case c.Status == store.ConnectionReauthenticate:
		return doNothing, reauthenticate(c.Provider)
	case c.Version != version:
		return isRenewed, nil
	case !c.Refreshable:
		return doNothing, nil
	case clock.LeaseRemaining > 0:
		return waitForIt, nil
	case clock.InDoubt && (clock.DoubtfulAttempts >= maxDoubtful || !inDoubtRetry(p)):
		return r.giveUpDoubt(ctx, c)
	case clock.RetryIn > 0:
		return doNothing, unavailable(c.Provider, clock.RetryIn)
	case forced && clock.ForcedAgo >= 0 && clock.ForcedAgo < r.cfg.ForcedInterval:
		return doNothing, nil
	}
	return tryNow, nil
}

// giveUpDoubt asks for a new login when nobody knows what the last attempt did.
// Nothing is known of the person's grant either, so their sessions stay usable.
func (r *Refresher) giveUpDoubt(ctx context.Context, c *store.Connection) (action, error) {
	rec := record(ctx, c, audit.ConnectionRefreshFailed, reason.ReauthenticationRequired)
	changed, err := r.cfg.Leases.RequireReauthentication(ctx, store.Refusal{
		ConnectionID: c.ID, PresentedVersion: c.Version, OnlyInDoubt: true, Record: rec,
	})
	if err != nil || !changed { // not changed: somebody has taken the last attempt
		return waitForIt, err
	}
	r.finished(ctx, rec)
	return doNothing, reauthenticate(c.Provider)
}

// try makes one attempt under a lease; took is false when somebody else was faster.
func (r *Refresher) try(ctx context.Context, c *store.Connection, p Provider, forced bool) (renewed, took bool, err error) {
	tokens, err := r.cfg.Sealer.OpenTokens(ctx, c.Sealed, c.Place())
	if err != nil {
		return false, true, err
	}
	// Counted from before the lease is taken, so that a process that was suspended
	// in between cannot call after its lease has ended.
	call, cancel := context.WithTimeout(ctx, r.cfg.CallTimeout)
	defer cancel()
	lease, ok, err := r.cfg.Leases.AcquireLease(ctx, store.LeaseRequest{
		ConnectionID: c.ID, Version: c.Version, Holder: rand.Text(), Duration: r.cfg.Lease,
		Forced: forced, ForcedInterval: r.cfg.ForcedInterval, MaxDoubtful: maxDoubtful,
	})
	if err != nil || !ok {
		return false, err != nil, err
	}
	grant, err := p.Refresh(call, upstream.RefreshRequest{
		RefreshToken: tokens.RefreshToken, Subject: c.Subject, Scopes: c.Scopes,
	})
	if err != nil {
		settled, failure := r.failed(ctx, c, p, lease, err)
		if !grant.AccessToken.IsZero() { // granted, and not fit for this connection
			err = r.giveUpGrant(ctx, c, &grant)
		}
		return false, settled, cmp.Or(failure, err)
	}
	renewed, err = r.commit(ctx, c, tokens, &grant)
	return renewed, true, err
}

// failed remembers how an attempt failed and returns what callers are told. It is
// not settled when the connection has changed meanwhile, by a login or a late
// answer: then its present state tells.
func (r *Refresher) failed(ctx context.Context, c *store.Connection, p Provider, lease store.Lease, cause error) (settled bool, err error) {
	v := judge(cause, p, lease)
	rec := record(ctx, c, audit.ConnectionRefreshFailed, v.outcome)
	r.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "tokens could not be renewed",
		slog.String("connection_id", c.ID), slog.String("provider", c.Provider), fault.Attr(cause))
	if v.refused {
		changed, err := r.cfg.Leases.RequireReauthentication(ctx, store.Refusal{
			ConnectionID: c.ID, PresentedVersion: c.Version, Record: rec,
			LockUser: v.mayLock && p.Primary() && r.cfg.LockOnPrimary(),
		})
		if err != nil || !changed {
			return err != nil, err
		}
		r.finished(ctx, rec)
		return true, reauthenticate(c.Provider)
	}
	if err := r.cfg.Leases.FailRenewal(ctx, store.FailedRenewal{
		ConnectionID: c.ID, PresentedVersion: c.Version, Lease: lease, Result: v.result,
		Backoff: v.backoff, Record: rec,
	}); err != nil {
		return true, err
	}
	r.finished(ctx, rec)
	return true, unavailable(c.Provider, v.backoff)
}

// verdict is what a failure means for a connection.
type verdict struct {
	// refused: the tokens are of no more use. mayLock: for certain, because the
	// person's grant has ended.
	refused, mayLock bool
	// result is what the attempt may have done otherwise.
	result  store.AttemptResult
	backoff time.Duration
	outcome string
}

func judge(cause error, p Provider, lease store.Lease) verdict {
	f := fault.From(cause)
	switch f.Reason {
	case reason.UpstreamRefused:
		switch f.Metadata[reason.OAuthError] {
		case upstream.ErrorInvalidGrant: // RFC 6749, section 5.2
			return verdict{refused: true, mayLock: !lease.Doubtful, outcome: reason.ReauthenticationRequired}
		case "interaction_required", "login_required", "consent_required", "access_denied": // OpenID Connect Core, 3.1.2.6
			return verdict{refused: true, outcome: reason.ReauthenticationRequired}
		}
		// Our own configuration, most likely: nothing that a login would change.
		return verdict{result: store.Denied, backoff: max(refusedBackoff, f.RetryAfter), outcome: reason.UpstreamRefused}
	case reason.IdentityInvalid:
		return verdict{refused: true, outcome: reason.IdentityInvalid}
	}
	result := resultOf(f)
	if result == store.NoAnswer && (lease.AfterDoubt || !inDoubtRetry(p)) { // no attempt is left
		return verdict{refused: true, outcome: reason.ReauthenticationRequired}
	}
	return verdict{
		result: result, backoff: min(max(backoff(lease.Failures+1), f.RetryAfter), maxRetryAfter),
		outcome: reason.UpstreamUnavailable,
	}
}

func resultOf(f *fault.Error) store.AttemptResult {
	switch {
	case f.Metadata[upstream.MetadataSent] == "false":
		return store.NotSent
	case f.Metadata[upstream.MetadataDenied] == "true":
		return store.Denied
	}
	return store.NoAnswer
}

func record(ctx context.Context, c *store.Connection, action audit.Action, outcome string) audit.Record {
	return audit.Record{
		Action: action, Outcome: outcome, UserID: c.UserID, Provider: c.Provider, ConnectionID: c.ID,
	}.Complete(ctx)
}

// pause waits for d, or returns why ctx ended.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return fault.From(ctx.Err())
	case <-timer.C:
		return nil
	}
}
