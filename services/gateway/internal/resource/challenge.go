package resource

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"chatelaine.dev/internal/bearer"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/gateway/internal/accesslog"
)

var (
	errNoToken   = errors.New("no access token")
	errTwoTokens = errors.New("more than one Authorization header")
)

// errScope is that of a token without one of the scopes that each must have.
type errScope string

func (e errScope) Error() string { return "the access token lacks the scope " + string(e) }

// Error codes of RFC 6750, section 3.1.
const (
	codeInvalidRequest    = "invalid_request"
	codeInvalidToken      = "invalid_token"
	codeInsufficientScope = "insufficient_scope"
)

// Challenge answers a request whose token turned out to be no longer good: 401
// with error="invalid_token". It is for errors that are found after Protect has
// let the request through, such as a session that the broker knows to have ended.
func (s *Server) Challenge(w http.ResponseWriter, r *http.Request, backend string, err error) {
	p := s.resources[backend]
	if p == nil { // anonymous: there is no token to be had
		accesslog.From(r.Context()).Fail(accesslog.OutcomeFailed, fault.ReasonOf(err))
		http.Error(w, http.StatusText(http.StatusBadGateway), http.StatusBadGateway)
		return
	}
	p.refuse(w, r, err)
}

// refuse answers with the status and the challenge that err deserves.
func (p *protected) refuse(w http.ResponseWriter, r *http.Request, err error) {
	rec := accesslog.From(r.Context())
	switch {
	case errors.Is(err, errNoToken): // RFC 6750, section 3: no error code then
		rec.Fail(accesslog.OutcomeRefused, "no_token")
		p.answer(w, http.StatusUnauthorized, "", "an access token is required")
	case errors.Is(err, errTwoTokens):
		rec.Fail(accesslog.OutcomeRefused, codeInvalidRequest)
		p.answer(w, http.StatusBadRequest, codeInvalidRequest, err.Error())
	case isScope(err):
		rec.Fail(accesslog.OutcomeRefused, codeInsufficientScope)
		p.answer(w, http.StatusForbidden, codeInsufficientScope, err.Error())
	default:
		f := fault.From(err)
		rec.Fail(accesslog.OutcomeRefused, f.Reason)
		if f.Kind == fault.Unauthenticated {
			p.answer(w, http.StatusUnauthorized, codeInvalidToken, f.Error())
			return
		}
		rec.Outcome = accesslog.OutcomeFailed
		if f.Reason == bearer.ReasonKeys { // nobody can tell whether the token is good
			w.Header().Set("Retry-After", "5")
		}
		writeError(w, f.Kind.HTTPStatus(), "temporarily_unavailable", f.Error())
	}
}

func isScope(err error) bool {
	_, ok := errors.AsType[errScope](err)
	return ok
}

// answer writes a challenge (RFC 6750, section 3; RFC 9728, section 5.1).
func (p *protected) answer(w http.ResponseWriter, status int, code, description string) {
	challenge := "Bearer "
	if code != "" {
		challenge += `error="` + code + `", error_description="` + quotable(description) + `", `
	}
	w.Header().Set("WWW-Authenticate", challenge+p.parameters)
	if code == "" {
		code = codeInvalidToken
	}
	writeError(w, status, code, description)
}

func writeError(w http.ResponseWriter, status int, code, description string) {
	body, err := json.Marshal(map[string]string{"error": code, "error_description": description})
	if err != nil { // cannot be: strings can be marshalled
		body = []byte("{}")
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client went away: nobody to tell
}

// quotable keeps what an error_description may hold (RFC 6750, section 3).
func quotable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e || r == '"' || r == '\\' {
			return '\''
		}
		return r
	}, s)
}
