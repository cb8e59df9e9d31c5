package exchange

import (
	"cmp"
	"context"
	"net/http"
	"net/url"
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
}

// service is a token endpoint that knows us as a client.
type service struct {
	url    string
	id     string
	secret secret.String
	client *endpoint.Client
	// formAuth says that it wants client_secret_post: it refused Basic.
	formAuth atomic.Bool
}

// newService reads the secret of the client.
func newService(s serviceConfig, cfg Config) (*service, error) {
	out := &service{url: s.url, id: s.clientID}
	if s.clientSecret != nil {
		var err error
		if out.secret, err = cfg.Secrets.Resolve(*s.clientSecret); err != nil {
			return nil, err
		}
	}
	timeout := cmp.Or(cfg.Timeout, endpoint.DefaultTimeout)
	out.client = endpoint.NewClient(endpoint.Config{
		Label: cfg.Name, Display: "the token service of " + cfg.Name, Provider: s.provider,
		AddressRefused: "its address is not allowed: the name in " + s.urlField + " leads to a loopback or link-local one",
		// The operator wrote the URL, so that a private address is meant.
		HTTP: outbound.New(outbound.Config{
			Timeout: timeout, Dials: cfg.Dials,
			Policy: outbound.Policy{AllowPrivate: true, AllowLoopback: outbound.Loopback(s.url)},
		}),
		Timeout: timeout, Observer: cfg.Observer, Now: cfg.Now,
	})
	return out, nil
}

// post sends a form. A service that does not take the client's secret by HTTP
// Basic is asked again by form, and from then on.
func (s *service) post(ctx context.Context, operation string, form url.Values, read func(*endpoint.Response) error) error {
	byForm := s.formAuth.Load()
	err := s.send(ctx, operation, form, byForm, read)
	if byForm || s.secret.IsZero() || fault.ReasonOf(err) != reason.UpstreamRefused ||
		fault.From(err).Metadata[reason.OAuthError] != "invalid_client" {
		return err
	}
	if s.send(ctx, operation, form, true, read) == nil {
		s.formAuth.Store(true)
		return nil
	}
	return err
}

func (s *service) send(ctx context.Context, operation string, form url.Values, byForm bool, read func(*endpoint.Response) error) error {
	auth := &endpoint.ClientAuth{Method: config.AuthMethodNone, ID: s.id, Secret: s.secret}
	switch {
	case s.secret.IsZero():
	case byForm:
		auth.Method = config.AuthMethodPost
	default:
		auth.Method = config.AuthMethodBasic
	}
	return s.client.Do(ctx, endpoint.Request{
		Operation: operation, Method: http.MethodPost, URL: s.url, Auth: auth, Form: form,
	}, read)
}

// document parses an answer, which is an error where it holds one.
func (s *service) document(resp *endpoint.Response, what string) (endpoint.Document, error) {
	doc, err := endpoint.ParseJSON(resp.Body)
	if err != nil {
		return endpoint.Document{}, s.client.Malformed(err, what)
	}
	return doc, s.client.ErrorIn(doc)
}
