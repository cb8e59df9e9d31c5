// Package brokerv1 is the broker's gRPC interface: generated code, and the reasons of its
// errors. The .proto files beside it say what each call does.
package brokerv1

// Reasons of the broker's errors: values of google.rpc.ErrorInfo.reason, by which callers
// decide. Which service answers with which is said in the .proto files.
const (
	// ReasonSessionEnded: the session is over, expired or was never active.
	ReasonSessionEnded = "SESSION_ENDED"
	// ReasonSessionLocked: the session cannot be used until the person logs in again; it has not ended.
	ReasonSessionLocked = "SESSION_LOCKED"
	// ReasonSessionNotFound: there is no session of this id.
	ReasonSessionNotFound = "SESSION_NOT_FOUND"
	// ReasonClientMismatch: the session belongs to another OAuth client.
	ReasonClientMismatch = "CLIENT_MISMATCH"
	// ReasonProviderUnknown: the configuration has no provider of this name.
	ReasonProviderUnknown = "PROVIDER_UNKNOWN"
	// ReasonProviderRequired: a provider that may not be left out is missing or was to be skipped.
	ReasonProviderRequired = "PROVIDER_REQUIRED"
	// ReasonPrimaryRequired: the primary provider's leg must run first.
	ReasonPrimaryRequired = "PRIMARY_REQUIRED"
	// ReasonIdentityInvalid: what the upstream said about the person failed a check.
	ReasonIdentityInvalid = "IDENTITY_INVALID"
	// ReasonTooManyLogins: so many logins are under way that no other may begin.
	ReasonTooManyLogins = "TOO_MANY_LOGINS"
	// ReasonUserNotFound: there is no user of this id.
	ReasonUserNotFound = "USER_NOT_FOUND"
	// ReasonConnectionRequired: the session has no connection at the provider.
	ReasonConnectionRequired = "CONNECTION_REQUIRED"
	// ReasonConnectionNotFound: there is no connection of this id.
	ReasonConnectionNotFound = "CONNECTION_NOT_FOUND"
	// ReasonReauthenticationRequired: the provider no longer accepts the tokens.
	ReasonReauthenticationRequired = "REAUTHENTICATION_REQUIRED"
	// ReasonUpstreamUnavailable: the provider could not be asked, or did not answer for certain.
	ReasonUpstreamUnavailable = "UPSTREAM_UNAVAILABLE"
	// ReasonUpstreamRefused: the provider answered no, for certain; metadata has its OAuth error code.
	ReasonUpstreamRefused = "UPSTREAM_REFUSED"
	// ReasonUserRequired: the credential needs a person and the call has none.
	ReasonUserRequired = "USER_REQUIRED"
	// ReasonConfigUnknown: the digest is of no configuration that the broker has.
	ReasonConfigUnknown = "CONFIG_UNKNOWN"
	// ReasonBackendUnknown: the configuration has no backend of this name.
	ReasonBackendUnknown = "BACKEND_UNKNOWN"
	// ReasonTokenInvalid: the access token does not open this backend.
	ReasonTokenInvalid = "TOKEN_INVALID"
	// ReasonVersionMismatch: somebody else wrote the value first.
	ReasonVersionMismatch = "VERSION_MISMATCH"
	// ReasonPositionUnknown: the event log cannot resume there; drop what is cached and watch from 0.
	ReasonPositionUnknown = "POSITION_UNKNOWN"
)
