package reason

import brokerv1 "chatelaine.dev/proto/broker/v1"

// The reasons that callers learn; package brokerv1 says what each means.
const (
	SessionEnded             = brokerv1.ReasonSessionEnded
	SessionLocked            = brokerv1.ReasonSessionLocked
	SessionNotFound          = brokerv1.ReasonSessionNotFound
	ClientMismatch           = brokerv1.ReasonClientMismatch
	ProviderUnknown          = brokerv1.ReasonProviderUnknown
	ProviderRequired         = brokerv1.ReasonProviderRequired
	PrimaryRequired          = brokerv1.ReasonPrimaryRequired
	IdentityInvalid          = brokerv1.ReasonIdentityInvalid
	TooManyLogins            = brokerv1.ReasonTooManyLogins
	UserNotFound             = brokerv1.ReasonUserNotFound
	ConnectionRequired       = brokerv1.ReasonConnectionRequired
	ConnectionNotFound       = brokerv1.ReasonConnectionNotFound
	ReauthenticationRequired = brokerv1.ReasonReauthenticationRequired
	UpstreamUnavailable      = brokerv1.ReasonUpstreamUnavailable
	UpstreamRefused          = brokerv1.ReasonUpstreamRefused
	UserRequired             = brokerv1.ReasonUserRequired
	ConfigUnknown            = brokerv1.ReasonConfigUnknown
	BackendUnknown           = brokerv1.ReasonBackendUnknown
	TokenInvalid             = brokerv1.ReasonTokenInvalid
	VersionMismatch          = brokerv1.ReasonVersionMismatch
	PositionUnknown          = brokerv1.ReasonPositionUnknown
)

// Metadata keys.
const (
	// Provider names the provider that an error is about.
	Provider = "provider"
	// OAuthError is the upstream's error code (RFC 6749, section 5.2).
	OAuthError = "oauth_error"
)
