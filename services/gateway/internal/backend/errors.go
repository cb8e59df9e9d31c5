package backend

import (
	"context"
	"errors"
	"net"
	"net/http"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/outbound"
	"chatelaine.dev/services/gateway/internal/credentials"
)

// Reasons of errors, beside those of package credentials. The metadata have
// "backend", and "provider" where there is one.
const (
	// ReasonUnknown: there is no such backend.
	ReasonUnknown = "BACKEND_UNKNOWN"
	// ReasonUnavailable: the backend cannot be reached.
	ReasonUnavailable = "BACKEND_UNAVAILABLE"
	// ReasonTimeout: the backend did not answer in time.
	ReasonTimeout = "BACKEND_TIMEOUT"
	// ReasonAddress: the backend's address is not one that it may have.
	ReasonAddress = "BACKEND_ADDRESS_REFUSED"
	// ReasonRedirect: the backend answered with a redirect, which is not followed.
	ReasonRedirect = "BACKEND_REDIRECT"
	// ReasonRejected: the backend answered 401, also to a fresh credential.
	ReasonRejected = "CREDENTIAL_REJECTED"
	// ReasonForbidden: the backend answered 403.
	ReasonForbidden = "BACKEND_FORBIDDEN"
	// ReasonTokenExpired: the caller's access token ended while the answer came.
	ReasonTokenExpired = "TOKEN_EXPIRED"
	// ReasonOrigin: the credential is for another origin.
	ReasonOrigin = "CREDENTIAL_ORIGIN"
)

// Outcomes, for metrics.
const (
	outcomeOK          = "ok"
	outcomeClientError = "client_error"
	outcomeServerError = "server_error"
	outcomeUnavailable = "unavailable"
	outcomeTimeout     = "timeout"
	outcomeRejected    = "rejected"
	outcomeCredential  = "credential"
	outcomeCanceled    = "canceled"
)

func outcomes() []string {
	return []string{
		outcomeOK, outcomeClientError, outcomeServerError, outcomeUnavailable,
		outcomeTimeout, outcomeRejected, outcomeCredential, outcomeCanceled,
	}
}

func outcomeOf(resp *http.Response, err error) string {
	if err == nil {
		switch {
		case resp.StatusCode >= http.StatusInternalServerError:
			return outcomeServerError
		case resp.StatusCode >= http.StatusBadRequest:
			return outcomeClientError
		}
		return outcomeOK
	}
	f := fault.From(err)
	if f.Kind == fault.Canceled {
		return outcomeCanceled
	}
	switch f.Reason {
	case ReasonUnavailable, ReasonAddress, ReasonRedirect, ReasonUnknown:
		return outcomeUnavailable
	case ReasonTimeout:
		return outcomeTimeout
	case ReasonRejected, ReasonForbidden, ReasonOrigin:
		return outcomeRejected
	}
	return outcomeCredential
}

// named adds the backend to the metadata.
func (t *target) named(err error) error {
	f := fault.From(err)
	if f.Metadata["backend"] == t.name {
		return f
	}
	kv := []string{"backend", t.name}
	return f.WithReason(f.Reason, kv...)
}

// failure says why a round trip did not work.
func (t *target) failure(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if f, ok := fault.As(cause); ok { // whoever ended the context has said why
		return f
	}
	var timeout net.Error
	switch {
	case errors.Is(cause, errHeaderTimeout), errors.Is(cause, context.DeadlineExceeded):
		return fault.Wrap(fault.Timeout, err, "backend "+t.name+" did not answer in time").WithReason(ReasonTimeout)
	case ctx.Err() != nil:
		return fault.Wrap(fault.Canceled, err, "")
	case outbound.IsRefused(err):
		return fault.Wrap(fault.Unavailable, err, "backend "+t.name+" has an address that it may not have").WithReason(ReasonAddress)
	case errors.As(err, &timeout) && timeout.Timeout():
		return fault.Wrap(fault.Timeout, err, "backend "+t.name+" did not answer in time").WithReason(ReasonTimeout)
	}
	return fault.Wrap(fault.Unavailable, err, "backend "+t.name+" cannot be reached").WithReason(ReasonUnavailable)
}

// checked passes an answer on unless its status would mean something else
// coming from us.
func (t *target) checked(resp *http.Response, cred *credentials.Credential, err error) (*http.Response, error) {
	if err != nil {
		return nil, err
	}
	switch {
	case resp.StatusCode < http.StatusOK, resp.StatusCode > 599: // 101 would give the connection away
		_ = resp.Body.Close() // its end cannot be waited for
		return nil, fault.Newf(fault.Unavailable, "backend %s answered with status %d, which has no meaning here", t.name, resp.StatusCode).
			WithReason(ReasonUnavailable)
	case resp.StatusCode == http.StatusForbidden, resp.StatusCode == http.StatusProxyAuthRequired:
		discard(resp)
		return nil, t.withProvider(fault.Newf(fault.Denied, "backend %s refused the request (status %d)", t.name, resp.StatusCode),
			ReasonForbidden, cred)
	case resp.StatusCode >= http.StatusMultipleChoices && resp.StatusCode < http.StatusBadRequest:
		discard(resp)
		return nil, fault.Newf(fault.Unavailable, "backend %s answered with a redirect (status %d), which is not followed",
			t.name, resp.StatusCode).WithReason(ReasonRedirect)
	}
	return resp, nil
}

func (t *target) rejected(cred *credentials.Credential) error {
	return t.withProvider(fault.Newf(fault.Precondition, "backend %s does not accept the credential", t.name), ReasonRejected, cred)
}

func (t *target) withProvider(f *fault.Error, reason string, cred *credentials.Credential) error {
	if cred.Provider == "" {
		return f.WithReason(reason)
	}
	return f.WithReason(reason, "provider", cred.Provider)
}
