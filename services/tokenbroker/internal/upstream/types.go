package upstream

import (
	"time"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/upstream/endpoint"
)

// Keys of error metadata beside reason.Provider and reason.OAuthError.
const (
	// MetadataCheck names the check that failed, with reason.IdentityInvalid.
	MetadataCheck = "check"
	// MetadataSent is "false" when a request that failed with
	// reason.UpstreamUnavailable certainly did not reach the provider, so that
	// nothing can have been spent; otherwise "true".
	MetadataSent = endpoint.MetadataSent
	// MetadataDenied is "true" when the provider answered such a request with an
	// error: it says that it has done nothing.
	MetadataDenied = endpoint.MetadataDenied
)

// ErrorInvalidGrant is the OAuth error code (RFC 6749, section 5.2) that ends a
// connection: the code or refresh token is expired, revoked or of another client.
const ErrorInvalidGrant = "invalid_grant"

// Description is what the front channel needs to know of a provider.
type Description struct {
	// Name as configured.
	Name string
	// Type of the provider's protocol.
	Type config.ProviderType
	// Primary decides who the person is.
	Primary bool
	// Optional providers may be left out of a chain.
	Optional bool
	// Issuer of an OIDC provider; empty for OAuth 2.0.
	Issuer string
	// AuthorizationEndpoint, discovered or configured.
	AuthorizationEndpoint string
	// ClientID at the provider.
	ClientID string
	// RedirectURI that is registered at the provider.
	RedirectURI string
	// Scopes to ask for.
	Scopes []string
	// AuthorizationParams are added to the authorization request.
	AuthorizationParams map[string]string
	// ResponseIssRequired says that authorization responses must carry iss (RFC 9207).
	ResponseIssRequired bool
}

// Identity is a person at one provider.
type Identity struct {
	// Subject is the stable id. It is empty only for a provider that was
	// configured without any source of identity (never a primary one): then two
	// accounts cannot be told apart.
	Subject string
	// SubjectField is the field of a userinfo answer that Subject was read from;
	// empty where a provider has one source only, see Provider.SubjectField. Equal
	// values of two fields are two people.
	SubjectField string
	// Name to show; may be empty.
	Name string
	// Email to show; may be empty, never used as a key, never logged.
	Email string
}

// Grant is what a token endpoint granted, checked.
type Grant struct {
	// Identity is complete after Redeem. After Refresh it holds the subject alone.
	Identity Identity
	// Realm in which the subject is unique: the OIDC issuer or the OAuth 2.0 token endpoint.
	Realm string
	// AccessToken is never empty.
	AccessToken secret.String
	// RefreshToken is empty when there is none. After Refresh it is the old one
	// unless the provider rotated it.
	RefreshToken secret.String
	// IDToken is empty unless the answer held one; it was verified.
	IDToken secret.String
	// Scopes granted: as the provider says, or as asked for when it does not say
	// (RFC 6749, section 5.1). Sorted.
	Scopes []string
	// ExpiresAt of the access token; only with HasExpiry.
	ExpiresAt time.Time
	// HasExpiry is false when the provider did not say when the token expires.
	HasExpiry bool
}

// RedeemRequest carries an authorization response to the token endpoint.
type RedeemRequest struct {
	// Code is the authorization code.
	Code secret.String
	// Verifier of PKCE (RFC 7636, section 4.1).
	Verifier secret.String
	// Nonce that the id token must repeat; OIDC only, where it must not be empty.
	Nonce string
	// RedirectURI of the authorization request; empty means the configured one.
	RedirectURI string
}

// RefreshRequest carries a refresh token to the token endpoint.
type RefreshRequest struct {
	// RefreshToken to redeem.
	RefreshToken secret.String
	// Subject that the connection belongs to: a new id token must repeat it.
	Subject string
	// Scopes that the connection has.
	Scopes []string
}

// TokenHint is the token_type_hint of a revocation (RFC 7009, section 2.1).
type TokenHint string

// The hints of RFC 7009.
const (
	HintAccessToken  TokenHint = "access_token"
	HintRefreshToken TokenHint = "refresh_token"
)
