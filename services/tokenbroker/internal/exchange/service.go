package exchange

import (
	"cmp"
	"context"
	"net/http"
	"sync/atomic"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/outbound"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/upstream/endpoint"
)

// serviceConfig is a token endpoint, and who we are there.
type serviceConfig struct {
	url string
	// urlField is where the URL is configured, for messages.
	urlField string
	// provider is what errors carry in metadata["provider"].
	provider     string
	clientID     string
	clientSecret *secret.Ref
	clientKey    *config.ClientKey
	// authMethod is one of config.AuthMethod…; empty: the key where there is one,
	// or else the secret as the service takes it.
	authMethod string
	// caBundle is trusted beside the system's roots; nil: nothing is.
	caBundle *secret.Ref
	// denyPrivate refuses private addresses. They are allowed otherwise: the
	// operator wrote the URL.
	denyPrivate bool
}

// service is a token endpoint that knows us as a client.
type service struct {
	url    string
	auth   endpoint.ClientAuth // without a method: to be learnt
	client *endpoint.Client
	// formAuth says that it wants client_secret_post: it refused Basic.
	formAuth atomic.Bool
}

// newService reads the secret of the client.
func newService(s serviceConfig, cfg Config) (*service, error) {
	out := &service{url: s.url, auth: endpoint.ClientAuth{ID: s.clientID, Method: s.authMethod}}
	var err error
	switch {
	case s.clientKey != nil:
		out.auth.Method, out.auth.Audience = config.AuthMethodPrivateKeyJWT, cmp.Or(s.clientKey.Audience, s.url)
		out.auth.Key, err = endpoint.ResolveClientKey(cfg.Secrets, s.clientKey)
	case s.clientSecret != nil:
		out.auth.Secret, err = cfg.Secrets.Resolve(*s.clientSecret)
	default:
		out.auth.Method = config.AuthMethodNone
	}
	if err != nil {
		return nil, err
	}
	timeout := cmp.Or(cfg.Timeout, endpoint.DefaultTimeout)
	refused := "its address is not allowed: the name in " + s.urlField + " leads to a loopback or link-local one"
	if s.denyPrivate {
		refused = "its address is not allowed: the name in " + s.urlField + " leads to a private, loopback or link-local one, and allowPrivateIPs is false"
	}
	client := outbound.Config{
		Timeout: timeout, Dials: cfg.Dials,
		Policy: outbound.Policy{AllowPrivate: !s.denyPrivate, AllowLoopback: outbound.Loopback(s.url)},
	}
	if s.caBundle != nil {
		pem, err := cfg.Secrets.Resolve(*s.caBundle)
		if err != nil {
			return nil, err
		}
		if client.RootCAs, err = outbound.WithSystemRoots(pem); err != nil {
			return nil, err
		}
	}
	out.client = endpoint.NewClient(endpoint.Config{
		Label: cfg.Name, Display: "the token service of " + cfg.Name, Provider: s.provider,
		AddressRefused: refused, HTTP: outbound.New(client), Timeout: timeout, Observer: cfg.Observer, Now: cfg.Now,
	})
	return out, nil
}

// post sends req, of which operation and form are given. Where no method is configured, a service that does not take
// the client's secret by HTTP Basic is asked again by form, and from then on.
func (s *service) post(ctx context.Context, req endpoint.Request, read func(*endpoint.Response) error) error {
	if s.auth.Method != "" {
		return s.send(ctx, req, s.auth.Method, read)
	}
	if s.formAuth.Load() {
		return s.send(ctx, req, config.AuthMethodPost, read)
	}
	err := s.send(ctx, req, config.AuthMethodBasic, read)
	if fault.ReasonOf(err) != reason.UpstreamRefused || fault.From(err).Metadata[reason.OAuthError] != "invalid_client" {
		return err
	}
	if s.send(ctx, req, config.AuthMethodPost, read) == nil {
		s.formAuth.Store(true)
		return nil
	}
	return err
}

func (s *service) send(ctx context.Context, req endpoint.Request, method string, read func(*endpoint.Response) error) error {
	auth := s.auth
	auth.Method = method
	req.Method, req.URL, req.Auth = http.MethodPost, s.url, &auth
	return s.client.Do(ctx, req, read)
}

// document parses an answer, which is an error where it holds one.
func (s *service) document(resp *endpoint.Response, what string) (endpoint.Document, error) {
	doc, err := endpoint.ParseJSON(resp.Body)
	if err != nil {
		return endpoint.Document{}, s.client.Malformed(err, what)
	}
	return doc, s.client.ErrorIn(doc)
}
