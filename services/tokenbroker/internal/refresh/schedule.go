package refresh

import (
	"math/rand/v2"
	"time"

	"chatelaine.dev/services/tokenbroker/internal/store"
	"chatelaine.dev/services/tokenbroker/internal/upstream"
)

const (
	// aheadOfExpiry is how long before its end a token is renewed, plus jitter, at
	// most a fifth of its lifetime.
	aheadOfExpiry = 60 * time.Second
	jitter        = 15 * time.Second
	lifetimeShare = 5

	minBackoff = time.Second
	maxBackoff = 2 * time.Minute
	// refusedBackoff is for answers that only an operator can change (invalid_client …).
	refusedBackoff = 30 * time.Second
	// maxRetryAfter bounds what a provider may ask for.
	maxRetryAfter = 10 * time.Minute
)

// Validity is until when the token of a grant is good, and when to renew it.
func Validity(g *upstream.Grant) store.Validity {
	if !g.HasExpiry {
		return store.Validity{}
	}
	return store.Validity{EndsAt: g.ExpiresAt, RenewAt: After(g.ExpiresAt, time.Now())}
}

// After returns when to renew a token that ends at expiresAt, as of now; zero for
// one without an end. Jitter keeps tokens that were made together apart.
func After(expiresAt, now time.Time) time.Time {
	if expiresAt.IsZero() {
		return time.Time{}
	}
	window := aheadOfExpiry + rand.N(jitter) //nolint:gosec // spreads load, guards nothing
	if share := expiresAt.Sub(now) / lifetimeShare; share < window {
		window = max(0, share)
	}
	return expiresAt.Add(-window)
}

// backoff returns how long to leave a provider alone after failures in a row, the
// present one included: doubling from one second to two minutes, with jitter.
func backoff(failures int) time.Duration {
	d := maxBackoff
	if shift := max(0, failures-1); shift < 7 {
		d = minBackoff << shift
	}
	return d/2 + rand.N(d/2+1) //nolint:gosec // spreads load, guards nothing
}
