package config

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"chatelaine.dev/internal/secret"
)

// check runs every check over the set and returns the deployment that it
// describes, as far as it can be told.
func (r *resources) check(report *Report) *Deployment {
	c := &checker{report: report}
	for _, e := range r.entries {
		c.entry(e)
	}
	for _, a := range r.auths {
		c.auth(a)
	}
	for _, o := range r.oidc {
		c.oidc(o)
	}
	for _, s := range r.servers {
		if a := s.Spec.AuthServerConfig; a != nil {
			c.authServer(s.doc, a)
		}
	}
	r.countServers(report)
	var d *Deployment
	for i := range r.servers {
		b := &builder{set: r, checker: c, report: report, server: &r.servers[i], d: &Deployment{}}
		b.build()
		d = b.d
	}
	return d
}

// countServers is V-12: one VirtualMCPServer to a set.
func (r *resources) countServers(report *Report) {
	if len(r.servers) == 0 {
		if report.Documents > 0 || report.OK() {
			report.note(Problem{Severity: SeverityError, Code: "V-12", Message: "the set has no VirtualMCPServer, and needs exactly one"})
		}
		return
	}
	first := r.servers[0].doc
	for _, s := range r.servers[1:] {
		report.add(SeverityError, "V-12", s.doc, "kind", "the set has another VirtualMCPServer (%s, in %s line %d), and must have exactly one",
			first.name, first.file, first.line)
	}
}

// builder resolves one VirtualMCPServer against the set.
type builder struct {
	set     *resources
	checker *checker
	report  *Report
	server  *resource[VirtualMCPServerSpec]
	d       *Deployment
	group   string
	used    map[string]bool // names of MCPExternalAuthConfigs
}

func (b *builder) build() {
	b.used = map[string]bool{}
	b.d.Name = b.server.doc.name
	b.resolveGroup()
	b.incoming()
	if a := b.server.Spec.AuthServerConfig; a != nil {
		b.d.AuthServer = b.authServer(a)
	}
	b.aggregation()
	b.backends()
	b.crossRules()
}

func (b *builder) resolveGroup() {
	spec, doc := b.server.Spec, b.server.doc
	path := "spec.groupRef.name"
	if spec.GroupRef != nil {
		b.group = spec.GroupRef.Name
	}
	if old := configOf(spec).GroupRef; old != "" {
		switch b.group {
		case "":
			b.group, path = old, "spec.config.groupRef"
		case old:
		default:
			b.report.errorf(doc, "spec.config.groupRef", "%s differs from spec.groupRef.name", show(old))
		}
	}
	if b.group == "" {
		if !b.report.reported(doc, "spec.groupRef") && !b.report.reported(doc, path) {
			b.report.errorf(doc, "spec.groupRef", "is required; name the MCPGroup of the backends")
		}
		return
	}
	if g, names := find(b.set.groups, b.group); g == nil {
		b.report.errorf(doc, path, "there is no MCPGroup %s in the set (%s)%s", show(b.group), listed(names), didYouMean(b.group, names))
	}
}

func configOf(spec *VirtualMCPServerSpec) *VirtualMCPConfig {
	if spec.Config == nil {
		return &VirtualMCPConfig{}
	}
	return spec.Config
}

func listed(names []string) string {
	if len(names) == 0 {
		return "it has none"
	}
	return "it has " + strings.Join(names, ", ")
}

// incoming resolves who may call the gateway: V-04 and V-07.
func (b *builder) incoming() {
	spec, doc := b.server.Spec, b.server.doc
	in := spec.IncomingAuth
	if in == nil || in.Type == "" {
		return
	}
	if in.Type == "anonymous" {
		b.d.Mode = ModeAnonymous
		if spec.AuthServerConfig != nil {
			b.report.add(SeverityError, "V-04", doc, "spec.incomingAuth.type",
				"is anonymous, but there is an authServerConfig: nobody would have to log in. Use type oidc, or remove authServerConfig")
		}
		if in.OIDCConfigRef != nil {
			b.report.warnf(doc, "spec.incomingAuth.oidcConfigRef", "is ignored: the type is anonymous, so that anybody may call")
		}
		return
	}
	b.d.Mode = ModeExternalIssuer
	if spec.AuthServerConfig != nil {
		b.d.Mode = ModeAuthServer
	}
	ref := in.OIDCConfigRef
	if ref == nil {
		if !b.report.reported(doc, "spec.incomingAuth.oidcConfigRef") {
			b.report.errorf(doc, "spec.incomingAuth.oidcConfigRef", "is required for type oidc: the MCPOIDCConfig with the issuer, and the audience")
		}
		return
	}
	allowHTTP := spec.AuthServerConfig != nil && spec.AuthServerConfig.InsecureAllowHTTP
	if o, names := find(b.set.oidc, ref.Name); o != nil {
		if o.Spec.Inline != nil {
			b.issuer(o)
			allowHTTP = allowHTTP || o.Spec.Inline.InsecureAllowHTTP
		}
	} else if ref.Name != "" {
		b.report.errorf(doc, "spec.incomingAuth.oidcConfigRef.name", "there is no MCPOIDCConfig %s in the set (%s)%s",
			show(ref.Name), listed(names), didYouMean(ref.Name, names))
	}
	b.audience(ref, allowHTTP)
	b.scopes(ref)
}

func (b *builder) issuer(o *resource[MCPOIDCConfigSpec]) {
	in := o.Spec.Inline
	b.d.Issuer = &TokenIssuer{
		URL: in.Issuer, JWKSURL: in.JWKSURL, CABundle: caBundle(in.CABundleRef),
		AllowPrivateIPs: in.JWKSAllowPrivateIP || in.ProtectedResourceAllowPrivateIP, AllowHTTP: in.InsecureAllowHTTP,
	}
	a := b.server.Spec.AuthServerConfig
	if a == nil || a.Issuer == "" || in.Issuer == "" || a.Issuer == in.Issuer {
		return
	}
	b.report.add(SeverityError, "V-04", b.server.doc, "spec.incomingAuth.oidcConfigRef",
		"MCPOIDCConfig %s names the issuer %s, but authServerConfig.issuer is %s: the gateway would refuse every token. They must be equal, byte for byte",
		o.doc.name, show(in.Issuer), show(a.Issuer))
}

func (b *builder) audience(ref *OIDCConfigRef, allowHTTP bool) {
	const path = "spec.incomingAuth.oidcConfigRef.audience"
	doc := b.server.doc
	v07 := func(at, format string, args ...any) { b.report.add(SeverityError, "V-07", doc, at, format, args...) }
	if ref.Audience == "" {
		if !b.report.reported(doc, path) {
			v07(path, "is required: the public URL of the gateway, such as https://mcp.example.com/mcp")
		}
		return
	}
	audience := CanonicalResource(ref.Audience)
	problem := urlProblem(audience, urlRules{base: true, allowHTTP: allowHTTP, permit: "insecureAllowHTTP is true for the issuer"})
	if problem != "" {
		v07(path, "%s", problem)
		return
	}
	if ref.ResourceURL != "" && CanonicalResource(ref.ResourceURL) != audience {
		v07("spec.incomingAuth.oidcConfigRef.resourceUrl", "differs from audience: tokens would be for another resource than the one that is advertised. Make them equal, or remove resourceUrl")
	}
	if !strings.HasSuffix(audience, "/mcp") {
		b.report.warnf(doc, path, "does not end in /mcp, the path that the gateway serves: whatever is in front of it must map this URL, and {audience}/{backend}, to /mcp and /mcp/{backend}")
	}
	b.d.Audience = audience
}

// scopes that the gateway advertises: only such as the issuer grants.
// offline_access is between client and authorization server and never a resource's.
func (b *builder) scopes(ref *OIDCConfigRef) {
	const path = "spec.incomingAuth.oidcConfigRef.scopes"
	b.checker.scopes(b.server.doc, path, ref.Scopes)
	b.d.Scopes = []string{}
	for i, s := range ref.Scopes {
		if s == "offline_access" {
			b.report.warnf(b.server.doc, fmt.Sprintf("%s[%d]", path, i), "offline_access is not advertised: refresh tokens are issued without it")
			continue
		}
		if s == "openid" && b.d.Mode == ModeAuthServer {
			b.report.warnf(b.server.doc, fmt.Sprintf("%s[%d]", path, i), "openid is not advertised: this deployment's authorization server issues no ID tokens to clients")
			continue
		}
		b.d.Scopes = append(b.d.Scopes, s)
	}
	if len(ref.Scopes) == 0 && b.d.Mode == ModeExternalIssuer {
		b.d.Scopes = append(b.d.Scopes, "openid")
	}
}

// aggregation refuses what would show tools that were meant to be hidden.
func (b *builder) aggregation() {
	const path = "spec.config.aggregation"
	doc, a := b.server.doc, configOf(b.server.Spec).Aggregation
	if a == nil {
		return
	}
	if a.ConflictResolution != "" && a.ConflictResolution != "prefix" {
		b.report.warnf(doc, path+".conflictResolution", "%s is not supported; every tool is named {backend}_{tool}, as prefix does", a.ConflictResolution)
	}
	if cfg := a.ConflictResolutionConfig; cfg != nil {
		if cfg.PrefixFormat != "" && cfg.PrefixFormat != "{workload}_" {
			b.report.warnf(doc, path+".conflictResolutionConfig.prefixFormat", "is not supported; {workload}_ is used")
		}
		if len(cfg.PriorityOrder) > 0 {
			b.report.warnf(doc, path+".conflictResolutionConfig.priorityOrder", "is ignored: no tool can be in conflict with another")
		}
	}
	const hidden = "is not supported, and ignoring it would show tools that are meant to be hidden"
	if a.ExcludeAllTools {
		b.report.errorf(doc, path+".excludeAllTools", hidden)
	}
	for i, t := range a.Tools {
		at := fmt.Sprintf("%s.tools[%d]", path, i)
		switch {
		case t.ExcludeAll:
			b.report.errorf(doc, at+".excludeAll", hidden)
		case len(t.Filter) > 0:
			b.report.errorf(doc, at+".filter", hidden)
		case t.ToolConfigRef != nil:
			b.report.errorf(doc, at+".toolConfigRef", hidden)
		}
		if len(t.Overrides) > 0 {
			b.report.warnf(doc, at+".overrides", "is ignored: tools keep their names and descriptions")
		}
	}
}

// backends resolves the entries of the group.
func (b *builder) backends() {
	out := b.server.Spec.OutgoingAuth
	if out == nil {
		out = &OutgoingAuth{}
	}
	b.d.Backends = []Backend{}
	var names []string
	for i := range b.set.entries {
		e := &b.set.entries[i]
		if b.group == "" || e.Spec.GroupRef == nil || e.doc.name == "" {
			continue
		}
		if e.Spec.GroupRef.Name != b.group {
			if len(b.set.servers) == 1 {
				b.report.warnf(e.doc, "spec.groupRef.name", "%s is not the group of the VirtualMCPServer (%s): this backend is not served%s",
					show(e.Spec.GroupRef.Name), b.group, didYouMean(e.Spec.GroupRef.Name, []string{b.group}))
			}
			continue
		}
		if slices.Contains(names, e.doc.name) {
			continue // reported as a duplicate
		}
		names = append(names, e.doc.name)
		b.d.Backends = append(b.d.Backends, b.backend(e, out))
	}
	slices.SortFunc(b.d.Backends, func(x, y Backend) int { return strings.Compare(x.Name, y.Name) })
	slices.Sort(names)
	for _, name := range slices.Sorted(maps.Keys(out.Backends)) {
		if !slices.Contains(names, name) {
			b.report.errorf(b.server.doc, "spec.outgoingAuth.backends."+name, "there is no MCPServerEntry %s in group %s (%s)%s",
				show(name), b.group, listed(names), didYouMean(name, names))
		}
	}
	if len(names) == 0 && b.group != "" {
		b.report.warnf(b.server.doc, "spec.groupRef", "group %s has no MCPServerEntry: there is nothing to serve", b.group)
	}
}

func (b *builder) backend(e *resource[MCPServerEntrySpec], out *OutgoingAuth) Backend {
	backend := Backend{
		Name: e.doc.name, RemoteURL: e.Spec.RemoteURL, Origin: originOf(e.Spec.RemoteURL), Transport: e.Spec.Transport,
		Resource: b.d.Resource(e.doc.name), CABundle: caBundle(e.Spec.CABundleRef),
		AllowPrivateEndpoint: e.Spec.AllowPrivateEndpoint, Strategy: b.strategyFor(e, out),
	}
	if f := e.Spec.HeaderForward; f != nil {
		backend.Headers = ForwardedHeaders{Plain: map[string]string{}, Secret: map[string]secret.Ref{}}
		for name, value := range f.AddPlaintextHeaders {
			backend.Headers.Plain[http.CanonicalHeaderKey(name)] = value
		}
		for i, h := range f.AddHeadersFromSecret {
			name := http.CanonicalHeaderKey(h.HeaderName)
			if h.ValueSecretRef != nil {
				backend.Headers.Secret[name] = secret.Ref(*h.ValueSecretRef)
			}
			if name != "" && name == backend.Strategy.Header() && !isAuthorization(name) {
				b.report.errorf(e.doc, fmt.Sprintf("spec.headerForward.addHeadersFromSecret[%d].headerName", i),
					"%s is set by MCPExternalAuthConfig %s", name, backend.Strategy.Config)
			}
		}
		for name := range f.AddPlaintextHeaders {
			if http.CanonicalHeaderKey(name) == backend.Strategy.Header() {
				b.report.errorf(e.doc, "spec.headerForward.addPlaintextHeaders."+name, "%s is set by MCPExternalAuthConfig %s", name, backend.Strategy.Config)
			}
		}
	}
	return backend
}
