package credentials

import (
	"time"

	"chatelaine.dev/internal/secret"
	brokerv1 "chatelaine.dev/proto/broker/v1"
)

// Reasons of errors. Those of the broker are defined by its CredentialService
// (proto/broker/v1) and pass through unchanged.
const (
	// ReasonConnectionRequired: the person never connected the provider.
	ReasonConnectionRequired = brokerv1.ReasonConnectionRequired
	// ReasonReauthenticationRequired: the provider must be connected again.
	ReasonReauthenticationRequired = brokerv1.ReasonReauthenticationRequired
	// ReasonSessionEnded: the caller's session is over; the token opens nothing.
	ReasonSessionEnded = brokerv1.ReasonSessionEnded
	// ReasonUserRequired: the backend needs a person, and nobody is logged in.
	ReasonUserRequired = brokerv1.ReasonUserRequired
	// ReasonUpstreamUnavailable: the provider does not answer.
	ReasonUpstreamUnavailable = brokerv1.ReasonUpstreamUnavailable
	// ReasonConfigUnknown: gateway and broker run with different resources.
	ReasonConfigUnknown = brokerv1.ReasonConfigUnknown
	// ReasonBackendUnknown: the broker's resources have no such backend.
	ReasonBackendUnknown = brokerv1.ReasonBackendUnknown
	// ReasonTokenInvalid: the broker does not accept the caller's access token.
	ReasonTokenInvalid = brokerv1.ReasonTokenInvalid

	// ReasonBrokerUnavailable is ours: the broker does not answer.
	ReasonBrokerUnavailable = "BROKER_UNAVAILABLE"
)

// Credential is what requests to one backend must carry for one caller. It is
// immutable and shared.
type Credential struct {
	// Headers to set; empty when the backend takes none.
	Headers []Header
	// Origin (scheme://host[:port]) that the headers may be sent to, and no other.
	Origin string
	// ExpiresAt is when it must no longer be used; zero when it has no end.
	ExpiresAt time.Time
	// SessionID and ConnectionID that it was opened for; empty where there is none.
	SessionID, ConnectionID string
	// Provider that it came from; empty for static strategies.
	Provider string
	// Version is opaque, for ReportRejected; empty when there is nothing to renew.
	Version string
	// ObservedPosition is the newest event that it takes into account.
	ObservedPosition int64
}

// Header is one HTTP header.
type Header struct {
	// Name in canonical form.
	Name  string
	Value secret.String
}
