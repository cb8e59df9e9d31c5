package config

import (
	"net/http"
	"slices"
	"strings"
)

func isAuthorization(header string) bool { return strings.EqualFold(header, "Authorization") }

// Header returns the canonical name of the header that the strategy sets, or ""
// for StrategyUnauthenticated.
func (s *Strategy) Header() string {
	switch {
	case s.UpstreamInject != nil, s.BearerToken != nil:
		return "Authorization"
	case s.TokenExchange != nil:
		return s.TokenExchange.HeaderName
	case s.HeaderInjection != nil:
		return s.HeaderInjection.HeaderName
	default:
		return ""
	}
}

// strategyFor decides how a backend is authenticated to. What is said of the
// backend itself goes first, then (source discovered) its entry's reference,
// then the default. With none of them there is no credential.
func (b *builder) strategyFor(e *resource[MCPServerEntrySpec], out *OutgoingAuth) Strategy {
	const own = "spec.externalAuthConfigRef"
	discovered := func() Strategy {
		if e.Spec.ExternalAuthConfigRef == nil {
			return Strategy{Type: StrategyUnauthenticated}
		}
		return b.strategy(e.doc, own, e.Spec.ExternalAuthConfigRef)
	}
	if s, ok := out.Backends[e.doc.name]; ok {
		return b.backendAuth("spec.outgoingAuth.backends."+e.doc.name, &s, discovered)
	}
	if out.Source != "inline" && e.Spec.ExternalAuthConfigRef != nil {
		return discovered()
	}
	if e.Spec.ExternalAuthConfigRef != nil {
		b.report.warnf(e.doc, own, "is ignored: outgoingAuth.source is inline; name it in outgoingAuth.backends, or use source discovered")
	}
	if out.Default != nil {
		return b.backendAuth("spec.outgoingAuth.default", out.Default, discovered)
	}
	return Strategy{Type: StrategyUnauthenticated}
}

func (b *builder) backendAuth(path string, s *BackendAuth, discovered func() Strategy) Strategy {
	doc := b.server.doc
	switch s.Type {
	case "discovered":
		if s.ExternalAuthConfigRef != nil {
			b.report.errorf(doc, path+".externalAuthConfigRef", "is set, but type is discovered: remove it, or use type externalAuthConfigRef")
		}
		return discovered()
	case "externalAuthConfigRef":
		if s.ExternalAuthConfigRef == nil {
			if !b.report.reported(doc, path+".externalAuthConfigRef") {
				b.report.errorf(doc, path+".externalAuthConfigRef", "is required for type externalAuthConfigRef")
			}
			break
		}
		return b.strategy(doc, path+".externalAuthConfigRef", s.ExternalAuthConfigRef)
	}
	return Strategy{Type: StrategyUnauthenticated}
}

// strategy resolves a reference to an MCPExternalAuthConfig.
func (b *builder) strategy(doc *document, path string, ref *ObjectRef) Strategy {
	none := Strategy{Type: StrategyUnauthenticated}
	if ref.Name == "" {
		return none
	}
	a, names := find(b.set.auths, ref.Name)
	if a == nil {
		b.report.errorf(doc, path+".name", "there is no MCPExternalAuthConfig %s in the set (%s)%s", show(ref.Name), listed(names), didYouMean(ref.Name, names))
		return none
	}
	b.used[ref.Name] = true
	s := Strategy{Type: StrategyType(a.Spec.Type), Config: ref.Name}
	switch {
	case a.Spec.Type == "embeddedAuthServer":
		b.report.errorf(doc, path+".name", "MCPExternalAuthConfig %s is of type embeddedAuthServer, which says nothing about how a backend is called; the authorization server is spec.authServerConfig of the VirtualMCPServer", ref.Name)
	case slices.Contains([]string{"xaa", "obo", "awsSts"}, a.Spec.Type):
		b.report.errorf(doc, path+".name", "MCPExternalAuthConfig %s is of type %s, which this version does not support: calls would go without a credential", ref.Name, a.Spec.Type)
	case a.Spec.UpstreamInject != nil:
		s.UpstreamInject = &UpstreamInjectStrategy{Provider: a.Spec.UpstreamInject.ProviderName}
	case a.Spec.TokenExchange != nil:
		s.TokenExchange = b.tokenExchange(a.Spec)
	case a.Spec.HeaderInjection != nil && a.Spec.HeaderInjection.ValueSecretRef != nil:
		s.HeaderInjection = &HeaderInjectionStrategy{
			HeaderName: http.CanonicalHeaderKey(a.Spec.HeaderInjection.HeaderName), Value: *secretRef(a.Spec.HeaderInjection.ValueSecretRef),
		}
	case a.Spec.BearerToken != nil && a.Spec.BearerToken.TokenSecretRef != nil:
		s.BearerToken = &BearerTokenStrategy{Token: *secretRef(a.Spec.BearerToken.TokenSecretRef)}
	}
	return s
}

func (b *builder) tokenExchange(spec *ExternalAuthSpec) *TokenExchangeStrategy {
	t := spec.TokenExchange
	s := &TokenExchangeStrategy{
		TokenURL: t.TokenURL, ClientID: t.ClientID, ClientSecret: secretRef(t.ClientSecretRef), Audience: t.Audience,
		Scopes: append([]string{}, t.Scopes...), SubjectProvider: t.SubjectProviderName, HeaderName: "Authorization",
		Parameters: t.AdditionalParameters, AllowHTTP: t.InsecureAllowHTTP,
		ClientKey: clientKey(t.ClientKeyRef, t.ClientKeyID, t.ClientAssertionAudience),
	}
	s.AuthMethod = authMethod(t.ClientAuthMethod, s.ClientKey)
	if t.ExternalTokenHeaderName != "" {
		s.HeaderName = http.CanonicalHeaderKey(t.ExternalTokenHeaderName)
	}
	s.MintActor = t.ActorToken != ""
	if t.RequestedTokenType != "" {
		s.RequestedTokenType = tokenType(t.RequestedTokenType)
	}
	s.CABundle, s.DenyPrivateIPs = caBundle(t.CABundleRef), t.AllowPrivateIPs != nil && !*t.AllowPrivateIPs
	switch {
	case t.SubjectTokenType != "":
		s.SubjectTokenType = tokenType(t.SubjectTokenType)
	case t.SubjectProviderName == "" && b.d.Mode == ModeAuthServer:
		s.SubjectTokenType = TokenTypeJWT
	default:
		s.SubjectTokenType = TokenTypeAccessToken
	}
	return s
}

// crossRules are the rules on strategies that depend on the rest of the set:
// V-01, V-02, V-03, V-10 and V-11. They cover what the backends use and, where
// it is clear for which deployment, what nothing uses.
func (b *builder) crossRules() {
	for i := range b.set.auths {
		a := &b.set.auths[i]
		if !b.used[a.doc.name] {
			if len(b.set.servers) != 1 {
				continue
			}
			if a.doc.name != "" && b.report.OK() { // an error may be why
				b.report.warnf(a.doc, "metadata.name", "no backend uses this MCPExternalAuthConfig")
			}
		}
		b.strategyRules(a)
	}
}

func (b *builder) strategyRules(a *resource[ExternalAuthSpec]) {
	doc, spec := a.doc, a.Spec
	perUser := spec.Type == string(StrategyUpstreamInject) || spec.Type == string(StrategyTokenExchange)
	if b.d.Mode == ModeAnonymous && perUser {
		b.report.add(SeverityError, "V-11", doc, "spec.type",
			"%s needs a user, but incomingAuth is anonymous; use headerInjection, bearerToken or unauthenticated, or let users log in (incomingAuth type oidc)", spec.Type)
	}
	server := b.server.Spec.AuthServerConfig
	if spec.UpstreamInject != nil {
		const path = "spec.upstreamInject.providerName"
		switch name := spec.UpstreamInject.ProviderName; {
		case server == nil:
			b.report.add(SeverityError, "V-01", doc, path, "upstreamInject needs the deployment's own authorization server, which keeps the providers' tokens: add spec.authServerConfig to VirtualMCPServer %s", b.server.doc.name)
		case name != "":
			b.providerExists(doc, path, name)
		}
	}
	if spec.TokenExchange == nil {
		return
	}
	b.exchangeRules(a)
}

func (b *builder) exchangeRules(a *resource[ExternalAuthSpec]) {
	const path = "spec.tokenExchange.subjectProviderName"
	doc, spec, server := a.doc, a.Spec, b.server.Spec.AuthServerConfig
	if spec.TokenExchange.ActorToken != "" && server == nil {
		b.report.errorf(doc, "spec.tokenExchange.actorToken", "needs the deployment's own authorization server, which mints it: add spec.authServerConfig to VirtualMCPServer %s", b.server.doc.name)
	}
	switch name := spec.TokenExchange.SubjectProviderName; {
	case name != "" && server == nil:
		b.report.add(SeverityError, "V-02", doc, path, "%s does not exist: there are no providers without spec.authServerConfig in VirtualMCPServer %s", show(name), b.server.doc.name)
	case name != "":
		b.providerExists(doc, path, name)
		b.idTokenExists(doc, spec.TokenExchange)
	case b.d.Mode == ModeAuthServer:
		b.report.add(SeverityWarning, "V-03", doc, path, "is not set, so that a token signed by %s is exchanged: the token service must trust that issuer. To exchange a provider's token, name the provider (ToolHive would take the first)", show(server.Issuer))
	case b.d.Mode == ModeExternalIssuer:
		b.report.add(SeverityWarning, "V-10", doc, path, "is not set, so that the caller's own token, of an external issuer, is sent to the token service: it must be one that may see it")
	}
}

// providerExists is V-02, and that tokens may be injected at all.
func (b *builder) providerExists(doc *document, path, name string) {
	a := b.server.Spec.AuthServerConfig
	names := slices.DeleteFunc(providerNames(a), func(n string) bool { return n == "" })
	if !slices.Contains(names, name) {
		b.report.add(SeverityError, "V-02", doc, path, "%s is not a provider of VirtualMCPServer %s (%s)%s", show(name), b.server.doc.name, listed(names), didYouMean(name, names))
		return
	}
	if a.DisableUpstreamTokenInjection && b.used[doc.name] {
		b.report.errorf(b.server.doc, authServerPath+".disableUpstreamTokenInjection", "is true, but MCPExternalAuthConfig %s uses the token of provider %s", doc.name, name)
	}
}

// idTokenExists refuses an exchange that could never happen: an id token is kept
// when it was verified, which takes a provider of type oidc.
func (b *builder) idTokenExists(doc *document, t *TokenExchange) {
	if !strings.HasSuffix(t.SubjectTokenType, "id_token") {
		return
	}
	a := b.server.Spec.AuthServerConfig
	i := slices.Index(providerNames(a), t.SubjectProviderName)
	if i >= 0 && a.UpstreamProviders[i].Type == string(ProviderOAuth2) {
		b.report.errorf(doc, "spec.tokenExchange.subjectTokenType", "is id_token, but provider %s is of type oauth2, which has none: use access_token", t.SubjectProviderName)
	}
}
