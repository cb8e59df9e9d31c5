package upstream

import (
	"context"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"time"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/upstream/endpoint"
)

// Provider is one upstream identity provider.
type Provider struct {
	cfg      *config.Provider
	secret   secret.String
	key      *endpoint.ClientKey
	client   *endpoint.Client
	protocol protocol
	log      *slog.Logger
	now      func() time.Time
	// timeout is the hard deadline of one request.
	timeout time.Duration
}

// protocol is what differs between OpenID Connect and plain OAuth 2.0.
type protocol interface {
	// endpoints returns where to go, discovered or configured.
	endpoints(ctx context.Context) (endpoints, error)
	// read reads a token endpoint's answer.
	read(resp *endpoint.Response) (tokens, error)
	// identify says who the tokens of a redeemed code belong to.
	identify(ctx context.Context, e endpoints, t *tokens, nonce string) (Identity, error)
	// confirm checks that refreshed tokens still belong to subject.
	confirm(ctx context.Context, e endpoints, t *tokens, subject string) error
}

// endpoints are a provider's URLs and what it says about them.
type endpoints struct {
	authorization, token, userInfo, revocation string
	// authMethods of the token endpoint; nil when the provider does not say.
	authMethods []string
	// responseIss says that authorization responses carry iss (RFC 9207).
	responseIss bool
}

// Name returns the configured name.
func (p *Provider) Name() string { return p.cfg.Name }

// Primary reports whether this provider decides who the person is.
func (p *Provider) Primary() bool { return p.cfg.Primary }

// Optional reports whether a chain may leave this provider out.
func (p *Provider) Optional() bool { return p.cfg.Optional }

// RefreshInDoubt is what to do with a refresh whose outcome is unknown: one of
// config.RefreshInDoubt….
func (p *Provider) RefreshInDoubt() string { return p.cfg.RefreshInDoubt }

// Realm is where the provider's subjects are unique; see RealmOf.
func (p *Provider) Realm() string { return RealmOf(p.cfg) }

// SubjectField is the claim or field that subjects are read from, which together
// with the realm says what a subject means.
func (p *Provider) SubjectField() string {
	switch {
	case p.cfg.OIDC != nil:
		return p.cfg.OIDC.SubjectClaim
	case p.cfg.OAuth2.Identity != nil:
		return p.cfg.OAuth2.Identity.Subject
	case p.cfg.UserInfo != nil:
		return p.cfg.UserInfo.SubjectFields[0]
	}
	return ""
}

// RealmOf returns the realm of a configured provider: the OIDC issuer, or the
// OAuth 2.0 token endpoint. It never depends on the configured name.
func RealmOf(p *config.Provider) string {
	if p.OIDC != nil {
		return p.OIDC.Issuer
	}
	if p.OAuth2 != nil {
		return p.OAuth2.TokenEndpoint
	}
	return ""
}

// Describe returns what the front channel needs. For an OIDC provider it needs
// discovery, which is cached; the error is then reason.UpstreamUnavailable.
func (p *Provider) Describe(ctx context.Context) (Description, error) {
	d := Description{
		Name: p.cfg.Name, Type: p.cfg.Type, Primary: p.cfg.Primary, Optional: p.cfg.Optional,
		ClientID: p.cfg.ClientID, RedirectURI: p.cfg.RedirectURI,
		Scopes: slices.Clone(p.cfg.Scopes), AuthorizationParams: maps.Clone(p.cfg.AuthorizationParams),
	}
	if p.cfg.OIDC != nil {
		d.Issuer = p.cfg.OIDC.Issuer
	}
	e, err := p.protocol.endpoints(ctx)
	if err != nil {
		return d, p.unreachable(err)
	}
	d.AuthorizationEndpoint, d.ResponseIssRequired = e.authorization, e.responseIss
	return d, nil
}

// Redeem redeems an authorization code (RFC 6749, section 4.1.3) and checks who
// it is for. An error that nobody can tell the meaning of says in [MetadataSent]
// whether the code left.
func (p *Provider) Redeem(ctx context.Context, r RedeemRequest) (Grant, error) {
	if p.cfg.OIDC != nil && r.Nonce == "" {
		return Grant{}, fault.New(fault.Invalid, "").WithField("nonce", "is required for an OIDC provider")
	}
	e, err := p.protocol.endpoints(ctx)
	if err != nil {
		return Grant{}, withSent(p.unreachable(err), false)
	}
	redirect := r.RedirectURI
	if redirect == "" {
		redirect = p.cfg.RedirectURI
	}
	t, err := p.tokenRequest(ctx, e, "redeem", url.Values{
		"grant_type":    {"authorization_code"},
		"code":          {r.Code.Reveal()},
		"redirect_uri":  {redirect},
		"code_verifier": {r.Verifier.Reveal()},
	})
	if err != nil {
		return Grant{}, err
	}
	identity, err := p.protocol.identify(ctx, e, t, r.Nonce)
	if err != nil {
		return Grant{}, withSent(p.unreachable(err), true)
	}
	g := t.grant(p.Realm(), p.cfg.Scopes)
	g.Identity = identity
	return g, nil
}

// Refresh redeems a refresh token (RFC 6749, section 6). Scopes are not asked
// for again: the provider keeps those of the grant. An error that nobody can tell
// the meaning of says in [MetadataSent] whether the refresh token left. With
// reason.IdentityInvalid the grant has the tokens that came, to be given back.
func (p *Provider) Refresh(ctx context.Context, r RefreshRequest) (Grant, error) {
	e, err := p.protocol.endpoints(ctx)
	if err != nil {
		return Grant{}, withSent(p.unreachable(err), false)
	}
	t, err := p.tokenRequest(ctx, e, "refresh", url.Values{
		"grant_type":    {"refresh_token"},
		"refresh_token": {r.RefreshToken.Reveal()},
	})
	if err != nil {
		return Grant{}, err
	}
	if err := p.protocol.confirm(ctx, e, t, r.Subject); err != nil {
		return Grant{AccessToken: t.access, RefreshToken: t.refresh}, withSent(p.unreachable(err), true)
	}
	g := t.grant(p.Realm(), r.Scopes)
	g.Identity.Subject = r.Subject
	if t.refresh.IsZero() {
		g.RefreshToken = r.RefreshToken // section 6: a new one is optional
	}
	return g, nil
}

// Revoke gives a token back (RFC 7009). A provider without a revocation
// endpoint is told nothing, which is no error.
func (p *Provider) Revoke(ctx context.Context, token secret.String, hint TokenHint) error {
	e, err := p.protocol.endpoints(ctx)
	if err != nil {
		return p.unreachable(err)
	}
	if e.revocation == "" || token.IsZero() {
		return nil
	}
	auth, err := p.clientAuth(e)
	if err != nil {
		return err
	}
	return p.client.Do(ctx, endpoint.Request{
		Operation: "revoke", Method: "POST", URL: e.revocation, Auth: auth,
		Form: url.Values{"token": {token.Reveal()}, "token_type_hint": {string(hint)}},
	}, func(*endpoint.Response) error { return nil })
}

func (p *Provider) tokenRequest(ctx context.Context, e endpoints, operation string, form url.Values) (*tokens, error) {
	auth, err := p.clientAuth(e)
	if err != nil {
		return nil, err
	}
	for key, value := range p.cfg.TokenParams {
		if !form.Has(key) { // they add, they do not replace
			form.Set(key, value)
		}
	}
	var t tokens
	err = p.client.Do(ctx, endpoint.Request{
		Operation: operation, Method: "POST", URL: e.token, Form: form, Auth: auth,
		Apart: form.Get("grant_type") == "authorization_code",
	}, func(resp *endpoint.Response) error {
		var err error
		t, err = p.protocol.read(resp)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &t, nil
}

// unreachable makes the error of a caller that went away while it waited for a
// shared fetch like those of requests.
func (p *Provider) unreachable(err error) error {
	if _, ok := fault.As(err); ok {
		return err
	}
	e := p.client.Unusable(err, "was not waited for")
	e.Kind = fault.KindOf(err)
	return e
}

// withSent says of a failure around a token request whether that request was
// made. What the failed request itself says is about discovery, keys or userinfo.
func withSent(err error, sent bool) error {
	f, ok := fault.As(err)
	if !ok || f.Reason != reason.UpstreamUnavailable {
		return err
	}
	return f.WithReason(f.Reason, MetadataSent, strconv.FormatBool(sent), MetadataDenied, "false")
}

// identityInvalid names the check that what the provider says of the person fails.
func (p *Provider) identityInvalid(check, what string) *fault.Error {
	return fault.New(fault.Precondition, "provider "+p.cfg.Name+": "+what).
		WithReason(reason.IdentityInvalid, reason.Provider, p.cfg.Name, MetadataCheck, check)
}
