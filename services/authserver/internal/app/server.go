package app

import (
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/reload"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/internal/telemetry"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/authserver/internal/authorize"
	"chatelaine.dev/services/authserver/internal/chain"
	"chatelaine.dev/services/authserver/internal/clients"
	"chatelaine.dev/services/authserver/internal/discovery"
	"chatelaine.dev/services/authserver/internal/front"
	"chatelaine.dev/services/authserver/internal/grants"
	"chatelaine.dev/services/authserver/internal/keys"
	"chatelaine.dev/services/authserver/internal/metrics"
	"chatelaine.dev/services/authserver/internal/outbox"
	"chatelaine.dev/services/authserver/internal/pages"
	"chatelaine.dev/services/authserver/internal/resource"
	"chatelaine.dev/services/authserver/internal/store"
	"chatelaine.dev/services/authserver/internal/subject"
	"chatelaine.dev/services/authserver/internal/sweep"
	"chatelaine.dev/services/authserver/internal/web"
)

// redeemTimeout bounds the redemption of an upstream's code, with the discovery,
// key and userinfo requests that may come with it.
const redeemTimeout = 25 * time.Second

// returnsOfLogin is how often a browser may come back within one login, beside once
// from each provider: to a question, with the answer, and for pages that are reloaded.
const returnsOfLogin = 4

// Requests that one address may send to the token, revocation and introspection
// endpoints, together.
const (
	tokensPerMinute = 3000
	tokenBurst      = 3000
)

// endedGrants is how long the record of an ended grant is kept.
const endedGrants = 24 * time.Hour

// Config is what a Server is made of.
type Config struct {
	Flags      *Flags
	Deployment *config.Deployment
	Database   *pgxpool.Pool
	Broker     brokerv1.LoginServiceClient
	Secrets    *secret.Resolver
	Telemetry  *telemetry.Telemetry
}

// Server is the part that has no address.
type Server struct {
	// Handler of the public address.
	Handler http.Handler
	// Subject is the gRPC service.
	Subject *subject.Service
	// Keys, Outbox and Sweeper must run.
	Keys    *keys.Set
	Outbox  *outbox.Sender
	Sweeper *sweep.Sweeper
	// Resources follows the files; set by Serve.
	Resources *reload.Follower
}

// parts are made in their order and used by several.
type parts struct {
	Config
	auth    *config.AuthServer
	base    *url.URL
	prefix  string // of the paths under the issuer
	proxies []netip.Prefix
	store   *store.Store
	policy  *resource.Policy
	keys    *keys.Set
	outbox  *outbox.Sender
	metrics *metrics.Recorder
	secrets []secret.Bytes
}

// New makes a server. Errors are Invalid (flags, resources) or Precondition (a
// secret is missing).
func New(cfg Config) (*Server, error) {
	p, err := newParts(cfg)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	for _, mount := range []func(*http.ServeMux) error{p.mountDiscovery, p.mountRegistration, p.mountLogin} {
		if err := mount(mux); err != nil {
			return nil, err
		}
	}
	logger := cfg.Telemetry.Logger
	return &Server{
		Handler: cfg.Telemetry.Middleware(telemetry.HTTPConfig{Server: "public", Public: true})(web.Secure(mux)),
		Subject: &subject.Service{Issuer: p.auth.Issuer, Ours: append(cfg.Deployment.Resources(), p.auth.AuthorizationBaseURL), Grants: p.store, Signer: p.keys, Logger: logger},
		Keys:    p.keys,
		Outbox:  p.outbox,
		Sweeper: &sweep.Sweeper{
			Store: p.store, Interval: sweep.DefaultInterval, Wake: p.outbox.Wake, Metrics: p.metrics, Logger: logger,
			Policy: store.SweepPolicy{
				EndedGrants: endedGrants, UnusedClients: cfg.Flags.UnusedClients, IdleClients: cfg.Flags.IdleClients, Grace: cfg.Flags.RefreshGrace,
			},
		},
	}, nil
}

func newParts(cfg Config) (*parts, error) {
	auth := cfg.Deployment.AuthServer
	if auth == nil {
		return nil, fault.New(fault.Invalid, "the resources have no authServerConfig: this deployment needs no authorization server")
	}
	p := &parts{Config: cfg, auth: auth, store: store.New(cfg.Database), policy: resource.New(cfg.Deployment)}
	var err error
	if p.base, err = url.Parse(auth.AuthorizationBaseURL); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "the authorization server's base URL is not a URL")
	}
	issuer, err := url.Parse(auth.Issuer)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "the authorization server's issuer is not a URL")
	}
	p.prefix = issuer.EscapedPath()
	if p.proxies, err = cfg.Flags.proxies(); err != nil {
		return nil, err
	}
	signing, err := signingKeys(auth, cfg.Secrets)
	if err != nil {
		return nil, err
	}
	if p.secrets, err = hmacSecrets(auth, cfg.Secrets); err != nil {
		return nil, err
	}
	logger := cfg.Telemetry.Logger
	macKeys, err := derive(p.secrets, "shared signing keys")
	if err != nil {
		return nil, err
	}
	p.keys, err = keys.New(keys.Config{
		Keys: signing, MACKeys: macKeys, TokenLifespan: max(auth.AccessTokenLifespan, subject.Lifespan),
		PublishDelay: cfg.Flags.KeyPublishDelay, Store: p.store, Logger: logger,
	})
	if err != nil {
		return nil, err
	}
	p.outbox = outbox.New(p.store, cfg.Broker, logger)
	p.metrics, err = metrics.New(cfg.Telemetry.Meter, p.store)
	return p, err
}

func (p *parts) mountDiscovery(mux *http.ServeMux) error {
	s, err := discovery.New(discovery.Config{
		Issuer: p.auth.Issuer, AuthorizationBaseURL: p.auth.AuthorizationBaseURL, Scopes: p.policy.Scopes(),
		Confidential: p.auth.AllowConfidentialClients, Keys: p.keys, Logger: p.Telemetry.Logger,
	})
	if err != nil {
		return err
	}
	s.Mount(mux)
	return nil
}

func (p *parts) mountRegistration(mux *http.ServeMux) error {
	p.script(mux, "/oauth/register", &clients.Handler{
		Registrar: &clients.Registrar{
			Store: p.store, AllowConfidential: p.auth.AllowConfidentialClients, Scopes: p.policy.Scopes(), Baseline: p.policy.Baseline(),
		},
		Limiter:        web.NewLimiter(p.Flags.RegistrationsPerMinute, p.Flags.RegistrationBurst),
		TrustedProxies: p.proxies,
		Metrics:        p.metrics,
		Logger:         p.Telemetry.Logger,
	})
	return nil
}

// mountLogin mounts what a login needs: the front channel and the token endpoints.
func (p *parts) mountLogin(mux *http.ServeMux) error {
	hmacKeys, err := derive(p.secrets, "codes and refresh tokens")
	if err != nil {
		return err
	}
	logger := p.Telemetry.Logger
	tokens, err := grants.New(grants.Config{
		Issuer: p.auth.Issuer, HMACKeys: hmacKeys,
		CodeLifespan: p.auth.AuthCodeLifespan, AccessLifespan: p.auth.AccessTokenLifespan, RefreshLifespan: p.auth.RefreshTokenLifespan,
		Grace: p.Flags.RefreshGrace, Keys: p.keys, Policy: p.policy, Store: p.store, Broker: p.Broker, Wake: p.outbox.Wake,
		Metrics: p.metrics, Logger: logger,
	})
	if err != nil {
		return err
	}
	limiter := web.NewLimiter(tokensPerMinute, tokenBurst)
	for path, h := range map[string]http.HandlerFunc{
		"/oauth/token": tokens.Token, "/oauth/revoke": tokens.Revoke, "/oauth/introspect": tokens.Introspect,
	} {
		p.script(mux, path, limiter.Limit(h, p.proxies))
	}

	legs, err := ring(p.secrets, "legs")
	if err != nil {
		return err
	}
	walk := chain.New(chain.Config{
		Issuer: p.auth.Issuer, Broker: p.Broker, Requests: p.store, Legs: p.store, Ends: p.store, Codes: tokens,
		Ring: legs, Wake: p.outbox.Wake, RedeemTimeout: redeemTimeout, Lifetime: chain.DefaultLifetime, Metrics: p.metrics, Logger: logger,
	})
	return p.mountFront(mux, walk)
}

func (p *parts) mountFront(mux *http.ServeMux, walk *chain.Chain) error {
	forms, err := ring(p.secrets, "forms")
	if err != nil {
		return err
	}
	renderer, err := pages.New()
	if err != nil {
		return err
	}
	callbacks, err := callbacks(p.auth.Providers)
	if err != nil {
		return err
	}
	limiter := func(factor int) *web.Limiter {
		return web.NewLimiter(factor*p.Flags.LoginsPerMinute, factor*p.Flags.LoginBurst)
	}
	front.New(front.Config{
		Limiter: limiter(1), ConsentLimiter: limiter(1), ReturnLimiter: limiter(len(p.auth.Providers) + returnsOfLogin), TrustedProxies: p.proxies,
		BaseURL: p.base, Issuer: p.auth.Issuer, Callbacks: callbacks,
		Checker: &authorize.Checker{Clients: p.store, Policy: p.policy},
		Chain:   walk, Pages: renderer, Ring: forms, Metrics: p.metrics, Logger: p.Telemetry.Logger,
	}).Mount(mux)
	return nil
}

// script mounts a POST endpoint that scripts in browsers may call.
func (p *parts) script(mux *http.ServeMux, path string, h http.Handler) {
	path = p.prefix + path
	h = web.CORS(h, "POST")
	mux.Handle("POST "+path, h)
	mux.Handle("OPTIONS "+path, h)
}

// callbacks lists the providers by the path of their redirect URI.
func callbacks(providers []config.Provider) (map[string][]string, error) {
	paths := map[string][]string{}
	for i := range providers {
		u, err := url.Parse(providers[i].RedirectURI)
		if err != nil || u.EscapedPath() == "" {
			return nil, fault.Newf(fault.Invalid, "the redirect URI of provider %s has no path", providers[i].Name)
		}
		paths[u.EscapedPath()] = append(paths[u.EscapedPath()], providers[i].Name)
	}
	return paths, nil
}
