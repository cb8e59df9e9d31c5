package exchange

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
)

// Grant makes a token of a subject: one request to a token service, or two. It
// keeps nothing; caching, sharing and renewing are the Client's.
type Grant interface {
	// Request asks for a token of the subject, whose Token it calls. Errors: those
	// of s.Token; Precondition with reason.UpstreamRefused; Unavailable with
	// reason.UpstreamUnavailable.
	Request(ctx context.Context, s Subject) (Issued, error)
	// Unusable is the error of a request that was not made, in the grant's words.
	Unusable(why error, what string) *fault.Error
	// Digest is what of the configuration makes the tokens differ.
	Digest() [32]byte
}

// Issued is a token as a token service issued it.
type Issued struct {
	Token secret.String
	// ExpiresAt is when it must no longer be used: a margin before its end.
	ExpiresAt time.Time
}

// maxMargin is how long before its end a token is no longer used. A short lived
// one loses a tenth of its life instead.
const maxMargin = 30 * time.Second

// issued is a token that lives for a time from when it was asked for.
func issued(token secret.String, sentAt time.Time, lifetime time.Duration) Issued {
	return Issued{Token: token, ExpiresAt: sentAt.Add(lifetime - min(lifetime/10, maxMargin))}
}

// digest hashes fields of a configuration.
func digest(fields ...any) [32]byte {
	canonical, err := json.Marshal(fields)
	if err != nil {
		panic("exchange: a strategy is plain data: " + err.Error())
	}
	return sha256.Sum256(canonical)
}
