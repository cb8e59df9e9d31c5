package config

import (
	"regexp"
	"slices"
	"strings"
	"time"
)

// strategyBlock is a block of an MCPExternalAuthConfig, named as its type is.
type strategyBlock struct {
	name string
	set  bool
}

func strategyBlocks(s *ExternalAuthSpec) []strategyBlock {
	return []strategyBlock{
		{"upstreamInject", s.UpstreamInject != nil},
		{"tokenExchange", s.TokenExchange != nil},
		{"headerInjection", s.HeaderInjection != nil},
		{"bearerToken", s.BearerToken != nil},
		{"xaa", s.XAA != nil},
		{"obo", s.OBO != nil},
		{"awsSts", s.AWSSTS != nil},
		{"embeddedAuthServer", s.EmbeddedAuthServer != nil},
	}
}

// blocks checks that the block that a type asks for is there, and no other.
func (c *checker) blocks(d *document, path, typ, wanted string, blocks []strategyBlock) {
	present, other := false, false
	for _, b := range blocks {
		switch {
		case typ == "" || !b.set:
		case b.name == wanted:
			present = true
		default:
			other = true
			c.report.errorf(d, path+"."+b.name, "is set, but type is %s: remove the one or change the other", typ)
		}
	}
	known := slices.ContainsFunc(blocks, func(b strategyBlock) bool { return b.name == wanted })
	if known && !present && !other && wanted != string(StrategyUpstreamInject) && !c.report.reportedWithin(d, path+"."+wanted) {
		c.report.errorf(d, path+"."+wanted, "is required for type %s", typ)
	}
}

// auth checks the form of an MCPExternalAuthConfig.
func (c *checker) auth(a resource[ExternalAuthSpec]) {
	d, spec := a.doc, a.Spec
	c.blocks(d, "spec", spec.Type, spec.Type, strategyBlocks(spec))
	if spec.ExposeToClients && spec.Type != string(StrategyTokenExchange) {
		c.report.errorf(d, "spec.exposeToClients", "is for type tokenExchange only: stored and static credentials are never handed out")
	} else if spec.ExposeToClients {
		c.report.warnf(d, "spec.exposeToClients", "is not supported by this version and is ignored: exchanged tokens go to the backend alone")
	}
	if spec.UpstreamInject == nil && spec.Type == string(StrategyUpstreamInject) && !c.report.reportedWithin(d, "spec.upstreamInject") {
		c.report.add(SeverityError, "V-06", d, "spec.upstreamInject", "is required for type upstreamInject, with a providerName")
	}
	if spec.UpstreamInject != nil && spec.UpstreamInject.ProviderName == "" && !c.report.reported(d, "spec.upstreamInject.providerName") {
		c.report.add(SeverityError, "V-06", d, "spec.upstreamInject.providerName",
			"is empty; name one of authServerConfig.upstreamProviders")
	}
	if h := spec.HeaderInjection; h != nil {
		if c.headerName(d, "spec.headerInjection.headerName", h.HeaderName) && isAuthorization(h.HeaderName) {
			c.report.warnf(d, "spec.headerInjection.headerName", "the whole value of Authorization, scheme included, must then be in the secret; for a bearer token, use type bearerToken")
		}
		c.secret(d, "spec.headerInjection.valueSecretRef", h.ValueSecretRef)
	}
	if b := spec.BearerToken; b != nil {
		c.secret(d, "spec.bearerToken.tokenSecretRef", b.TokenSecretRef)
	}
	if t := spec.TokenExchange; t != nil {
		c.tokenExchange(d, t)
	}
	c.unsupported(d, spec)
}

func (c *checker) tokenExchange(d *document, t *TokenExchange) {
	const path = "spec.tokenExchange"
	c.url(d, path+".tokenUrl", t.TokenURL, urlRules{query: true, allowHTTP: t.InsecureAllowHTTP, permit: "insecureAllowHTTP is true"})
	c.clientAuth(d, path, clientAuth{t.ClientAuthMethod, t.ClientSecretRef, t.ClientKeyRef, t.ClientKeyID, t.ClientAssertionAudience})
	c.clientOf(d, path+".clientId", t.ClientID, t.ClientSecretRef, t.ClientKeyRef)
	c.scopes(d, path+".scopes", t.Scopes)
	c.headerName(d, path+".externalTokenHeaderName", t.ExternalTokenHeaderName)
	c.parameters(d, path+".additionalParameters", t.AdditionalParameters, exchangeParameters())
	c.caBundle(d, path+".caBundleRef", t.CABundleRef)
	c.tokenTypes(d, path, t)
}

// tokenTypes checks what is exchanged for what.
func (c *checker) tokenTypes(d *document, path string, t *TokenExchange) {
	subject, at := tokenType(t.SubjectTokenType), path+".subjectTokenType"
	switch {
	case subject == TokenTypeRefreshToken && !t.InsecureSendRefreshToken:
		c.report.errorf(d, at, "refresh_token hands the token service what the connection itself lives on: set insecureSendRefreshToken: true if it must be so, otherwise use access_token")
	case subject != TokenTypeRefreshToken && t.InsecureSendRefreshToken:
		c.report.errorf(d, path+".insecureSendRefreshToken", "is for subjectTokenType refresh_token alone: remove it")
	}
	if slices.Contains([]string{TokenTypeRefreshToken, TokenTypeSAML1, TokenTypeSAML2}, subject) && t.SubjectProviderName == "" {
		c.report.errorf(d, at, "needs a subjectProviderName: callers have no such token")
	}
	if asked := tokenType(t.RequestedTokenType); !bearerType(asked) && (t.ExternalTokenHeaderName == "" || isAuthorization(t.ExternalTokenHeaderName)) {
		c.report.errorf(d, path+".requestedTokenType", "%s is no bearer token: name a header for it in externalTokenHeaderName", strings.TrimPrefix(asked, tokenTypePrefix))
	}
}

const tokenTypePrefix = "urn:ietf:params:oauth:token-type:"

// tokenType returns the URN of a token type that may be written short; empty stays so.
func tokenType(text string) string {
	if text == "" {
		return ""
	}
	return tokenTypePrefix + strings.TrimPrefix(text, tokenTypePrefix)
}

// bearerType reports whether what is asked for may open something as bearer token
// (RFC 8693, section 3). An empty one is an access token.
func bearerType(urn string) bool {
	return slices.Contains([]string{"", TokenTypeAccessToken, TokenTypeJWT}, urn)
}

// unsupported checks the form of strategies that this version refuses to use,
// so that a set can be prepared for one that does.
func (c *checker) unsupported(d *document, spec *ExternalAuthSpec) {
	if x := spec.XAA; x != nil {
		c.url(d, "spec.xaa.idpTokenUrl", x.IDPTokenURL, urlRules{query: true})
		c.url(d, "spec.xaa.targetTokenUrl", x.TargetTokenURL, urlRules{query: true, allowHTTP: x.InsecureTargetTokenURL, permit: "insecureTargetTokenUrl is true"})
		c.secret(d, "spec.xaa.idpClientSecretRef", x.IDPClientSecretRef)
		c.secret(d, "spec.xaa.targetClientSecretRef", x.TargetClientSecretRef)
		c.scopes(d, "spec.xaa.scopes", x.Scopes)
	}
	if o := spec.OBO; o != nil {
		if o.TenantID != "" && !regexp.MustCompile(`^([0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.)+[a-zA-Z]{2,})$`).MatchString(o.TenantID) {
			c.report.errorf(d, "spec.obo.tenantId", "must be the GUID or a domain name of the directory")
		}
		c.url(d, "spec.obo.authority", o.Authority, urlRules{base: true})
		c.secret(d, "spec.obo.clientSecretRef", o.ClientSecretRef)
		c.scopes(d, "spec.obo.scopes", o.Scopes)
		if o.CacheSkew != nil {
			c.duration(d, "spec.obo.cacheSkew", *o.CacheSkew, 0, time.Hour)
		}
	}
	if s := spec.AWSSTS; s != nil {
		c.awsSTS(d, s)
	}
}

func (c *checker) awsSTS(d *document, s *AWSSTS) {
	if s.Region != "" && !regexp.MustCompile(`^[a-z]{2}(-[a-z]+)+-[0-9]+$`).MatchString(s.Region) {
		c.report.errorf(d, "spec.awsSts.region", "must be a region such as eu-west-1")
	}
	if s.FallbackRoleARN == "" && len(s.RoleMappings) == 0 {
		c.report.errorf(d, "spec.awsSts", "needs fallbackRoleArn or roleMappings")
	}
	if s.SessionDuration != nil && (*s.SessionDuration < 900 || *s.SessionDuration > 43200) {
		c.report.errorf(d, "spec.awsSts.sessionDuration", "must be from 900 to 43200 seconds")
	}
}
