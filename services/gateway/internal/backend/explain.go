package backend

import (
	"fmt"
	"net/http"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/gateway/internal/credentials"
	"chatelaine.dev/services/gateway/internal/jsonrpc"
)

// Explanation is what a client is told about an error of Do.
type Explanation struct {
	// Text is for the model and its user.
	Text string
	// Code is that of a JSON-RPC error.
	Code int
	// Status is that of an HTTP answer without a JSON-RPC request to answer, or
	// where the transport itself failed. It is 401 when the caller's own access
	// token is no longer good, and only then.
	Status int
	// Reason is the error's, Backend and Provider are its metadata.
	Reason, Backend, Provider string
	// UserCanFix is true when the person can do something about it, by
	// connecting Provider (again): the transport works, so a request with an id
	// is answered with 200.
	UserCanFix bool
}

// Explain says what to tell a client about err.
func Explain(err error) Explanation {
	f := fault.From(err)
	e := Explanation{
		Code: jsonrpc.CodeUnavailable, Status: f.Kind.HTTPStatus(), Reason: f.Reason,
		Backend: f.Metadata["backend"], Provider: f.Metadata["provider"],
	}
	if e.Provider == "" && e.ofDeployment(f) {
		return e
	}
	provider := e.Provider
	if provider == "" {
		provider = "its provider"
	}
	switch f.Reason {
	case credentials.ReasonConnectionRequired:
		e.Text = fmt.Sprintf("%s needs a connection to %s, and there is none yet. Log in again and connect %s.", backendName(e.Backend), provider, provider)
		e.needsUser()
	case credentials.ReasonReauthenticationRequired:
		e.Text = fmt.Sprintf("The connection to %s, which %s needs, is no longer valid. Log in again to renew %s; other connections still work.", provider, backendName(e.Backend), provider)
		e.needsUser()
	case ReasonRejected:
		e.Text = fmt.Sprintf("%s does not accept the credential from %s, although it was renewed if it could be. Log in again to connect %s anew; if that does not help, tell your administrator.", backendName(e.Backend), provider, provider)
		e.needsUser()
	case ReasonForbidden:
		e.Text = fmt.Sprintf("%s refused the request: the account or its connection to %s lacks a permission. Log in again to grant it; if that does not help, tell your administrator.", backendName(e.Backend), provider)
		e.needsUser()
	case credentials.ReasonUserRequired:
		e.Text = fmt.Sprintf("%s needs a person who is logged in.", backendName(e.Backend))
		e.needsUser()
	case credentials.ReasonSessionEnded, credentials.ReasonTokenInvalid:
		e.Text = f.Error()
		e.Status = http.StatusUnauthorized // of ours: the broker found the caller's token wanting
	case credentials.ReasonUpstreamUnavailable:
		e.Text = fmt.Sprintf("%s, which %s needs, does not answer at the moment. Try again later.", provider, backendName(e.Backend))
		e.Status = http.StatusServiceUnavailable
	case credentials.ReasonBrokerUnavailable:
		e.Text = "Credentials cannot be had at the moment. Try again later."
		e.Status = http.StatusServiceUnavailable
	case credentials.ReasonConfigUnknown: // package credentials says which of them is behind
		e.Text = f.Error()
		e.Status = http.StatusServiceUnavailable
	case credentials.ReasonBackendUnknown:
		e.Text = "The gateway and the token broker run with different configurations. Try again shortly; if it lasts, tell your administrator."
		e.Status = http.StatusServiceUnavailable
	case ReasonUnavailable, ReasonAddress, ReasonRedirect:
		e.Text = backendName(e.Backend) + " is not available. Try again later."
		e.Status = http.StatusBadGateway
	case ReasonTimeout:
		e.Text = backendName(e.Backend) + " did not answer in time. Try again later; it may have done what it was asked."
		e.Status = http.StatusGatewayTimeout
	default:
		e.other(f)
	}
	return e
}

// ofDeployment explains what concerns a credential that rests on no provider: a
// secret of the deployment, or a token that was exchanged for one of the caller's. There
// is nothing that the person could connect.
func (e *Explanation) ofDeployment(f *fault.Error) bool {
	switch f.Reason {
	case ReasonRejected:
		e.Text = backendName(e.Backend) + " does not accept what the gateway sends as its credential. Tell your administrator."
		e.Status = http.StatusBadGateway
	case ReasonForbidden:
		e.Text = backendName(e.Backend) + " refused the request: what the gateway sends as its credential lacks a permission. Tell your administrator."
		e.Status = http.StatusBadGateway
	case credentials.ReasonUpstreamUnavailable:
		e.Text = fmt.Sprintf("%s cannot be given a credential: %s. Try again later; if it lasts, tell your administrator.", backendName(e.Backend), f.Error())
		e.Status = http.StatusServiceUnavailable
	default:
		return false
	}
	return true
}

func (e *Explanation) needsUser() {
	e.Code, e.Status, e.UserCanFix = jsonrpc.CodeConnectionRequired, http.StatusBadGateway, true
}

// other keeps statuses that only the gateway's own checks may give (400, 401,
// 403) from being given on a backend's account.
func (e *Explanation) other(f *fault.Error) {
	e.Text = f.Error()
	switch f.Kind {
	case fault.Internal, fault.Invalid, fault.Precondition, fault.Denied, fault.Unauthenticated, fault.Unimplemented:
		e.Code, e.Status = jsonrpc.CodeInternal, http.StatusBadGateway
	}
}

func backendName(name string) string {
	if name == "" {
		return "The backend"
	}
	return "Backend " + name
}

// Data returns the machine-readable part of a JSON-RPC error: reason, backend
// and provider, as far as they are known.
func (e *Explanation) Data() []byte {
	data := make([]byte, 0, 96)
	for _, member := range [...][2]string{{"reason", e.Reason}, {"backend", e.Backend}, {"provider", e.Provider}} {
		if member[1] == "" {
			continue
		}
		sep := byte(',')
		if len(data) == 0 {
			sep = '{'
		}
		data = append(data, sep, '"')
		data = append(data, member[0]...)
		data = append(data, '"', ':')
		data = jsonrpc.AppendString(data, member[1])
	}
	if len(data) == 0 {
		return nil
	}
	return append(data, '}')
}
