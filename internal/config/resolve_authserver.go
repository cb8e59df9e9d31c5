package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"chatelaine.dev/internal/secret"
)

// authServer resolves authServerConfig: defaults, and V-08 and V-09.
func (b *builder) authServer(a *AuthServerConfig) *AuthServer {
	s := &AuthServer{
		Issuer: a.Issuer, AuthorizationBaseURL: authorizationBase(a),
		SigningKeys: secretRefs(a.SigningKeySecretRefs), HMACSecrets: secretRefs(a.HMACSecretRefs),
		AccessTokenLifespan: defaultAccessLifespan, RefreshTokenLifespan: defaultRefreshLifespan, AuthCodeLifespan: defaultCodeLifespan,
		BaselineClientScopes:     slices.DeleteFunc(append([]string{}, a.BaselineClientScopes...), func(s string) bool { return s == "openid" }),
		AllowConfidentialClients: a.AllowConfidentialClientRegistration,
		AllowHTTP:                a.InsecureAllowHTTP,
		CIMD:                     CIMDSettings{CacheMaxSize: defaultCIMDCache, CacheFallbackTTL: defaultCIMDTTL},
		ConnectionRetention:      defaultRetention, LockSessionsOnPrimaryRevocation: true,
	}
	if t := a.TokenLifespans; t != nil {
		s.AccessTokenLifespan = cmp.Or(time.Duration(t.AccessTokenLifespan), defaultAccessLifespan)
		s.RefreshTokenLifespan = cmp.Or(time.Duration(t.RefreshTokenLifespan), defaultRefreshLifespan)
		s.AuthCodeLifespan = cmp.Or(time.Duration(t.AuthCodeLifespan), defaultCodeLifespan)
	}
	if m := a.CIMD; m != nil {
		s.CIMD = CIMDSettings{
			Enabled: m.Enabled, CacheMaxSize: cmp.Or(m.CacheMaxSize, defaultCIMDCache),
			CacheFallbackTTL: cmp.Or(time.Duration(m.CacheFallbackTTL), defaultCIMDTTL),
		}
	}
	if a.ConnectionRetention != nil {
		s.ConnectionRetention = time.Duration(*a.ConnectionRetention)
	}
	if a.LockSessionsOnPrimaryRevocation != nil {
		s.LockSessionsOnPrimaryRevocation = *a.LockSessionsOnPrimaryRevocation
	}
	b.providers(a, s)
	return s
}

func secretRefs(refs []SecretKeyRef) []secret.Ref {
	list := make([]secret.Ref, 0, len(refs))
	for _, r := range refs {
		list = append(list, secret.Ref(r))
	}
	return list
}

func (b *builder) providers(a *AuthServerConfig, s *AuthServer) {
	s.Providers = []Provider{}
	names := providerNames(a)
	if len(names) == 0 {
		return
	}
	primary := max(slices.Index(names, a.PrimaryUpstreamProvider), 0)
	s.Primary = names[primary]
	for i := range a.UpstreamProviders {
		p := resolveProvider(&a.UpstreamProviders[i], names[i])
		p.Primary = i == primary
		p.RedirectURI = redirectURI(a, &a.UpstreamProviders[i], names[i])
		b.redirectRules(a, i)
		if p.Primary {
			b.primaryRules(&a.UpstreamProviders[i], &p, i)
			s.Providers = slices.Insert(s.Providers, 0, p)
			continue
		}
		if !p.HasIdentity() && a.UpstreamProviders[i].OAuth2Config != nil {
			b.report.warnf(b.server.doc, fmt.Sprintf("%s.upstreamProviders[%d].oauth2Config", authServerPath, i),
				"has neither userInfo nor identityFromToken: two accounts of one user at this provider cannot be told apart")
		}
		s.Providers = append(s.Providers, p)
	}
}

// redirectRules: the browser returns to where it left, so that its cookie is
// there, and to a path that is the chain's.
func (b *builder) redirectRules(a *AuthServerConfig, i int) {
	p := &a.UpstreamProviders[i]
	path, uri := fmt.Sprintf("%s.upstreamProviders[%d].oidcConfig.redirectUri", authServerPath, i), ""
	switch {
	case p.OIDCConfig != nil:
		uri = p.OIDCConfig.RedirectURI
	case p.OAuth2Config != nil:
		path = strings.Replace(path, ".oidcConfig.", ".oauth2Config.", 1)
		uri = p.OAuth2Config.RedirectURI
	}
	if uri == "" {
		return
	}
	if problem := urlProblem(uri, urlRules{allowHTTP: a.InsecureAllowHTTP, permit: "authServerConfig.insecureAllowHTTP is true"}); problem != "" {
		b.report.errorf(b.server.doc, path, "%s", problem)
		return
	}
	if _, rest, _ := strings.Cut(uri, "://"); strings.Contains(rest, "//") {
		b.report.errorf(b.server.doc, path, "must not have an empty part (//) in its path")
		return
	}
	base := authorizationBase(a) + "/oauth/callback"
	if uri != base && !strings.HasPrefix(uri, base+"/") {
		b.report.errorf(b.server.doc, path, "must be %s, or below it: the browser has to come back to the authorization server that it left", printable(base))
	}
}

// primaryRules are V-08 and V-09: the primary provider decides who the user
// is, so it can neither be skipped nor be vague.
func (b *builder) primaryRules(p *UpstreamProvider, resolved *Provider, i int) {
	doc, path := b.server.doc, fmt.Sprintf("%s.upstreamProviders[%d]", authServerPath, i)
	if p.Optional {
		b.report.add(SeverityError, "V-08", doc, path+".optional", "provider %s is the primary one, which decides who the user is, and cannot be optional; make it required, or set primaryUpstreamProvider to another", show(resolved.Name))
	}
	v09 := func(at, format string, args ...any) { b.report.add(SeverityError, "V-09", doc, at, format, args...) }
	switch {
	case p.OIDCConfig != nil:
		if claim := resolved.OIDC.SubjectClaim; mutable(claim) {
			v09(path+".oidcConfig.subjectClaim", "%s can change and be given to somebody else, so that it does not identify a user; use sub, or another claim that never changes", claim)
		}
	case p.OAuth2Config == nil:
	case !resolved.HasIdentity():
		v09(path+".oauth2Config", "the primary provider has no stable subject: add userInfo (or identityFromToken) that says who logged in, or make another provider the primary one")
	case resolved.OAuth2.Identity != nil:
		if subject := resolved.OAuth2.Identity.Subject; mutablePath(subject) {
			v09(path+".oauth2Config.identityFromToken.subjectPath", "%s can change and be given to somebody else, so that it does not identify a user; use a value that never changes, such as an id", show(subject))
		}
	default:
		if i := slices.IndexFunc(resolved.UserInfo.SubjectFields, mutablePath); i >= 0 {
			v09(path+".oauth2Config.userInfo.fieldMapping.subjectFields", "%s can change and be given to somebody else, so that it does not identify a user; use fields that never change, such as id", show(resolved.UserInfo.SubjectFields[i]))
		}
	}
}

// mutablePath reports whether what a path leads to is known to be renamed or
// reassigned.
func mutablePath(path string) bool {
	keys := JSONKeys(path)
	return len(keys) > 0 && mutable(keys[len(keys)-1])
}

// mutable reports whether a claim is known to be renamed or reassigned.
func mutable(claim string) bool {
	return slices.Contains([]string{"email", "login", "name", "nickname", "preferred_username", "unique_name", "upn", "username"}, strings.ToLower(claim))
}

func resolveProvider(p *UpstreamProvider, name string) Provider {
	r := Provider{Name: name, Type: ProviderType(p.Type), Optional: p.Optional, RefreshInDoubt: cmp.Or(p.RefreshInDoubt, RefreshInDoubtRetry)}
	switch {
	case p.OIDCConfig != nil:
		o := p.OIDCConfig
		r.ClientID, r.ClientSecret = o.ClientID, secretRef(o.ClientSecretRef)
		r.ClientKey = clientKey(o.ClientKeyRef, o.ClientKeyID, o.ClientAssertionAudience)
		r.AuthMethod = authMethod(o.ClientAuthMethod, r.ClientKey)
		if r.ClientSecret == nil && r.ClientKey == nil {
			r.AuthMethod = AuthMethodNone
		}
		r.Scopes = append([]string{}, o.Scopes...)
		if len(r.Scopes) == 0 {
			r.Scopes = []string{"openid", "offline_access"}
		}
		r.AuthorizationParams, r.TokenParams = o.AdditionalAuthorizationParams, o.AdditionalTokenParams
		r.UserInfo, r.CABundle = userInfoRequest(o.UserInfoOverride), caBundle(o.CABundleRef)
		r.AllowPrivateIPs, r.AllowHTTP = o.AllowPrivateIPs, o.InsecureAllowHTTP
		r.OIDC = &OIDCProvider{Issuer: o.IssuerURL, SubjectClaim: cmp.Or(o.SubjectClaim, "sub")}
	case p.OAuth2Config != nil:
		o := p.OAuth2Config
		r.ClientID, r.ClientSecret = o.ClientID, secretRef(o.ClientSecretRef)
		r.ClientKey = clientKey(o.ClientKeyRef, o.ClientKeyID, o.ClientAssertionAudience)
		r.AuthMethod = cmp.Or(authMethod(o.ClientAuthMethod, r.ClientKey), o.TokenEndpointAuthMethod, AuthMethodPost)
		if r.ClientSecret == nil && r.ClientKey == nil {
			r.AuthMethod = AuthMethodNone
		}
		r.Scopes = append([]string{}, o.Scopes...)
		r.AuthorizationParams, r.TokenParams = o.AdditionalAuthorizationParams, o.AdditionalTokenParams
		r.CABundle = caBundle(o.CABundleRef)
		r.AllowPrivateIPs, r.AllowHTTP = o.AllowPrivateIPs, o.InsecureAllowHTTP
		r.OAuth2 = &OAuth2Provider{
			AuthorizationEndpoint: o.AuthorizationEndpoint, TokenEndpoint: o.TokenEndpoint, RevocationEndpoint: o.RevocationEndpoint,
			TokenResponse: tokenResponsePaths(o.TokenResponseMapping),
		}
		if m := o.IdentityFromToken; m != nil {
			r.OAuth2.Identity = &IdentityPaths{Subject: m.SubjectPath, Name: m.NamePath, Email: m.EmailPath}
		} else {
			r.UserInfo = userInfoRequest(o.UserInfo)
		}
	}
	return r
}

func tokenResponsePaths(m *TokenResponseMapping) TokenResponsePaths {
	if m == nil {
		m = &TokenResponseMapping{}
	}
	return TokenResponsePaths{
		AccessToken: cmp.Or(m.AccessTokenPath, "access_token"), RefreshToken: cmp.Or(m.RefreshTokenPath, "refresh_token"),
		Scope: cmp.Or(m.ScopePath, "scope"), ExpiresIn: cmp.Or(m.ExpiresInPath, "expires_in"),
	}
}

func userInfoRequest(u *UserInfo) *UserInfoRequest {
	if u == nil {
		return nil
	}
	m := u.FieldMapping
	if m == nil {
		m = &FieldMapping{}
	}
	return &UserInfoRequest{
		URL: u.EndpointURL, Method: cmp.Or(u.HTTPMethod, "GET"), Headers: u.AdditionalHeaders,
		SubjectFields: orDefault(m.SubjectFields, "sub"), NameFields: orDefault(m.NameFields, "name"), EmailFields: orDefault(m.EmailFields, "email"),
	}
}

func orDefault(list []string, fallback string) []string {
	if len(list) == 0 {
		return []string{fallback}
	}
	return list
}
