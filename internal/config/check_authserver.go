package config

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Bounds and defaults of what the authorization server issues and keeps.
const (
	defaultAccessLifespan  = time.Hour
	defaultRefreshLifespan = 7 * 24 * time.Hour
	defaultCodeLifespan    = 10 * time.Minute
	maxRefreshLifespan     = 30 * 24 * time.Hour // a session's absolute end
	defaultRetention       = 7 * 24 * time.Hour
	defaultCIMDCache       = 256
	defaultCIMDTTL         = 5 * time.Minute
	maxRotation            = 5 // keys or secrets at once
	maxProviders           = 16
	defaultProviderName    = "default"
)

// authServer checks authServerConfig: every error in it is V-05, unless a rule
// of its own says more.
func (c *checker) authServer(d *document, a *AuthServerConfig) {
	const path = authServerPath
	rules := urlRules{base: true, allowHTTP: a.InsecureAllowHTTP, permit: "insecureAllowHTTP is true"}
	c.url(d, path+".issuer", a.Issuer, rules)
	c.url(d, path+".authorizationEndpointBaseUrl", a.AuthorizationEndpointBaseURL, rules)
	for name, refs := range map[string][]SecretKeyRef{"signingKeySecretRefs": a.SigningKeySecretRefs, "hmacSecretRefs": a.HMACSecretRefs} {
		if len(refs) == 0 && !c.report.reported(d, path+"."+name) {
			c.report.warnf(d, path+"."+name, "names no secret: the authserver does not start without one, so that no replica makes up keys of its own")
		}
		if len(refs) > maxRotation {
			c.report.errorf(d, path+"."+name, "has more than %d items", maxRotation)
		}
		for i := range refs {
			at := fmt.Sprintf("%s.%s[%d]", path, name, i)
			c.secret(d, at, &refs[i])
			if slices.Contains(refs[:i], refs[i]) {
				c.report.errorf(d, at, "is listed twice")
			}
		}
	}
	if t := a.TokenLifespans; t != nil {
		c.duration(d, path+".tokenLifespans.accessTokenLifespan", t.AccessTokenLifespan, 10*time.Second, 24*time.Hour)
		c.duration(d, path+".tokenLifespans.refreshTokenLifespan", t.RefreshTokenLifespan, time.Minute, maxRefreshLifespan)
		c.duration(d, path+".tokenLifespans.authCodeLifespan", t.AuthCodeLifespan, 10*time.Second, 10*time.Minute)
	}
	c.scopes(d, path+".baselineClientScopes", a.BaselineClientScopes)
	if len(a.BaselineClientScopes) > 10 {
		c.report.errorf(d, path+".baselineClientScopes", "has more than 10 items")
	}
	if i := slices.Index(a.BaselineClientScopes, "openid"); i >= 0 {
		c.report.warnf(d, fmt.Sprintf("%s.baselineClientScopes[%d]", path, i), "openid is not granted: this deployment's authorization server issues no ID tokens to clients")
	}
	if a.AllowConfidentialClientRegistration && a.InsecureAllowHTTP {
		c.report.errorf(d, path+".allowConfidentialClientRegistration", "cannot be combined with insecureAllowHTTP: clients' secrets would travel in the clear")
	}
	if m := a.CIMD; m != nil {
		if d.has(path+".cimd.cacheMaxSize") && (m.CacheMaxSize < 1 || m.CacheMaxSize > 65536) && !c.report.reported(d, path+".cimd.cacheMaxSize") {
			c.report.errorf(d, path+".cimd.cacheMaxSize", "must be from 1 to 65536")
		}
		c.duration(d, path+".cimd.cacheFallbackTtl", m.CacheFallbackTTL, time.Second, 24*time.Hour)
		if m.Enabled {
			c.report.warnf(d, path+".cimd.enabled", "is not supported by this version and is ignored: a client that names a metadata document is unknown; clients register themselves (RFC 7591)")
		}
	}
	if a.ConnectionRetention != nil {
		c.duration(d, path+".connectionRetention", *a.ConnectionRetention, 0, 8760*time.Hour)
	}
	c.providers(d, a)
}

func (c *checker) providers(d *document, a *AuthServerConfig) {
	const path = authServerPath + ".upstreamProviders"
	switch n := len(a.UpstreamProviders); {
	case n == 0 && !c.report.reported(d, path):
		c.report.errorf(d, path, "needs at least one provider: somebody has to say who the user is")
	case n > maxProviders:
		c.report.errorf(d, path, "has more than %d providers: one login would be too long a walk", maxProviders)
	}
	names := providerNames(a)
	redirects := map[string]string{}
	for i := range a.UpstreamProviders {
		p := &a.UpstreamProviders[i]
		at := fmt.Sprintf("%s[%d]", path, i)
		c.providerName(d, at+".name", p.Name, names[:i], len(names))
		c.provider(d, at, p)
		uri := redirectURI(a, p, names[i])
		if first, dup := redirects[uri]; dup && names[i] != "" && !slices.Contains(names[:i], names[i]) {
			c.report.errorf(d, at, "has the same redirect URI as provider %s; each needs its own, so that answers cannot be mixed up", first)
		}
		redirects[uri] = names[i]
	}
	if p := a.PrimaryUpstreamProvider; p != "" && len(names) > 0 && !slices.Contains(names, p) {
		c.report.errorf(d, authServerPath+".primaryUpstreamProvider", "%s is not one of upstreamProviders (%s)%s", show(p), strings.Join(names, ", "), didYouMean(p, names))
	}
}

// providerNames are the names in effect.
func providerNames(a *AuthServerConfig) []string {
	names := make([]string, len(a.UpstreamProviders))
	for i, p := range a.UpstreamProviders {
		names[i] = p.Name
	}
	if len(names) == 1 && names[0] == "" {
		names[0] = defaultProviderName
	}
	return names
}

func (c *checker) providerName(d *document, path, name string, before []string, total int) {
	switch {
	case name == "" && total > 1:
		c.report.errorf(d, path, "is required: two providers or more need names of their own")
	case name == "":
	case name == defaultProviderName && total > 1:
		c.report.errorf(d, path, `must not be "default" where there are two providers or more`)
	case !isLabel(name):
		c.report.errorf(d, path, "%s is not a DNS label: lower-case letters, digits and '-', at most 63", show(name))
	case slices.Contains(before, name):
		c.report.errorf(d, path, "%q names another provider, too", name)
	}
}

func (c *checker) provider(d *document, path string, p *UpstreamProvider) {
	blocks := []strategyBlock{{"oidcConfig", p.OIDCConfig != nil}, {"oauth2Config", p.OAuth2Config != nil}}
	wanted := map[string]string{"oidc": "oidcConfig", "oauth2": "oauth2Config"}[p.Type]
	c.blocks(d, path, p.Type, wanted, blocks)
	if o := p.OIDCConfig; o != nil {
		c.oidcProvider(d, path+".oidcConfig", o)
	}
	if o := p.OAuth2Config; o != nil {
		c.oauth2Provider(d, path+".oauth2Config", o)
	}
}

const permitHTTP = "insecureAllowHTTP is true"

func (c *checker) oidcProvider(d *document, path string, o *OIDCUpstream) {
	c.url(d, path+".issuerUrl", o.IssuerURL, urlRules{allowHTTP: o.InsecureAllowHTTP, permit: permitHTTP})
	c.scopes(d, path+".scopes", o.Scopes)
	if len(o.Scopes) > 0 && !slices.Contains(o.Scopes, "openid") {
		c.report.errorf(d, path+".scopes", "must contain openid: without it there is no id token; for a provider of plain OAuth 2.0, use type oauth2")
	}
	if o.SubjectClaim != "" && !regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]{0,127}$`).MatchString(o.SubjectClaim) {
		c.report.errorf(d, path+".subjectClaim", "must be the name of a top-level claim: letters, digits and '_'")
	}
	c.userInfo(d, path+".userInfoOverride", o.UserInfoOverride, o.InsecureAllowHTTP)
	if u := o.UserInfoOverride; u != nil && u.FieldMapping != nil && slices.ContainsFunc(u.FieldMapping.SubjectFields, func(f string) bool { return f != "sub" }) {
		c.report.warnf(d, path+".userInfoOverride.fieldMapping.subjectFields", "is ignored: the id token says who logged in (see subjectClaim), and a login fails when the answer of this endpoint does not have the same sub")
	}
	c.client(d, path, o.ClientID, o.DCRConfig)
	c.clientAuth(d, path, clientAuth{o.ClientAuthMethod, o.ClientSecretRef, o.ClientKeyRef, o.ClientKeyID, o.ClientAssertionAudience})
	c.caBundle(d, path+".caBundleRef", o.CABundleRef)
	c.parameters(d, path+".additionalAuthorizationParams", o.AdditionalAuthorizationParams, authorizationParameters())
	c.parameters(d, path+".additionalTokenParams", o.AdditionalTokenParams, tokenParameters())
}

func (c *checker) oauth2Provider(d *document, path string, o *OAuth2Upstream) {
	rules := urlRules{query: true, allowHTTP: o.InsecureAllowHTTP, permit: permitHTTP}
	c.url(d, path+".authorizationEndpoint", o.AuthorizationEndpoint, rules)
	c.url(d, path+".tokenEndpoint", o.TokenEndpoint, rules)
	if o.RevocationEndpoint != "" {
		c.url(d, path+".revocationEndpoint", o.RevocationEndpoint, rules)
	}
	c.scopes(d, path+".scopes", o.Scopes)
	c.userInfo(d, path+".userInfo", o.UserInfo, o.InsecureAllowHTTP)
	c.client(d, path, o.ClientID, o.DCRConfig)
	c.clientAuth(d, path, clientAuth{o.ClientAuthMethod, o.ClientSecretRef, o.ClientKeyRef, o.ClientKeyID, o.ClientAssertionAudience})
	c.caBundle(d, path+".caBundleRef", o.CABundleRef)
	c.parameters(d, path+".additionalAuthorizationParams", o.AdditionalAuthorizationParams, authorizationParameters())
	c.parameters(d, path+".additionalTokenParams", o.AdditionalTokenParams, tokenParameters())
	switch method := o.TokenEndpointAuthMethod; {
	case method != "" && o.ClientAuthMethod != "":
		c.report.errorf(d, path+".tokenEndpointAuthMethod", "means the same as clientAuthMethod: remove it")
	case method != "" && o.ClientKeyRef != nil:
		c.report.errorf(d, path+".tokenEndpointAuthMethod", "is for a client with a secret: remove it, or clientKeyRef")
	case method == AuthMethodNone && o.ClientSecretRef != nil:
		c.report.errorf(d, path+".tokenEndpointAuthMethod", "is none, but there is a clientSecretRef: remove one of them")
	case method != "" && method != AuthMethodNone && o.ClientSecretRef == nil:
		c.report.errorf(d, path+".tokenEndpointAuthMethod", "%s needs a clientSecretRef", method)
	}
	if m := o.TokenResponseMapping; m != nil {
		at := path + ".tokenResponseMapping"
		c.jsonPath(d, at+".accessTokenPath", m.AccessTokenPath)
		c.jsonPath(d, at+".scopePath", m.ScopePath)
		c.jsonPath(d, at+".refreshTokenPath", m.RefreshTokenPath)
		c.jsonPath(d, at+".expiresInPath", m.ExpiresInPath)
	}
	if m := o.IdentityFromToken; m != nil {
		at := path + ".identityFromToken"
		c.claimPath(d, at+".subjectPath", m.SubjectPath)
		c.claimPath(d, at+".namePath", m.NamePath)
		c.claimPath(d, at+".emailPath", m.EmailPath)
		if o.UserInfo != nil {
			c.report.warnf(d, path+".userInfo", "is not asked: identityFromToken tells who logged in")
		}
	}
}

func (c *checker) client(d *document, path, clientID string, dcr *DCR) {
	switch {
	case dcr != nil:
		c.report.errorf(d, path+".dcrConfig", "is not supported by this version: register the application at the provider by hand, with the redirect URI of this provider, and set clientId and (unless the client is a public one) clientSecretRef")
	case clientID == "" && !c.report.reported(d, path+".clientId"):
		c.report.errorf(d, path+".clientId", "is required")
	}
}

func (c *checker) userInfo(d *document, path string, u *UserInfo, allowHTTP bool) {
	if u == nil {
		return
	}
	c.url(d, path+".endpointUrl", u.EndpointURL, urlRules{query: true, allowHTTP: allowHTTP, permit: permitHTTP})
	headers := maps.Clone(u.AdditionalHeaders)
	maps.DeleteFunc(headers, func(name, _ string) bool { return strings.EqualFold(name, "accept") }) // GitHub asks for it
	c.plainHeaders(d, path+".additionalHeaders", "", headers)
	if m := u.FieldMapping; m != nil {
		for name, list := range map[string][]string{"subjectFields": m.SubjectFields, "nameFields": m.NameFields, "emailFields": m.EmailFields} {
			for i, field := range list {
				if at := fmt.Sprintf("%s.fieldMapping.%s[%d]", path, name, i); field == "" {
					c.report.errorf(d, at, "is empty")
				} else {
					c.jsonPath(d, at, field)
				}
			}
		}
	}
}

// redirectURI in effect for a provider.
func redirectURI(a *AuthServerConfig, p *UpstreamProvider, name string) string {
	configured := ""
	switch {
	case p.OIDCConfig != nil:
		configured = p.OIDCConfig.RedirectURI
	case p.OAuth2Config != nil:
		configured = p.OAuth2Config.RedirectURI
	}
	if configured != "" {
		return configured
	}
	return authorizationBase(a) + "/oauth/callback/" + name
}

// authorizationBase is where the browser meets the authorization server.
func authorizationBase(a *AuthServerConfig) string {
	if a.AuthorizationEndpointBaseURL != "" {
		return a.AuthorizationEndpointBaseURL
	}
	return a.Issuer
}
