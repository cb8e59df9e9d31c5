package reason

// The reasons.
const (
	// SessionEnded: the session is over, expired or was never active.
	SessionEnded = "SESSION_ENDED"
	// SessionLocked: the session cannot be used until the person logs in again; it has not ended.
	SessionLocked = "SESSION_LOCKED"
	// SessionNotFound: there is no session of this id.
	SessionNotFound = "SESSION_NOT_FOUND"
	// ClientMismatch: the session belongs to another OAuth client.
	ClientMismatch = "CLIENT_MISMATCH"
	// ProviderUnknown: the configuration has no provider of this name.
	ProviderUnknown = "PROVIDER_UNKNOWN"
	// ProviderRequired: a provider that may not be left out is missing or was to be skipped.
	ProviderRequired = "PROVIDER_REQUIRED"
	// PrimaryRequired: the primary provider's leg must run first.
	PrimaryRequired = "PRIMARY_REQUIRED"
	// IdentityInvalid: what the upstream said about the person failed a check.
	IdentityInvalid = "IDENTITY_INVALID"
	// TooManyLogins: so many logins are under way that no other may begin.
	TooManyLogins = "TOO_MANY_LOGINS"
	// UserNotFound: there is no user of this id.
	UserNotFound = "USER_NOT_FOUND"
	// ConnectionRequired: the session has no connection at the provider.
	ConnectionRequired = "CONNECTION_REQUIRED"
	// ConnectionNotFound: there is no connection of this id.
	ConnectionNotFound = "CONNECTION_NOT_FOUND"
	// ReauthenticationRequired: the provider no longer accepts the tokens.
	ReauthenticationRequired = "REAUTHENTICATION_REQUIRED"
	// UpstreamUnavailable: the provider could not be asked, or did not answer for certain.
	UpstreamUnavailable = "UPSTREAM_UNAVAILABLE"
	// UpstreamRefused: the provider answered no, for certain; metadata has its OAuth error code.
	UpstreamRefused = "UPSTREAM_REFUSED"
	// UserRequired: the credential needs a person and the call has none.
	UserRequired = "USER_REQUIRED"
	// ConfigUnknown: the digest is of no configuration that the broker has.
	ConfigUnknown = "CONFIG_UNKNOWN"
	// BackendUnknown: the configuration has no backend of this name.
	BackendUnknown = "BACKEND_UNKNOWN"
	// TokenInvalid: the access token does not open this backend.
	TokenInvalid = "TOKEN_INVALID"
	// VersionMismatch: somebody else wrote the value first.
	VersionMismatch = "VERSION_MISMATCH"
	// PositionUnknown: the event log cannot resume there; drop what is cached and watch from 0.
	PositionUnknown = "POSITION_UNKNOWN"
)

// Metadata keys.
const (
	// Provider names the provider that an error is about.
	Provider = "provider"
	// OAuthError is the upstream's error code (RFC 6749, section 5.2).
	OAuthError = "oauth_error"
)
