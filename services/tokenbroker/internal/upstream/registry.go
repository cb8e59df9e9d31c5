package upstream

import (
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/outbound"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/upstream/endpoint"
)

// Config makes a Registry.
type Config struct {
	// Secrets finds client secrets and certificates. They are read once, by
	// NewRegistry, so that a missing one shows at start and not at a login.
	Secrets *secret.Resolver
	// Dials overrides where some HOST:PORT are found.
	Dials outbound.Dials
	// Timeout is the hard deadline of one request; zero means
	// endpoint.DefaultTimeout, ten seconds.
	Timeout time.Duration
	// Observer traces and counts requests; nil does neither.
	Observer *endpoint.Observer
	// Logger is told what a provider's operator should know; nil is silent.
	Logger *slog.Logger
	// Now is time.Now, or a test's.
	Now func() time.Time
}

// Registry is the providers of one configuration, in the order of the chain.
type Registry struct {
	providers []*Provider
}

// NewRegistry prepares the providers of a deployment. It makes no request. Its
// error joins everything that is missing, each a *fault.Error of kind Invalid or
// Precondition that names the provider and the secret.
func NewRegistry(d *config.Deployment, cfg Config) (*Registry, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = endpoint.DefaultTimeout
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	r := &Registry{}
	if d.AuthServer == nil {
		return r, nil
	}
	var problems []error
	for i := range d.AuthServer.Providers {
		p, err := newProvider(&d.AuthServer.Providers[i], cfg)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		r.providers = append(r.providers, p)
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return r, nil
}

// Providers returns the providers in the order of the chain, the primary first.
func (r *Registry) Providers() []*Provider { return r.providers }

// Provider returns the provider of that name, or an error of kind NotFound with
// reason.ProviderUnknown.
func (r *Registry) Provider(name string) (*Provider, error) {
	for _, p := range r.providers {
		if p.cfg.Name == name {
			return p, nil
		}
	}
	return nil, unknown(name)
}

// Find returns the provider that a stored connection belongs to: the one of that
// name if it still has that realm, otherwise the first one of the realm, since
// providers may be renamed. It never returns a provider of another realm, to
// which the connection's tokens must not be sent.
func (r *Registry) Find(name, realm string) (*Provider, error) {
	var found *Provider
	for _, p := range r.providers {
		if p.Realm() != realm {
			continue
		}
		if p.cfg.Name == name {
			return p, nil
		}
		if found == nil {
			found = p
		}
	}
	if found == nil {
		return nil, unknown(name)
	}
	return found, nil
}

func unknown(name string) error {
	return fault.New(fault.NotFound, "there is no such provider").WithReason(reason.ProviderUnknown, reason.Provider, name)
}

// newProvider reads the provider's secrets and makes its client.
func newProvider(p *config.Provider, cfg Config) (*Provider, error) {
	client, err := httpClient(p, cfg)
	if err != nil {
		return nil, named(p, err)
	}
	own := &Provider{
		cfg: p, log: cfg.Logger, now: cfg.Now, timeout: cfg.Timeout,
		client: endpoint.NewClient(endpoint.Config{
			Label: p.Name, Display: "provider " + p.Name, Provider: p.Name,
			AddressRefused: "its address is not allowed: see allowPrivateIPs",
			HTTP:           client, Timeout: cfg.Timeout, Observer: cfg.Observer, Now: cfg.Now,
		}),
	}
	if p.ClientSecret != nil {
		if own.secret, err = cfg.Secrets.Resolve(*p.ClientSecret); err != nil {
			return nil, named(p, err)
		}
	}
	if p.ClientKey != nil {
		if own.key, err = endpoint.ResolveClientKey(cfg.Secrets, p.ClientKey); err != nil {
			return nil, named(p, err)
		}
	}
	switch {
	case p.OIDC != nil:
		own.protocol = newOIDC(own)
	case p.OAuth2 != nil:
		own.protocol = newOAuth2(own)
	default:
		return nil, fault.Newf(fault.Invalid, "provider %s: type %q is not supported", p.Name, p.Type)
	}
	return own, nil
}

func named(p *config.Provider, err error) error {
	f := fault.From(err)
	return f.WithPrefix("provider "+p.Name).WithReason(f.Reason, reason.Provider, p.Name)
}

// httpClient connects under the provider's own policy: private addresses where
// the configuration allows them, loopback where it names a loopback URL itself.
func httpClient(p *config.Provider, cfg Config) (*http.Client, error) {
	policy := outbound.Policy{AllowPrivate: p.AllowPrivateIPs}
	var roots *x509.CertPool
	for _, text := range configuredURLs(p) {
		if outbound.Loopback(text) {
			policy.AllowLoopback = true
		}
	}
	if p.CABundle != nil {
		pem, err := cfg.Secrets.Resolve(*p.CABundle)
		if err != nil {
			return nil, err
		}
		if roots, err = outbound.WithSystemRoots(pem); err != nil {
			return nil, err
		}
	}
	return outbound.New(outbound.Config{
		Timeout: cfg.Timeout, Policy: policy, Dials: cfg.Dials, RootCAs: roots,
	}), nil
}

func configuredURLs(p *config.Provider) []string {
	var urls []string
	if p.OIDC != nil {
		urls = append(urls, p.OIDC.Issuer)
	}
	if p.OAuth2 != nil {
		urls = append(urls, p.OAuth2.TokenEndpoint, p.OAuth2.RevocationEndpoint)
	}
	if p.UserInfo != nil {
		urls = append(urls, p.UserInfo.URL)
	}
	return urls
}

// usableEndpoint checks a URL that a provider's metadata named: absolute, and as
// well protected as the configuration demands.
func usableEndpoint(p *config.Provider, text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" {
		return false
	}
	if _, port, err := net.SplitHostPort(u.Host); err == nil && port == "" {
		return false
	}
	switch u.Scheme {
	case "https":
		return true
	case "http":
		issuer, err := url.Parse(p.OIDC.Issuer)
		return err == nil && issuer.Scheme == "http" && (p.AllowHTTP || outbound.Loopback(text))
	}
	return false
}
