package corp

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// maxForm bounds the forms that the provider reads, in bytes.
const maxForm = 64 << 10

// discovery serves OpenID Connect Discovery 1.0: what the library would say,
// less what this provider does not do, and RFC 9207 section 3.
func (p *Provider) discovery(w http.ResponseWriter, r *http.Request) {
	ctx := op.ContextWithIssuer(r.Context(), p.issuer)
	cfg := op.CreateDiscoveryConfig(ctx, p.op, p.storage)
	cfg.ResponseTypesSupported = []string{string(oidc.ResponseTypeCode)}
	cfg.ResponseModesSupported = []string{string(oidc.ResponseModeQuery)}
	cfg.GrantTypesSupported = supportedGrants()
	methods := []oidc.AuthMethod{oidc.AuthMethodBasic, oidc.AuthMethodPost} // no public clients
	cfg.TokenEndpointAuthMethodsSupported, cfg.RevocationEndpointAuthMethodsSupported = methods, methods
	cfg.DeviceAuthorizationEndpoint, cfg.EndSessionEndpoint = "", ""
	cfg.RequestObjectSigningAlgValuesSupported = nil
	answer(w, http.StatusOK, struct {
		*oidc.DiscoveryConfiguration
		IssParameter bool `json:"authorization_response_iss_parameter_supported"`
	}{cfg, true})
}

func supportedGrants() []oidc.GrantType {
	return []oidc.GrantType{oidc.GrantTypeCode, oidc.GrantTypeRefreshToken, oidc.GrantTypeTokenExchange}
}

// back guards the endpoints that clients call: bounded forms, parameters in the
// body alone (RFC 6749 section 2.3.1), nothing cached.
func back(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		noStore(w)
		w.Header().Set("Pragma", "no-cache")
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		if err := r.ParseForm(); err != nil || r.URL.RawQuery != "" {
			oauthError(w, http.StatusBadRequest, "invalid_request", "send the parameters as a form, in the body alone")
			return
		}
		for name, values := range r.PostForm {
			// RFC 8693 section 2.1 lets these two repeat; RFC 6749 section 3.2 no other.
			if len(values) > 1 && name != "audience" && name != "resource" {
				oauthError(w, http.StatusBadRequest, "invalid_request", "a parameter is sent twice")
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// tokenChecks refuses grants that the library has and this provider does not,
// and lets clients of a token exchange authenticate by post as well: the library
// reads only Basic there.
func (p *Provider) tokenChecks(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		grant := oidc.GrantType(r.PostForm.Get("grant_type"))
		switch {
		case grant == "":
			oauthError(w, http.StatusBadRequest, "invalid_request", "grant_type is missing")
			return
		case !slices.Contains(supportedGrants(), grant):
			oauthError(w, http.StatusBadRequest, "unsupported_grant_type", "")
			return
		}
		if grant == oidc.GrantTypeTokenExchange && r.PostForm.Has("client_secret") {
			if r.Header.Get("Authorization") != "" {
				oauthError(w, http.StatusBadRequest, "invalid_request", "authenticate in one way only")
				return
			}
			r.SetBasicAuth(url.QueryEscape(r.PostForm.Get("client_id")), url.QueryEscape(r.PostForm.Get("client_secret")))
		}
		next.ServeHTTP(w, r)
	})
}

// userinfo serves OpenID Connect Core section 5.3. The library's own endpoint
// answers 403 to a revoked token; RFC 6750 section 3.1 wants 401.
func (p *Provider) userinfo(w http.ResponseWriter, r *http.Request) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		w.Header().Set("WWW-Authenticate", `Bearer realm="corp"`)
		http.Error(w, "a bearer token is required", http.StatusUnauthorized)
		return
	}
	plain, err := p.crypto.Decrypt(token)
	id, subject, _ := strings.Cut(plain, ":")
	info := new(oidc.UserInfo)
	if err == nil {
		err = p.storage.SetUserinfoFromToken(r.Context(), info, id, subject, "")
	}
	if err != nil {
		w.Header().Set("WWW-Authenticate", `Bearer realm="corp", error="invalid_token"`)
		http.Error(w, "the token is not valid", http.StatusUnauthorized)
		return
	}
	noStore(w)
	answer(w, http.StatusOK, info)
}

// withIssuer adds iss to authorization responses (RFC 9207 section 2), which
// the library does not: every redirect that leaves the provider is one.
func (p *Provider) withIssuer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := op.ContextWithIssuer(r.Context(), p.issuer)
		next.ServeHTTP(&issWriter{ResponseWriter: w, issuer: p.issuer}, r.WithContext(ctx))
	})
}

type issWriter struct {
	http.ResponseWriter
	issuer string
	// changed: the body still names the other URL, and is not sent.
	changed bool
}

func (w *issWriter) WriteHeader(status int) {
	if u, err := url.Parse(w.Header().Get("Location")); err == nil && u.IsAbs() {
		q := u.Query()
		q.Set("iss", w.issuer)
		u.RawQuery = q.Encode()
		w.Header().Set("Location", u.String())
		w.Header().Del("Content-Type")
		w.changed = true
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *issWriter) Write(b []byte) (int, error) {
	if w.changed {
		return len(b), nil
	}
	return w.ResponseWriter.Write(b)
}

func (w *issWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func oauthError(w http.ResponseWriter, status int, code, description string) {
	answer(w, status, struct {
		Error       string `json:"error"`
		Description string `json:"error_description,omitempty"`
	}{code, description})
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // an error means that the client is gone
}
