package config

// MCPExternalAuthConfig says with which credential a backend is called.
type MCPExternalAuthConfig struct {
	// Metadata of the resource.
	Metadata Metadata `yaml:"metadata" required:"true"`
	// Spec of the strategy.
	Spec ExternalAuthSpec `yaml:"spec" required:"true"`
}

// ExternalAuthSpec is a strategy: its type, and the block of that name.
type ExternalAuthSpec struct {
	// Type of the strategy. `xaa`, `obo` and `awsSts` are read and checked, and
	// refused for a backend: this version does not implement them.
	Type string `yaml:"type" required:"true" enum:"upstreamInject,tokenExchange,headerInjection,bearerToken,unauthenticated,xaa,obo,awsSts,embeddedAuthServer"`
	// ExposeToClients would let operators fetch tokens of this configuration from
	// the broker. Only for type `tokenExchange`. Not supported by this version: a warning.
	ExposeToClients bool `yaml:"exposeToClients"`
	// UpstreamInject sends the stored access token of a provider.
	UpstreamInject *UpstreamInject `yaml:"upstreamInject"`
	// TokenExchange sends a token minted by RFC 8693 exchange.
	TokenExchange *TokenExchange `yaml:"tokenExchange"`
	// HeaderInjection sends a secret in a header.
	HeaderInjection *HeaderInjection `yaml:"headerInjection"`
	// BearerToken sends a secret as bearer token.
	BearerToken *BearerToken `yaml:"bearerToken"`
	// XAA is cross-application access. Not supported by this version.
	XAA *XAA `yaml:"xaa"`
	// OBO is Microsoft Entra's on-behalf-of flow. Not supported by this version.
	OBO *OBO `yaml:"obo"`
	// AWSSTS signs requests with credentials of AWS STS. Not supported by this version.
	AWSSTS *AWSSTS `yaml:"awsSts"`
	// EmbeddedAuthServer belongs to ToolHive's MCPServer. Here the authorization
	// server is `spec.authServerConfig` of the VirtualMCPServer.
	EmbeddedAuthServer *AuthServerConfig `yaml:"embeddedAuthServer"`
}

// UpstreamInject sends the stored access token of a provider as bearer token.
type UpstreamInject struct {
	// ProviderName is one of `authServerConfig.upstreamProviders`.
	ProviderName string `yaml:"providerName"`
}

// TokenExchange sends a token that an RFC 8693 token service mints.
type TokenExchange struct {
	// TokenURL is the token endpoint.
	TokenURL string `yaml:"tokenUrl" required:"true"`
	// ClientID at the token service.
	ClientID string `yaml:"clientId"`
	// ClientSecretRef names the client's secret.
	ClientSecretRef *SecretKeyRef `yaml:"clientSecretRef"`
	// ClientAuthMethod is how the client authenticates: `basic` or `post` with the
	// secret, `private_key_jwt` with the key. Default: the key where there is one;
	// with a secret `basic`, and `post` where that is refused.
	ClientAuthMethod string `yaml:"clientAuthMethod" enum:"basic,post,private_key_jwt"`
	// ClientKeyRef names the client's private key, in PEM, instead of a secret. A
	// certificate in the same PEM is named in assertions (`x5t`).
	ClientKeyRef *SecretKeyRef `yaml:"clientKeyRef"`
	// ClientKeyID is the key's `kid` there. Default: the key's RFC 7638 thumbprint,
	// or the certificate's `x5t`.
	ClientKeyID string `yaml:"clientKeyId"`
	// ClientAssertionAudience is the `aud` of assertions that the key signs.
	// Default: `tokenUrl`.
	ClientAssertionAudience string `yaml:"clientAssertionAudience"`
	// Audience to ask for.
	Audience string `yaml:"audience" required:"true"`
	// Scopes to ask for.
	Scopes []string `yaml:"scopes" format:"scope"`
	// SubjectTokenType is `access_token` (the default), `id_token`, `jwt`, `saml1`,
	// `saml2` or `refresh_token`, or the full URN of one of them. The stored access
	// token is sent as `access_token`, `jwt`, `saml1` or `saml2`. Only a provider of
	// type `oidc` has an `id_token`.
	SubjectTokenType string `yaml:"subjectTokenType" enum:"access_token,refresh_token,id_token,saml1,saml2,jwt,urn:ietf:params:oauth:token-type:access_token,urn:ietf:params:oauth:token-type:refresh_token,urn:ietf:params:oauth:token-type:id_token,urn:ietf:params:oauth:token-type:saml1,urn:ietf:params:oauth:token-type:saml2,urn:ietf:params:oauth:token-type:jwt"`
	// InsecureSendRefreshToken permits `subjectTokenType: refresh_token`. The token
	// service can then act for the person for as long as that token lives, and a
	// provider that rotates refresh tokens ends the connection if it uses one.
	InsecureSendRefreshToken bool `yaml:"insecureSendRefreshToken"`
	// ActorToken `minted` sends a JWT of the authorization server's about the client
	// that acts (`actor_token`), so that the token service can put it into `act`.
	ActorToken string `yaml:"actorToken" enum:"minted"`
	// RequestedTokenType is what to ask for: `access_token` (the default), `jwt`,
	// `id_token`, `saml1` or `saml2`, or the full URN of one of them. The last three
	// are no bearer tokens and need `externalTokenHeaderName`.
	RequestedTokenType string `yaml:"requestedTokenType" enum:"access_token,jwt,id_token,saml1,saml2,urn:ietf:params:oauth:token-type:access_token,urn:ietf:params:oauth:token-type:jwt,urn:ietf:params:oauth:token-type:id_token,urn:ietf:params:oauth:token-type:saml1,urn:ietf:params:oauth:token-type:saml2"`
	// SubjectProviderName is the provider whose stored token is exchanged.
	// Without it, a token of the authorization server itself is, and the token
	// service must trust that issuer.
	SubjectProviderName string `yaml:"subjectProviderName"`
	// ExternalTokenHeaderName is a header that gets the token instead of `Authorization`.
	ExternalTokenHeaderName string `yaml:"externalTokenHeaderName"`
	// AdditionalParameters are added to the request for token services that ask
	// for one more, such as Dex's `connector_id`.
	AdditionalParameters map[string]string `yaml:"additionalParameters"`
	// CABundleRef names certificates to trust beside the system's.
	CABundleRef *CABundleRef `yaml:"caBundleRef"`
	// AllowPrivateIPs permits the token service to have a private address. Default
	// `true`: its URL is the operator's own.
	AllowPrivateIPs *bool `yaml:"allowPrivateIPs"`
	// InsecureAllowHTTP permits `http` beyond loopback addresses. For development only.
	InsecureAllowHTTP bool `yaml:"insecureAllowHTTP"`
}

// HeaderInjection sends a secret in a header.
type HeaderInjection struct {
	// HeaderName is the name of the header, such as `X-API-Key`.
	HeaderName string `yaml:"headerName" required:"true"`
	// ValueSecretRef names the value.
	ValueSecretRef *SecretKeyRef `yaml:"valueSecretRef" required:"true"`
}

// BearerToken sends a secret as bearer token.
type BearerToken struct {
	// TokenSecretRef names the token.
	TokenSecretRef *SecretKeyRef `yaml:"tokenSecretRef" required:"true"`
}

// XAA is cross-application access: an identity assertion grant in two steps.
type XAA struct {
	// IDPTokenURL is the token endpoint of the identity provider.
	IDPTokenURL string `yaml:"idpTokenUrl" required:"true"`
	// IDPClientID is the client at the identity provider.
	IDPClientID string `yaml:"idpClientId"`
	// IDPClientSecretRef names that client's secret.
	IDPClientSecretRef *SecretKeyRef `yaml:"idpClientSecretRef"`
	// TargetTokenURL is the token endpoint of the target.
	TargetTokenURL string `yaml:"targetTokenUrl" required:"true"`
	// InsecureTargetTokenURL permits `http` for it.
	InsecureTargetTokenURL bool `yaml:"insecureTargetTokenUrl"`
	// TargetClientID is the client at the target.
	TargetClientID string `yaml:"targetClientId"`
	// TargetClientSecretRef names that client's secret.
	TargetClientSecretRef *SecretKeyRef `yaml:"targetClientSecretRef"`
	// TargetAudience is the authorization server that the assertion is for.
	TargetAudience string `yaml:"targetAudience" required:"true"`
	// TargetResource is the resource that the token is for.
	TargetResource string `yaml:"targetResource"`
	// Scopes to ask for.
	Scopes []string `yaml:"scopes" format:"scope"`
	// SubjectProviderName is the provider whose id token is used.
	SubjectProviderName string `yaml:"subjectProviderName"`
	// SubjectTokenType of that token.
	SubjectTokenType string `yaml:"subjectTokenType" enum:"urn:ietf:params:oauth:token-type:id_token"`
}

// OBO is Microsoft Entra's on-behalf-of flow.
type OBO struct {
	// TenantID is the directory's GUID or domain.
	TenantID string `yaml:"tenantId"`
	// Authority is the login host of a sovereign cloud.
	Authority string `yaml:"authority"`
	// ClientID of the confidential client.
	ClientID string `yaml:"clientId"`
	// ClientSecretRef names its secret.
	ClientSecretRef *SecretKeyRef `yaml:"clientSecretRef"`
	// Audience to ask for when there are no scopes.
	Audience string `yaml:"audience"`
	// Scopes to ask for.
	Scopes []string `yaml:"scopes" format:"scope"`
	// SubjectTokenProviderName is the provider whose token is used.
	SubjectTokenProviderName string `yaml:"subjectTokenProviderName"`
	// CacheSkew is how long before its expiry a token is dropped.
	CacheSkew *Duration `yaml:"cacheSkew"`
}

// AWSSTS signs requests with temporary credentials of AWS STS.
type AWSSTS struct {
	// Region such as `eu-west-1`.
	Region string `yaml:"region" required:"true"`
	// Service that is signed for.
	Service string `yaml:"service" default:"aws-mcp"`
	// FallbackRoleARN is assumed when no mapping matches.
	FallbackRoleARN string `yaml:"fallbackRoleArn"`
	// RoleMappings choose a role by claims.
	RoleMappings []RoleMapping `yaml:"roleMappings"`
	// RoleClaim that the mappings look at.
	RoleClaim string `yaml:"roleClaim" default:"groups"`
	// SessionDuration in seconds, from 900 to 43200.
	SessionDuration *int `yaml:"sessionDuration"`
	// SessionNameClaim names the session.
	SessionNameClaim string `yaml:"sessionNameClaim" default:"sub"`
	// SubjectProviderName is the provider whose token is used.
	SubjectProviderName string `yaml:"subjectProviderName"`
}

// RoleMapping chooses an AWS role.
type RoleMapping struct {
	// Claim value to look for. Exactly one of this and `matcher` is set.
	Claim string `yaml:"claim"`
	// Matcher is a CEL expression over the claims.
	Matcher string `yaml:"matcher" text:"true"`
	// RoleARN to assume.
	RoleARN string `yaml:"roleArn" required:"true"`
	// Priority: lower numbers are tried first.
	Priority *int `yaml:"priority"`
}
