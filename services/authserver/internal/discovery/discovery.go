package discovery

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/authserver/internal/web"
)

// Metadata is the document of RFC 8414, section 2, with RFC 9207, section 3.
type Metadata struct {
	Issuer                                     string   `json:"issuer"`
	AuthorizationEndpoint                      string   `json:"authorization_endpoint"`
	TokenEndpoint                              string   `json:"token_endpoint"`
	RegistrationEndpoint                       string   `json:"registration_endpoint"`
	RevocationEndpoint                         string   `json:"revocation_endpoint"`
	IntrospectionEndpoint                      string   `json:"introspection_endpoint"`
	JWKSURI                                    string   `json:"jwks_uri"`
	ScopesSupported                            []string `json:"scopes_supported"`
	ResponseTypesSupported                     []string `json:"response_types_supported"`
	ResponseModesSupported                     []string `json:"response_modes_supported"`
	GrantTypesSupported                        []string `json:"grant_types_supported"`
	TokenEndpointAuthMethodsSupported          []string `json:"token_endpoint_auth_methods_supported"`
	RevocationEndpointAuthMethodsSupported     []string `json:"revocation_endpoint_auth_methods_supported"`
	IntrospectionEndpointAuthMethodsSupported  []string `json:"introspection_endpoint_auth_methods_supported"`
	CodeChallengeMethodsSupported              []string `json:"code_challenge_methods_supported"`
	AuthorizationResponseIssParameterSupported bool     `json:"authorization_response_iss_parameter_supported"`

	// Required by OpenID Connect Discovery, section 3; empty in RFC 8414's document.
	SubjectTypesSupported            []string `json:"subject_types_supported,omitempty"`
	IDTokenSigningAlgValuesSupported []string `json:"id_token_signing_alg_values_supported,omitempty"`
}

// Keys is the key set.
type Keys interface {
	JWKS() ([]byte, error)
	Algorithm() string
}

// Config makes a Service.
type Config struct {
	// Issuer is published byte for byte.
	Issuer string
	// AuthorizationBaseURL is where browsers reach us.
	AuthorizationBaseURL string
	Scopes               []string
	// Confidential: clients may have secrets.
	Confidential bool
	Keys         Keys
	Logger       *slog.Logger
}

// Service serves the documents.
type Service struct {
	cfg                 Config
	path                string // of the issuer
	oauth, openIDConfig []byte
}

// New renders the documents.
func New(cfg Config) (*Service, error) {
	issuer, err := url.Parse(cfg.Issuer)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "the issuer is not a URL")
	}
	methods := []string{"none"}
	if cfg.Confidential {
		methods = append(methods, "client_secret_basic", "client_secret_post")
	}
	m := Metadata{
		Issuer: cfg.Issuer, AuthorizationEndpoint: cfg.AuthorizationBaseURL + "/oauth/authorize",
		TokenEndpoint: cfg.Issuer + "/oauth/token", RegistrationEndpoint: cfg.Issuer + "/oauth/register",
		RevocationEndpoint: cfg.Issuer + "/oauth/revoke", IntrospectionEndpoint: cfg.Issuer + "/oauth/introspect",
		JWKSURI: cfg.Issuer + "/oauth/jwks", ScopesSupported: cfg.Scopes,
		ResponseTypesSupported: []string{"code"}, ResponseModesSupported: []string{"query"},
		GrantTypesSupported:               []string{"authorization_code", "refresh_token"},
		TokenEndpointAuthMethodsSupported: methods, RevocationEndpointAuthMethodsSupported: methods, IntrospectionEndpointAuthMethodsSupported: methods,
		CodeChallengeMethodsSupported: []string{"S256"}, AuthorizationResponseIssParameterSupported: true,
	}
	s := &Service{cfg: cfg, path: strings.TrimSuffix(issuer.EscapedPath(), "/")}
	if s.oauth, err = json.Marshal(m); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "")
	}
	m.SubjectTypesSupported, m.IDTokenSigningAlgValuesSupported = []string{"public"}, []string{cfg.Keys.Algorithm()}
	if s.openIDConfig, err = json.Marshal(m); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "")
	}
	return s, nil
}

// Mount adds the routes.
func (s *Service) Mount(mux *http.ServeMux) {
	for name, document := range map[string][]byte{"oauth-authorization-server": s.oauth, "openid-configuration": s.openIDConfig} {
		handler := web.CORS(serve(document), "GET, HEAD")
		paths := map[string]bool{
			"/.well-known/" + name + s.path: true, // inserted
			s.path + "/.well-known/" + name: true, // appended
			"/.well-known/" + name:          true, // of a host with one issuer
		}
		for path := range paths {
			mux.Handle("GET "+path, handler)
			mux.Handle("OPTIONS "+path, handler)
		}
	}
	jwks := web.CORS(http.HandlerFunc(s.jwks), "GET, HEAD")
	mux.Handle("GET "+s.path+"/oauth/jwks", jwks)
	mux.Handle("OPTIONS "+s.path+"/oauth/jwks", jwks)
}

// maxAge is shorter than the time for which a new key is published before it signs.
const maxAge = "public, max-age=60"

func serve(document []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", maxAge)
		_, _ = w.Write(document) // the client went away: nobody to tell
	})
}

func (s *Service) jwks(w http.ResponseWriter, r *http.Request) {
	document, err := s.cfg.Keys.JWKS()
	if err != nil {
		s.cfg.Logger.WarnContext(r.Context(), "no key set to serve", fault.Attr(err))
		w.Header().Set("Retry-After", "2")
		web.JSON(w, http.StatusServiceUnavailable, map[string]string{
			"error": "temporarily_unavailable", "error_description": "The keys are not known yet; try again in a moment.",
		})
		return
	}
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Cache-Control", maxAge)
	_, _ = w.Write(document) // the client went away: nobody to tell
}
