package refresh

import (
	"time"

	"chatelaine.dev/internal/secret"
)

// Token is what a session may use at a provider. It was committed before it was
// returned.
type Token struct {
	// AccessToken of the provider; never empty.
	AccessToken secret.String
	// IDToken is the newest one that the provider sent; often empty. It may have expired.
	IDToken secret.String
	// RefreshToken is for exchanges that are configured to send it. Empty when there is none.
	RefreshToken secret.String
	// ExpiresAt of the access token, by this process's clock; zero when the provider did not say.
	ExpiresAt time.Time
	// Scopes that the provider granted.
	Scopes []string
	// Realm of the provider that granted it.
	Realm string
	// UserID of the connection: the caller makes sure that it is the one that they ask for.
	UserID string
	// ConnectionID that the token belongs to.
	ConnectionID string
	// Version of the connection's tokens, for Renew.
	Version int64
	// ObservedPosition is that of the newest event which this answer has taken
	// into account (broker.v1.GetCredentialResponse.observed_position).
	ObservedPosition int64
}
