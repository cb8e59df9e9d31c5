package exchange

import (
	"cmp"
	"context"
	"net/url"
	"slices"
	"strings"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/upstream/endpoint"
)

const grantTokenExchange = "urn:ietf:params:oauth:grant-type:token-exchange"

// tokenExchange is the grant of RFC 8693.
type tokenExchange struct {
	strategy *config.TokenExchangeStrategy
	service  *service
	expected expected
}

func newTokenExchange(strategy *config.TokenExchangeStrategy, cfg Config) (*tokenExchange, error) {
	s, err := newService(serviceConfig{
		url: strategy.TokenURL, urlField: "tokenUrl", provider: strategy.SubjectProvider,
		clientID: strategy.ClientID, clientSecret: strategy.ClientSecret,
		clientKey: strategy.ClientKey, authMethod: strategy.AuthMethod,
		caBundle: strategy.CABundle, denyPrivate: strategy.DenyPrivateIPs,
	}, cfg)
	if err != nil {
		return nil, err
	}
	return &tokenExchange{strategy: strategy, service: s, expected: expected{
		requested: cmp.Or(strategy.RequestedTokenType, config.TokenTypeAccessToken),
		bearer:    strategy.HeaderName == "" || strategy.HeaderName == "Authorization",
	}}, nil
}

// Digest implements Grant.
func (g *tokenExchange) Digest() [32]byte {
	s := g.strategy
	// How a token is sent does not change what it is, but what may be accepted
	// where something else than an access token is asked for.
	bearer := g.expected.bearer || g.expected.requested == config.TokenTypeAccessToken
	return digest(
		g.expected.requested, bearer, s.MintActor,
		s.TokenURL, s.ClientID, s.Audience, slices.Sorted(slices.Values(s.Scopes)), s.SubjectTokenType, s.SubjectProvider, s.Parameters,
	)
}

// Unusable implements Grant.
func (g *tokenExchange) Unusable(why error, what string) *fault.Error {
	return g.service.client.Unusable(why, what)
}

// Request implements Grant (section 2.1).
func (g *tokenExchange) Request(ctx context.Context, s Subject) (Issued, error) {
	subject, err := s.Token(ctx)
	if err != nil {
		return Issued{}, err
	}
	form := g.form(subject)
	if s.Actor != nil {
		actor, err := s.Actor(ctx)
		if err != nil {
			return Issued{}, err
		}
		form.Set("actor_token", actor.Reveal())
		form.Set("actor_token_type", config.TokenTypeJWT)
	}
	var out Issued
	err = g.service.post(ctx, endpoint.Request{Operation: "exchange", Form: form}, func(resp *endpoint.Response) error {
		out, err = g.read(resp)
		return err
	})
	return out, err
}

func (g *tokenExchange) form(subject secret.String) url.Values {
	form := url.Values{
		"grant_type":         {grantTokenExchange},
		"subject_token":      {subject.Reveal()},
		"subject_token_type": {g.strategy.SubjectTokenType},
		// Services differ in what they return when it is left out.
		"requested_token_type": {g.expected.requested},
	}
	if g.strategy.Audience != "" {
		form.Set("audience", g.strategy.Audience)
	}
	if len(g.strategy.Scopes) > 0 {
		form.Set("scope", strings.Join(g.strategy.Scopes, " "))
	}
	for name, value := range g.strategy.Parameters {
		if !form.Has(name) { // they add, they do not replace
			form.Set(name, value)
		}
	}
	return form
}

// read checks a successful answer (section 2.2.1).
func (g *tokenExchange) read(resp *endpoint.Response) (Issued, error) {
	doc, err := g.service.document(resp, "token exchange answer")
	if err != nil {
		return Issued{}, err
	}
	text, lifetime, err := g.expected.read(doc)
	if err != nil {
		return Issued{}, g.service.client.Malformed(err, "token exchange answer")
	}
	return issued(text, resp.SentAt, lifetime), nil
}
