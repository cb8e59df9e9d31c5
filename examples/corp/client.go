package corp

import (
	"net/url"
	"slices"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// client implements op.Client for a client of the rules.
type client struct {
	Client
	idTokenLifetime time.Duration
	ahead           func() time.Duration // of the provider's clock
}

func (c client) GetID() string                       { return c.ID }
func (c client) RedirectURIs() []string              { return c.Client.RedirectURIs }
func (c client) PostLogoutRedirectURIs() []string    { return nil }
func (c client) ApplicationType() op.ApplicationType { return op.ApplicationTypeWeb }
func (c client) AuthMethod() oidc.AuthMethod         { return oidc.AuthMethodBasic }
func (c client) ResponseTypes() []oidc.ResponseType {
	if !slices.Contains(c.Grants, oidc.GrantTypeCode) {
		return nil
	}
	return []oidc.ResponseType{oidc.ResponseTypeCode}
}
func (c client) GrantTypes() []oidc.GrantType   { return c.Grants }
func (c client) LoginURL(id string) string      { return loginPath + "?id=" + url.QueryEscape(id) }
func (c client) IDTokenLifetime() time.Duration { return c.idTokenLifetime }
func (c client) DevMode() bool                  { return false }

// ClockSkew moves the times of ID tokens back, so the other way round.
func (c client) ClockSkew() time.Duration { return -c.ahead() }

// AccessTokenType is opaque for people's own tokens, which corp alone reads, and
// a JWT for exchanged ones, which their audience verifies.
func (c client) AccessTokenType() op.AccessTokenType {
	if slices.Contains(c.Grants, oidc.GrantTypeTokenExchange) {
		return op.AccessTokenTypeJWT
	}
	return op.AccessTokenTypeBearer
}

// IDTokenUserinfoClaimsAssertion puts the profile into the ID token as well.
func (c client) IDTokenUserinfoClaimsAssertion() bool { return true }
func (c client) IsScopeAllowed(scope string) bool     { return slices.Contains(c.Scopes, scope) }

func (c client) RestrictAdditionalIdTokenScopes() func([]string) []string {
	return func(scopes []string) []string { return scopes }
}

func (c client) RestrictAdditionalAccessTokenScopes() func([]string) []string {
	return func(scopes []string) []string { return scopes }
}
