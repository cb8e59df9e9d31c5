package config

// AuthServerConfig configures the authorization server of the deployment.
type AuthServerConfig struct {
	// Issuer is the `iss` of its tokens and its public base URL. `https`, or
	// `http` on a loopback address; no query, fragment or trailing slash.
	Issuer string `yaml:"issuer" required:"true"`
	// AuthorizationEndpointBaseURL is where browsers reach the authorization
	// endpoint when that differs from the issuer.
	AuthorizationEndpointBaseURL string `yaml:"authorizationEndpointBaseUrl"`
	// SigningKeySecretRefs name the keys that sign access tokens, newest first, in
	// PEM: P-256 (or P-384, P-521), Ed25519, or RSA of 2048 bits or more. At most
	// five; the authserver needs one.
	SigningKeySecretRefs []SecretKeyRef `yaml:"signingKeySecretRefs"`
	// HMACSecretRefs name the secrets behind codes and refresh tokens (at least
	// 32 random bytes, base64 text), newest first. At most five; the authserver needs one.
	HMACSecretRefs []SecretKeyRef `yaml:"hmacSecretRefs"`
	// TokenLifespans says how long tokens live.
	TokenLifespans *TokenLifespans `yaml:"tokenLifespans"`
	// UpstreamProviders are the identity providers that one login walks through.
	UpstreamProviders []UpstreamProvider `yaml:"upstreamProviders"`
	// PrimaryUpstreamProvider names the provider that decides who the user is.
	// Its leg runs first. Default: the first of `upstreamProviders`.
	PrimaryUpstreamProvider string `yaml:"primaryUpstreamProvider"`
	// DisableUpstreamTokenInjection says that no backend may get an upstream's
	// token; a backend that would is an error.
	DisableUpstreamTokenInjection bool `yaml:"disableUpstreamTokenInjection"`
	// InsecureAllowHTTP permits `http` for an issuer that is not on a loopback
	// address. For development only.
	InsecureAllowHTTP bool `yaml:"insecureAllowHTTP"`
	// BaselineClientScopes are granted to every client that registers, beside
	// those that it asks for. At most ten. `openid` is warned about and not
	// granted: there are no ID tokens for clients.
	BaselineClientScopes []string `yaml:"baselineClientScopes" format:"scope"`
	// AllowConfidentialClientRegistration permits clients that register
	// themselves to get a secret.
	AllowConfidentialClientRegistration bool `yaml:"allowConfidentialClientRegistration"`
	// CIMD configures clients that are identified by the URL of a metadata
	// document. Not supported by this version: a warning when it is enabled.
	CIMD *CIMD `yaml:"cimd"`
	// ConnectionRetention is how long a connection that no session uses is kept
	// before it is revoked upstream and erased. Default `168h`, at most `8760h`.
	ConnectionRetention *Duration `yaml:"connectionRetention"`
	// LockSessionsOnPrimaryRevocation refuses a user's sessions until the next
	// login once the primary provider says that its grant is gone. Default `true`.
	// It is asked when its access token ends while the user has a session in use;
	// where it gave no refresh token, or no end of the access token, there is no lock.
	LockSessionsOnPrimaryRevocation *bool `yaml:"lockSessionsOnPrimaryRevocation"`
}

// TokenLifespans says how long tokens live, as Go durations such as `1h` or `90m`.
type TokenLifespans struct {
	// AccessTokenLifespan is from 10s to 24h. Default `1h`.
	AccessTokenLifespan Duration `yaml:"accessTokenLifespan" default:"1h"`
	// RefreshTokenLifespan is from 1m to 720h, the longest that a session lasts. Default `168h`.
	RefreshTokenLifespan Duration `yaml:"refreshTokenLifespan" default:"168h"`
	// AuthCodeLifespan is from 10s to 10m. Default `10m`.
	AuthCodeLifespan Duration `yaml:"authCodeLifespan" default:"10m"`
}

// CIMD configures Client ID Metadata Documents.
type CIMD struct {
	// Enabled would accept an `https` URL as a client id. Not supported: a warning.
	Enabled bool `yaml:"enabled"`
	// CacheMaxSize is how many documents are remembered, from 1 to 65536. Default `256`.
	CacheMaxSize int `yaml:"cacheMaxSize" default:"256"`
	// CacheFallbackTTL is how long a document is remembered that says nothing
	// about it, from 1s to 24h. Default `5m`.
	CacheFallbackTTL Duration `yaml:"cacheFallbackTtl" default:"5m"`
}

// UpstreamProvider is one identity provider of the chain.
type UpstreamProvider struct {
	// Name of the provider, a DNS label. A single provider may omit it
	// (`default`); two or more need unique names, none of them `default`.
	Name string `yaml:"name"`
	// Type is `oidc` or `oauth2`, and asks for the block of that name.
	Type string `yaml:"type" required:"true" enum:"oidc,oauth2"`
	// Optional lets a login succeed without this provider. The primary provider cannot be optional.
	Optional bool `yaml:"optional"`
	// RefreshInDoubt says what to do when a refresh was sent and no answer came:
	// `retry` once with the old token, or `reauthenticate`. Default `retry`.
	RefreshInDoubt string `yaml:"refreshInDoubt" enum:"retry,reauthenticate" default:"retry"`
	// OIDCConfig is for type `oidc`.
	OIDCConfig *OIDCUpstream `yaml:"oidcConfig"`
	// OAuth2Config is for type `oauth2`.
	OAuth2Config *OAuth2Upstream `yaml:"oauth2Config"`
}

// OIDCUpstream is a provider with discovery and id tokens.
type OIDCUpstream struct {
	// IssuerURL of the provider; its endpoints are discovered.
	IssuerURL string `yaml:"issuerUrl" required:"true"`
	// ClientID at the provider, where the application was registered by hand. Required.
	ClientID string `yaml:"clientId"`
	// ClientSecretRef names the client's secret. A public client has none.
	ClientSecretRef *SecretKeyRef `yaml:"clientSecretRef"`
	// ClientAuthMethod is how the client authenticates: `basic` or `post` with the
	// secret, `private_key_jwt` with the key. Default: the key where there is one,
	// otherwise as discovered, `basic` first.
	ClientAuthMethod string `yaml:"clientAuthMethod" enum:"basic,post,private_key_jwt"`
	// ClientKeyRef names the client's private key, in PEM, instead of a secret. A
	// certificate in the same PEM is named in assertions (`x5t`).
	ClientKeyRef *SecretKeyRef `yaml:"clientKeyRef"`
	// ClientKeyID is the key's `kid` at the provider. Default: the key's RFC 7638
	// thumbprint, or the certificate's `x5t`.
	ClientKeyID string `yaml:"clientKeyId"`
	// ClientAssertionAudience is the `aud` of assertions that the key signs.
	// Default: the issuer, and for Microsoft Entra its token endpoint.
	ClientAssertionAudience string `yaml:"clientAssertionAudience"`
	// RedirectURI that is registered at the provider. Default
	// `{issuer}/oauth/callback/{provider}`.
	RedirectURI string `yaml:"redirectUri"`
	// Scopes to ask for, `openid` among them. Default `[openid, offline_access]`.
	Scopes []string `yaml:"scopes" format:"scope"`
	// UserInfoOverride asks a userinfo endpoint other than the discovered one
	// for name and e-mail address. Its answer must have the `sub` of the id token.
	UserInfoOverride *UserInfo `yaml:"userInfoOverride"`
	// AdditionalAuthorizationParams are added to the authorization request, such
	// as `access_type: offline`.
	AdditionalAuthorizationParams map[string]string `yaml:"additionalAuthorizationParams"`
	// AdditionalTokenParams are added to token requests, such as `resource`.
	AdditionalTokenParams map[string]string `yaml:"additionalTokenParams"`
	// SubjectClaim is the id token's claim that identifies the user. Default `sub`.
	SubjectClaim string `yaml:"subjectClaim" default:"sub"`
	// DCRConfig would register a client at the provider. Not supported: an error.
	DCRConfig *DCR `yaml:"dcrConfig"`
	// CABundleRef names certificates to trust beside the system's.
	CABundleRef *CABundleRef `yaml:"caBundleRef"`
	// AllowPrivateIPs permits the provider to have a private address.
	AllowPrivateIPs bool `yaml:"allowPrivateIPs"`
	// InsecureAllowHTTP permits `http` beyond loopback addresses. For development only.
	InsecureAllowHTTP bool `yaml:"insecureAllowHTTP"`
}

// OAuth2Upstream is a provider of plain OAuth 2.0, with named endpoints.
type OAuth2Upstream struct {
	// AuthorizationEndpoint is where the browser is sent.
	AuthorizationEndpoint string `yaml:"authorizationEndpoint" required:"true"`
	// TokenEndpoint is where codes and refresh tokens are redeemed.
	TokenEndpoint string `yaml:"tokenEndpoint" required:"true"`
	// RevocationEndpoint is where tokens that nobody uses any more are given back
	// (RFC 7009). Without one they are erased here, and end there with their time.
	RevocationEndpoint string `yaml:"revocationEndpoint"`
	// UserInfo says how to learn who logged in.
	UserInfo *UserInfo `yaml:"userInfo"`
	// ClientID at the provider, where the application was registered by hand. Required.
	ClientID string `yaml:"clientId"`
	// ClientSecretRef names the client's secret. A public client has none.
	ClientSecretRef *SecretKeyRef `yaml:"clientSecretRef"`
	// ClientAuthMethod is how the client authenticates: `basic` or `post` with the
	// secret, `private_key_jwt` with the key. Default: the key where there is one,
	// otherwise `post`.
	ClientAuthMethod string `yaml:"clientAuthMethod" enum:"basic,post,private_key_jwt"`
	// ClientKeyRef names the client's private key, in PEM, instead of a secret. A
	// certificate in the same PEM is named in assertions (`x5t`).
	ClientKeyRef *SecretKeyRef `yaml:"clientKeyRef"`
	// ClientKeyID is the key's `kid` at the provider. Default: the key's RFC 7638
	// thumbprint, or the certificate's `x5t`.
	ClientKeyID string `yaml:"clientKeyId"`
	// ClientAssertionAudience is the `aud` of assertions that the key signs.
	// Default: the token endpoint.
	ClientAssertionAudience string `yaml:"clientAssertionAudience"`
	// TokenEndpointAuthMethod is another name of `clientAuthMethod`; set one of them.
	TokenEndpointAuthMethod string `yaml:"tokenEndpointAuthMethod" enum:"none,client_secret_basic,client_secret_post"`
	// RedirectURI that is registered at the provider. Default
	// `{issuer}/oauth/callback/{provider}`.
	RedirectURI string `yaml:"redirectUri"`
	// Scopes to ask for.
	Scopes []string `yaml:"scopes" format:"scope"`
	// TokenResponseMapping is for token responses that are not shaped as RFC 6749 says.
	TokenResponseMapping *TokenResponseMapping `yaml:"tokenResponseMapping"`
	// IdentityFromToken reads who logged in from the token response instead of `userInfo`.
	IdentityFromToken *IdentityFromToken `yaml:"identityFromToken"`
	// AdditionalAuthorizationParams are added to the authorization request.
	AdditionalAuthorizationParams map[string]string `yaml:"additionalAuthorizationParams"`
	// AdditionalTokenParams are added to token requests, such as `resource`.
	AdditionalTokenParams map[string]string `yaml:"additionalTokenParams"`
	// DCRConfig would register a client at the provider. Not supported: an error.
	DCRConfig *DCR `yaml:"dcrConfig"`
	// CABundleRef names certificates to trust beside the system's.
	CABundleRef *CABundleRef `yaml:"caBundleRef"`
	// AllowPrivateIPs permits the provider to have a private address.
	AllowPrivateIPs bool `yaml:"allowPrivateIPs"`
	// InsecureAllowHTTP permits `http` beyond loopback addresses. For development only.
	InsecureAllowHTTP bool `yaml:"insecureAllowHTTP"`
}

// DCR would register a client at an upstream provider (RFC 7591). Not supported
// by this version: an error.
type DCR struct {
	// DiscoveryURL of the document that names the registration endpoint.
	DiscoveryURL string `yaml:"discoveryUrl"`
	// RegistrationEndpoint to use without discovery.
	RegistrationEndpoint string `yaml:"registrationEndpoint"`
	// InitialAccessTokenRef names the token that the registration endpoint asks for.
	InitialAccessTokenRef *SecretKeyRef `yaml:"initialAccessTokenRef"`
	// SoftwareID is sent as `software_id`.
	SoftwareID string `yaml:"softwareId"`
	// SoftwareStatement is sent as `software_statement`: signed, not secret.
	SoftwareStatement string `yaml:"softwareStatement" text:"true"`
}

// UserInfo says how to ask a provider who logged in.
type UserInfo struct {
	// EndpointURL to ask.
	EndpointURL string `yaml:"endpointUrl" required:"true"`
	// HTTPMethod is `GET` or `POST`. Default `GET`.
	HTTPMethod string `yaml:"httpMethod" enum:"GET,POST" default:"GET"`
	// AdditionalHeaders are sent along, such as `Accept`. Not for secrets.
	AdditionalHeaders map[string]string `yaml:"additionalHeaders"`
	// FieldMapping names the fields of the answer where they are not OIDC's.
	FieldMapping *FieldMapping `yaml:"fieldMapping"`
}

// FieldMapping names fields of a userinfo answer. The first one with a value counts.
type FieldMapping struct {
	// SubjectFields identify the user. Default `[sub]`. Only for type `oauth2`:
	// with type `oidc`, `subjectClaim` of the id token does.
	SubjectFields []string `yaml:"subjectFields"`
	// NameFields are shown to people. Default `[name]`.
	NameFields []string `yaml:"nameFields"`
	// EmailFields are shown to people. Default `[email]`.
	EmailFields []string `yaml:"emailFields"`
}

// TokenResponseMapping says where a token response has its fields, as paths of
// object keys joined by dots. `\.` is a dot inside a key.
type TokenResponseMapping struct {
	// AccessTokenPath, such as `authed_user.access_token`.
	AccessTokenPath string `yaml:"accessTokenPath" required:"true"`
	// ScopePath. Default `scope`.
	ScopePath string `yaml:"scopePath" default:"scope"`
	// RefreshTokenPath. Default `refresh_token`.
	RefreshTokenPath string `yaml:"refreshTokenPath" default:"refresh_token"`
	// ExpiresInPath, a number of seconds. Default `expires_in`.
	ExpiresInPath string `yaml:"expiresInPath" default:"expires_in"`
}

// IdentityFromToken says where a token response has the identity, as paths of
// object keys joined by dots. `\.` is a dot inside a key. A JWT in the response
// can be looked into: `access_token|@upstreamjwt|sub`.
type IdentityFromToken struct {
	// SubjectPath identifies the user, such as `authed_user.id`.
	SubjectPath string `yaml:"subjectPath" required:"true"`
	// NamePath is shown to people.
	NamePath string `yaml:"namePath"`
	// EmailPath is shown to people.
	EmailPath string `yaml:"emailPath"`
}
