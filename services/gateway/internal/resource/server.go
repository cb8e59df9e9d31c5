package resource

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"time"

	"chatelaine.dev/internal/bearer"
	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/gateway/internal/accesslog"
	"chatelaine.dev/services/gateway/internal/caller"
)

// Verifier verifies access tokens; see bearer.Verifier.
type Verifier interface {
	Verify(ctx context.Context, raw string, accepted ...string) (*bearer.Claims, error)
}

// Sessions knows which sessions have ended; see credentials.Manager.
type Sessions interface {
	// Attach returns a context that ends when the caller's session does.
	Attach(ctx context.Context, c *caller.Caller) (attached context.Context, detach func(), err error)
}

// Config makes a Server.
type Config struct {
	// Deployment that is served. Required.
	Deployment *config.Deployment
	// Verifier of access tokens. Required unless the deployment is anonymous.
	Verifier Verifier
	// Sessions that may end. Required.
	Sessions Sessions
	// RequiredScopes that each token must have; with an authorization server of our
	// own, such as it grants.
	RequiredScopes []string
	// AllowedHosts are values of the header Host beside the audience's and those
	// of loopback, with or without a port.
	AllowedHosts []string
	// AllowedOrigins are origins of browser clients beside the audience's and
	// those of loopback. "*" is any.
	AllowedOrigins []string
}

// Server protects the resources of a deployment. It is safe for concurrent use.
type Server struct {
	cfg       Config
	hosts     hosts
	origins   origins
	tokens    *tokenCache
	resources map[string]*protected // by backend; "" is the aggregated endpoint
	anonymous *caller.Caller
}

// protected is one resource.
type protected struct {
	// accepted audiences: its own and the aggregated endpoint's.
	accepted []string
	// Parts of challenges: parameters for all of them, then by need.
	parameters string
	// metadata is the document, at each of the paths.
	metadata []byte
	paths    []string
}

// New makes a server. Errors are Invalid.
func New(cfg Config) (*Server, error) {
	d := cfg.Deployment
	if d == nil || cfg.Sessions == nil || (cfg.Verifier == nil) != (d.Mode == config.ModeAnonymous) {
		return nil, fault.New(fault.Internal, "resource: Deployment, Sessions and, unless anonymous, Verifier are required")
	}
	s := &Server{
		cfg: cfg, hosts: newHosts(cfg.AllowedHosts), origins: newOrigins(cfg.AllowedOrigins),
		tokens: newTokenCache(), resources: make(map[string]*protected), anonymous: caller.AnonymousCaller(),
	}
	if d.Mode == config.ModeAnonymous {
		return s, nil
	}
	if err := grantable(d, cfg.RequiredScopes); err != nil {
		return nil, err
	}
	audience, err := url.Parse(d.Audience)
	if err != nil || audience.Host == "" {
		return nil, fault.Newf(fault.Invalid, "the audience %q is not an absolute URL", d.Audience)
	}
	s.hosts.add(audience.Host)
	s.origins.add(audience.Scheme + "://" + audience.Host)
	names := []string{""}
	for i := range d.Backends {
		names = append(names, d.Backends[i].Name)
	}
	for _, name := range names {
		if s.resources[name], err = newProtected(d, audience, name, cfg.RequiredScopes); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Protect lets requests through to next that may use a backend, or the
// aggregated endpoint when backend is empty.
func (s *Server) Protect(backend string, next http.Handler) http.Handler {
	p := s.resources[backend]
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.admit(w, r) {
			return
		}
		rec := accesslog.From(r.Context())
		who := s.anonymous
		if s.cfg.Verifier != nil {
			if p == nil {
				http.NotFound(w, r)
				return
			}
			var ok bool
			if who, ok = s.authenticate(w, r, p); !ok {
				return
			}
		}
		rec.SetCaller(who.Key)
		ctx, detach, err := s.cfg.Sessions.Attach(r.Context(), who)
		if err != nil {
			s.Challenge(w, r, backend, err)
			return
		}
		defer detach()
		next.ServeHTTP(w, r.WithContext(caller.NewContext(ctx, who)))
	})
}

// authenticate answers requests without a good token itself.
func (s *Server) authenticate(w http.ResponseWriter, r *http.Request, p *protected) (*caller.Caller, bool) {
	raw, err := bearerToken(r.Header)
	if err != nil {
		p.refuse(w, r, err)
		return nil, false
	}
	who, err := s.verify(r.Context(), p, raw)
	if err != nil {
		p.refuse(w, r, err)
		return nil, false
	}
	for _, scope := range s.cfg.RequiredScopes {
		if !who.HasScope(scope) {
			p.refuse(w, r, errScope(scope))
			return nil, false
		}
	}
	return who, true
}

// verify remembers what the verifier said for a short time.
func (s *Server) verify(ctx context.Context, p *protected, raw string) (*caller.Caller, error) {
	now := time.Now()
	if who, ok := s.tokens.get(raw, p.accepted, now); ok {
		return who, nil
	}
	claims, err := s.cfg.Verifier.Verify(ctx, raw, p.accepted...)
	if err != nil {
		return nil, err
	}
	who := caller.New(caller.Claims{
		Issuer: claims.Issuer, Subject: claims.Subject, SessionID: claims.SessionID,
		ClientID: claims.ClientID, Scope: claims.Scope, ExpiresAt: claims.Expiry,
	}, secret.New(raw))
	if s.cfg.Deployment.Mode == config.ModeExternalIssuer {
		who = withoutSession(who, raw)
	}
	s.tokens.put(raw, who, claims.Audience, now)
	return who, nil
}

// withoutSession drops a tsid that a foreign issuer may have put in: only our
// own sessions are known to the broker and can end.
func withoutSession(c *caller.Caller, raw string) *caller.Caller {
	if c.SessionID == "" {
		return c
	}
	return caller.New(caller.Claims{
		Issuer: c.Issuer, Subject: c.Subject, ClientID: c.ClientID, Scope: c.Scope, ExpiresAt: c.ExpiresAt,
	}, secret.New(raw))
}

// maxToken is more than any token that can be good, and less than what a header
// can be.
const maxToken = bearer.MaxTokenSize + 1

// bearerToken returns the token of the header Authorization (RFC 6750, section
// 2.1). The scheme is not case-sensitive (RFC 9110, section 11.1).
func bearerToken(h http.Header) (string, error) {
	values := h["Authorization"]
	switch {
	case len(values) == 0:
		return "", errNoToken
	case len(values) > 1:
		return "", errTwoTokens
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", errNoToken
	}
	token = strings.TrimSpace(token)
	if token == "" {
		return "", errNoToken
	}
	if len(token) > maxToken {
		token = token[:maxToken] // the verifier says that it is too long
	}
	return token, nil
}
