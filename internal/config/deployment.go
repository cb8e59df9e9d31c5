package config

import (
	"time"

	"chatelaine.dev/internal/secret"
)

// Mode says who signs the tokens that open the gateway.
type Mode string

// The modes of a deployment.
const (
	// ModeAuthServer: the deployment's own authorization server, with upstream providers.
	ModeAuthServer Mode = "authServer"
	// ModeExternalIssuer: an issuer of somebody else's; no upstream providers, no connections.
	ModeExternalIssuer Mode = "externalIssuer"
	// ModeAnonymous: no tokens; only static strategies.
	ModeAnonymous Mode = "anonymous"
)

// Deployment is the effective configuration: every default is filled in and
// every reference resolved. It is shared between goroutines and must not be
// changed. Its exported fields are all that [Set.Digest] covers.
type Deployment struct {
	// Name of the VirtualMCPServer.
	Name string
	// Mode says who signs the tokens that open the gateway.
	Mode Mode
	// Issuer whose access tokens are accepted. Nil in ModeAnonymous.
	Issuer *TokenIssuer `json:",omitempty"`
	// Audience is the resource of the aggregated endpoint, `/mcp`, in canonical
	// form. Empty in ModeAnonymous.
	Audience string
	// Scopes that the protected-resource metadata advertises, never offline_access.
	Scopes []string
	// AuthServer is set in ModeAuthServer alone.
	AuthServer *AuthServer `json:",omitempty"`
	// Backends, sorted by name.
	Backends []Backend
}

// TokenIssuer is the issuer whose access tokens open the gateway.
type TokenIssuer struct {
	// URL is the expected `iss`, byte for byte.
	URL string
	// JWKSURL is where its keys are. Empty: to be discovered.
	JWKSURL string
	// CABundle to trust beside the system's roots, or nil.
	CABundle *secret.Ref `json:",omitempty"`
	// AllowPrivateIPs permits private addresses for discovery and keys.
	AllowPrivateIPs bool
	// AllowHTTP permits plain http beyond loopback addresses.
	AllowHTTP bool
}

// AuthServer is the deployment's own authorization server.
type AuthServer struct {
	// Issuer, byte for byte as configured.
	Issuer string
	// AuthorizationBaseURL is where browsers reach `/oauth/authorize`; the issuer by default.
	AuthorizationBaseURL string
	// SigningKeys for access tokens, newest first. When it is empty, the
	// authserver does not start; the other services do not need them.
	SigningKeys []secret.Ref
	// HMACSecrets for codes and refresh tokens, newest first; empty as above.
	HMACSecrets []secret.Ref
	// Lifespans of what it issues.
	AccessTokenLifespan  time.Duration
	RefreshTokenLifespan time.Duration
	AuthCodeLifespan     time.Duration
	// Providers in the order of the chain: the primary first.
	Providers []Provider
	// Primary is the name of the provider that decides who the user is.
	Primary string
	// BaselineClientScopes are granted to every client that registers itself.
	BaselineClientScopes []string
	// AllowConfidentialClients permits secrets for clients that register themselves.
	AllowConfidentialClients bool
	// AllowHTTP permits plain http for the issuer beyond loopback addresses.
	AllowHTTP bool
	// CIMD configures Client ID Metadata Documents, which this version does not
	// support: the report warns where Enabled is set.
	CIMD CIMDSettings
	// ConnectionRetention is how long a connection outlives its last session.
	ConnectionRetention time.Duration
	// LockSessionsOnPrimaryRevocation refuses a user's sessions after a certain
	// invalid_grant from the primary provider.
	LockSessionsOnPrimaryRevocation bool
}

// CIMDSettings configures Client ID Metadata Documents.
type CIMDSettings struct {
	Enabled      bool
	CacheMaxSize int
	// CacheFallbackTTL is for documents without HTTP caching headers.
	CacheFallbackTTL time.Duration
}

// ProviderType is the protocol of an upstream provider.
type ProviderType string

// The types of upstream providers.
const (
	ProviderOIDC   ProviderType = "oidc"
	ProviderOAuth2 ProviderType = "oauth2"
)

// Token endpoint authentication methods (RFC 7591, section 2). An empty method
// means: as discovered, client_secret_basic where both are offered.
const (
	AuthMethodNone  = "none"
	AuthMethodBasic = "client_secret_basic"
	AuthMethodPost  = "client_secret_post"
	// AuthMethodPrivateKeyJWT needs a key (RFC 7523, section 2.2).
	AuthMethodPrivateKeyJWT = "private_key_jwt"
)

// What to do with a refresh whose outcome is unknown.
const (
	RefreshInDoubtRetry          = "retry"
	RefreshInDoubtReauthenticate = "reauthenticate"
)

// Provider is an upstream identity provider.
type Provider struct {
	// Name, unique, a DNS label.
	Name string
	// Type says which of OIDC and OAuth2 is set.
	Type ProviderType
	// Primary decides who the user is. Never Optional.
	Primary bool
	// Optional providers may be skipped.
	Optional bool
	// ClientID at the provider.
	ClientID string
	// ClientSecret is nil for a public client.
	ClientSecret *secret.Ref `json:",omitempty"`
	// ClientKey is how the client proves who it is, or nil.
	ClientKey *ClientKey `json:",omitempty"`
	// AuthMethod at the token endpoint. Empty for OIDC: as discovered.
	AuthMethod string
	// RedirectURI where the provider sends the browser back to.
	RedirectURI string
	// Scopes to ask for; contains openid for OIDC.
	Scopes []string
	// AuthorizationParams are added to the authorization request.
	AuthorizationParams map[string]string `json:",omitempty"`
	// TokenParams are added to code and refresh requests.
	TokenParams map[string]string `json:",omitempty"`
	// UserInfo is nil where identity is not asked for over HTTP (OAuth2), or
	// where the discovered endpoint is used (OIDC).
	UserInfo *UserInfoRequest `json:",omitempty"`
	// OIDC is set for ProviderOIDC.
	OIDC *OIDCProvider `json:",omitempty"`
	// OAuth2 is set for ProviderOAuth2.
	OAuth2 *OAuth2Provider `json:",omitempty"`
	// CABundle to trust beside the system's roots, or nil.
	CABundle *secret.Ref `json:",omitempty"`
	// AllowPrivateIPs permits private addresses.
	AllowPrivateIPs bool
	// AllowHTTP permits plain http beyond loopback addresses.
	AllowHTTP bool
	// RefreshInDoubt is RefreshInDoubtRetry or RefreshInDoubtReauthenticate.
	RefreshInDoubt string
}

// ClientKey is a private key that a client authenticates with.
type ClientKey struct {
	// Key in PEM.
	Key secret.Ref
	// ID is the kid; empty: derived from the key.
	ID string
	// Audience of assertions. Empty: the token endpoint's URL, or an OIDC
	// provider's issuer.
	Audience string
}

// HasIdentity reports whether the provider tells who logged in. Without it,
// two accounts at the provider cannot be told apart. A primary always does.
func (p *Provider) HasIdentity() bool {
	return p.OIDC != nil || p.UserInfo != nil || (p.OAuth2 != nil && p.OAuth2.Identity != nil)
}

// OIDCProvider is what is particular to a provider with discovery.
type OIDCProvider struct {
	// Issuer, byte for byte as configured.
	Issuer string
	// SubjectClaim of the id token that identifies the user.
	SubjectClaim string
}

// OAuth2Provider is what is particular to a provider of plain OAuth 2.0.
type OAuth2Provider struct {
	AuthorizationEndpoint string
	TokenEndpoint         string
	// RevocationEndpoint is empty where the provider has none of RFC 7009.
	RevocationEndpoint string `json:",omitempty"`
	// TokenResponse says where the token response has its fields.
	TokenResponse TokenResponsePaths
	// Identity is nil unless the token response tells who logged in.
	Identity *IdentityPaths `json:",omitempty"`
}

// TokenResponsePaths are paths of object keys joined by dots ("\." is a dot
// inside a key). None is empty.
type TokenResponsePaths struct {
	AccessToken, RefreshToken, Scope, ExpiresIn string
}

// IdentityPaths are paths of object keys joined by dots or bars; the key
// @upstreamjwt stands for the payload of the JWT that precedes it, and "\."
// for a dot inside a key. Name and Email may be empty.
type IdentityPaths struct {
	Subject, Name, Email string
}

// UserInfoRequest says how to ask who logged in. The field lists are never
// empty. SubjectFields count for OAuth2 alone: with OIDC, the id token has the subject.
type UserInfoRequest struct {
	URL                                    string
	Method                                 string
	Headers                                map[string]string `json:",omitempty"`
	SubjectFields, NameFields, EmailFields []string
}

// Backend is an MCP server behind the gateway.
type Backend struct {
	// Name, a DNS label; served at `/mcp/{name}`.
	Name string
	// RemoteURL is the MCP endpoint.
	RemoteURL string
	// Origin of RemoteURL (scheme://host[:port], lower case, no default port).
	// Credentials are attached to requests to this origin alone.
	Origin string
	// Transport is always streamable-http in this version.
	Transport string
	// Resource is `{audience}/{name}`. Empty in ModeAnonymous.
	Resource string
	// Headers to add to every request.
	Headers ForwardedHeaders
	// CABundle to trust beside the system's roots, or nil.
	CABundle *secret.Ref `json:",omitempty"`
	// AllowPrivateEndpoint permits a private address.
	AllowPrivateEndpoint bool
	// Strategy is how the backend is authenticated to.
	Strategy Strategy
}

// ForwardedHeaders are added to every request to a backend. Names are canonical.
type ForwardedHeaders struct {
	Plain  map[string]string     `json:",omitempty"`
	Secret map[string]secret.Ref `json:",omitempty"`
}

// StrategyType is a way to authenticate to a backend.
type StrategyType string

// The strategies of this version.
const (
	StrategyUnauthenticated StrategyType = "unauthenticated"
	StrategyUpstreamInject  StrategyType = "upstreamInject"
	StrategyTokenExchange   StrategyType = "tokenExchange"
	StrategyHeaderInjection StrategyType = "headerInjection"
	StrategyBearerToken     StrategyType = "bearerToken"
)

// Strategy is how a backend is authenticated to. The field of the type's name
// is set; for StrategyUnauthenticated none is.
type Strategy struct {
	Type StrategyType
	// Config is the name of the MCPExternalAuthConfig, empty when there is none.
	Config          string
	UpstreamInject  *UpstreamInjectStrategy  `json:",omitempty"`
	TokenExchange   *TokenExchangeStrategy   `json:",omitempty"`
	HeaderInjection *HeaderInjectionStrategy `json:",omitempty"`
	BearerToken     *BearerTokenStrategy     `json:",omitempty"`
}

// PerUser reports whether the credential belongs to the calling user, so that
// an anonymous caller cannot have one.
func (s *Strategy) PerUser() bool {
	return s.Type == StrategyUpstreamInject || s.Type == StrategyTokenExchange
}

// Provider names the upstream provider whose token the strategy needs, empty
// when it needs none.
func (s *Strategy) Provider() string {
	switch {
	case s.UpstreamInject != nil:
		return s.UpstreamInject.Provider
	case s.TokenExchange != nil:
		return s.TokenExchange.SubjectProvider
	default:
		return ""
	}
}

// UpstreamInjectStrategy sends the stored access token of a provider.
type UpstreamInjectStrategy struct {
	Provider string
}

// Token type identifiers of RFC 8693, section 3.
const (
	TokenTypeAccessToken  = "urn:ietf:params:oauth:token-type:access_token"
	TokenTypeRefreshToken = "urn:ietf:params:oauth:token-type:refresh_token"
	TokenTypeIDToken      = "urn:ietf:params:oauth:token-type:id_token"
	TokenTypeSAML1        = "urn:ietf:params:oauth:token-type:saml1"
	TokenTypeSAML2        = "urn:ietf:params:oauth:token-type:saml2"
	TokenTypeJWT          = "urn:ietf:params:oauth:token-type:jwt"
)

// TokenExchangeStrategy sends a token minted by RFC 8693 exchange.
type TokenExchangeStrategy struct {
	TokenURL     string
	ClientID     string
	ClientSecret *secret.Ref `json:",omitempty"`
	// ClientKey is how the client proves who it is, or nil.
	ClientKey *ClientKey `json:",omitempty"`
	// AuthMethod is AuthMethodBasic, AuthMethodPost or AuthMethodPrivateKeyJWT.
	// Empty: as the token service takes it, HTTP Basic first.
	AuthMethod string `json:",omitempty"`
	Audience   string
	Scopes     []string
	// SubjectTokenType is one of the TokenType URNs. Without a subject provider
	// the subject is a JWT of the issuer; TokenTypeAccessToken is then the
	// default that is sent all the same, as configured.
	SubjectTokenType string
	// SubjectProvider is the provider whose stored token is the subject. Empty:
	// a subject token of our authorization server, or the caller's own token
	// with an external issuer.
	SubjectProvider string
	// MintActor sends a token of our authorization server's about the client that acts.
	MintActor bool `json:",omitempty"`
	// RequestedTokenType is one of the TokenType URNs; empty: TokenTypeAccessToken.
	RequestedTokenType string `json:",omitempty"`
	// CABundle to trust beside the system's roots, or nil.
	CABundle *secret.Ref `json:",omitempty"`
	// DenyPrivateIPs refuses private addresses.
	DenyPrivateIPs bool `json:",omitempty"`
	// HeaderName gets the token: Authorization (with scheme Bearer), or a header
	// of the user's choice (the bare token).
	HeaderName string
	// Parameters are added to the request.
	Parameters map[string]string `json:",omitempty"`
	// AllowHTTP permits plain http beyond loopback addresses.
	AllowHTTP bool
}

// HeaderInjectionStrategy sends a secret in a header. The name is canonical.
type HeaderInjectionStrategy struct {
	HeaderName string
	Value      secret.Ref
}

// BearerTokenStrategy sends a secret as bearer token.
type BearerTokenStrategy struct {
	Token secret.Ref
}
