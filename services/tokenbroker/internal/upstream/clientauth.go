package upstream

import (
	"net/url"
	"slices"
	"strings"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/services/tokenbroker/internal/upstream/endpoint"
)

// clientAuth is how we authenticate at the provider's token and revocation endpoints.
func (p *Provider) clientAuth(e endpoints) (*endpoint.ClientAuth, error) {
	auth := &endpoint.ClientAuth{Method: p.cfg.AuthMethod, ID: p.cfg.ClientID, Secret: p.secret}
	if auth.Method == "" {
		var ok bool
		if auth.Method, ok = endpoint.ChooseAuthMethod(e.authMethods, !p.secret.IsZero()); !ok {
			return nil, p.client.Unusable(nil, "offers no way of client authentication that a secret is for (client_secret_basic, client_secret_post)")
		}
	}
	if auth.Method == config.AuthMethodPrivateKeyJWT {
		auth.Key, auth.Audience = p.key, p.assertionAudience(e)
	}
	return auth, nil
}

// assertionAudience is the aud of client assertions. It is the issuer where there
// is one: an assertion for a token endpoint that somebody else's metadata names
// would open that endpoint to them (draft-ietf-oauth-rfc7523bis). Entra takes no
// other than its token endpoint.
func (p *Provider) assertionAudience(e endpoints) string {
	switch {
	case p.cfg.ClientKey.Audience != "":
		return p.cfg.ClientKey.Audience
	case p.cfg.OIDC == nil, isEntra(p.cfg.OIDC.Issuer) && hostOf(p.cfg.OIDC.Issuer) == hostOf(e.token):
		return e.token
	}
	return p.cfg.OIDC.Issuer
}

// isEntra reports whether an issuer is a tenant of Microsoft Entra, in one of its clouds.
func isEntra(issuer string) bool {
	host := hostOf(issuer)
	return slices.Contains([]string{
		"login.microsoftonline.com", "login.microsoftonline.us", "login.partner.microsoftonline.cn",
	}, host) || strings.HasSuffix(host, ".ciamlogin.com")
}

func hostOf(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Host)
}
