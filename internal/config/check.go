package config

import (
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"chatelaine.dev/internal/outbound"
	"chatelaine.dev/internal/secret"
)

// checker checks resources one by one: what can be told without the others.
type checker struct {
	report *Report
	refs   map[string]secretUse // by environment variable
}

// secretUse remembers where an environment variable's name was first derived.
type secretUse struct {
	ref   secret.Ref
	place string
}

// url checks a required URL. An empty one was reported while decoding.
func (c *checker) url(d *document, path, raw string, rules urlRules) {
	if raw == "" || c.report.reported(d, path) {
		return
	}
	if problem := urlProblem(raw, rules); problem != "" {
		c.report.errorf(d, path, "%s", problem)
		return
	}
	u, err := url.Parse(raw)
	if err != nil {
		return
	}
	if isForbiddenHost(u.Hostname()) {
		c.report.errorf(d, path, "names an address that is never a server's: unspecified, link-local (where cloud metadata is) or multicast")
	}
}

func (c *checker) secret(d *document, path string, ref *SecretKeyRef) {
	if ref == nil || ref.Name == "" || ref.Key == "" {
		return
	}
	r := secret.Ref(*ref)
	if (secret.Ref{Name: r.Name, Key: "key"}).Validate() != nil {
		c.report.errorf(d, path+".name", "must be the name of a secret: lower-case letters, digits, '-' and '.'")
		return
	}
	if r.Validate() != nil {
		c.report.errorf(d, path+".key", "must have letters, digits, '-', '_' and '.' only, and not start with '.'")
		return
	}
	if c.refs == nil {
		c.refs = map[string]secretUse{}
	}
	if first, ok := c.refs[r.EnvName()]; !ok {
		c.refs[r.EnvName()] = secretUse{r, fmt.Sprintf("%s/%s %s", d.kind, d.name, path)}
	} else if first.ref != r {
		c.report.warnf(d, path, "has the environment variable %s in common with another secret (%s, at %s): give one another name, or use files",
			r.EnvName(), first.ref, first.place)
	}
}

func (c *checker) caBundle(d *document, path string, ref *CABundleRef) {
	if bundle := caBundle(ref); bundle != nil && bundle.Validate() != nil {
		c.report.errorf(d, path+".configMapRef", "must have the name of a ConfigMap (lower-case letters, digits, '-' and '.') and a key (a file name)")
	}
}

func caBundle(ref *CABundleRef) *secret.Ref {
	if ref == nil || ref.ConfigMapRef == nil || ref.ConfigMapRef.Name == "" {
		return nil
	}
	key := ref.ConfigMapRef.Key
	if key == "" {
		key = "ca.crt"
	}
	return &secret.Ref{Name: ref.ConfigMapRef.Name, Key: key}
}

func secretRef(ref *SecretKeyRef) *secret.Ref {
	if ref == nil {
		return nil
	}
	r := secret.Ref(*ref)
	return &r
}

func (c *checker) scopes(d *document, path string, scopes []string) {
	for i, s := range scopes {
		at := fmt.Sprintf("%s[%d]", path, i)
		switch {
		case c.report.reported(d, at):
		case !isScope(s):
			c.report.errorf(d, at, "is not a scope: printable ASCII without spaces, quotes and backslashes; list several scopes as several items")
		case slices.Contains(scopes[:i], s):
			c.report.errorf(d, at, "%s is listed twice", show(s))
		}
	}
}

// duration checks bounds, both allowed. Zero is for a field that is not set.
func (c *checker) duration(d *document, path string, v Duration, least, most time.Duration) {
	if !d.has(path) || c.report.reported(d, path) {
		return
	}
	if got := time.Duration(v); got < least || got > most {
		c.report.errorf(d, path, "must be from %s to %s", span(least), span(most))
	}
}

// span prints a duration without the zero units that time.Duration prints.
func span(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

const maxParameters = 16

// parameters checks extra request parameters against those that the protocol sets.
func (c *checker) parameters(d *document, path string, params map[string]string, reserved []string) {
	if len(params) > maxParameters {
		c.report.errorf(d, path, "has more than %d entries", maxParameters)
	}
	for _, name := range slices.Sorted(maps.Keys(params)) {
		at := path + "." + name
		switch {
		case !regexp.MustCompile(`^[A-Za-z0-9._~-]{1,64}$`).MatchString(name):
			c.report.errorf(d, path, "%s is not the name of a parameter", show(name))
		case slices.Contains(reserved, strings.ToLower(name)):
			c.report.errorf(d, at, "is set by the protocol itself and cannot be configured here%s", instead(name))
		case secretParameter(name):
			c.report.errorf(d, at, "sounds like a literal secret, which a resource must not contain")
		}
	}
}

func instead(parameter string) string {
	switch parameter {
	case "scope":
		return "; use scopes"
	case "redirect_uri":
		return "; use redirectUri"
	case "client_id":
		return "; use clientId"
	case "client_secret":
		return "; use clientSecretRef"
	case "audience":
		return "; use audience"
	default:
		return ""
	}
}

func secretParameter(name string) bool {
	lower := strings.ToLower(name)
	return strings.Contains(lower, "secret") || strings.Contains(lower, "password") || strings.Contains(lower, "api_key") || lower == "apikey"
}

// Parameters that we set, and that an attacker would like to (RFC 6749,
// 7636, 9101, OpenID Connect Core 3.1.2.1; RFC 8693, section 2.1).
func authorizationParameters() []string {
	return []string{
		"response_type", "response_mode", "client_id", "client_secret", "redirect_uri", "scope", "state", "nonce",
		"code_challenge", "code_challenge_method", "request", "request_uri", "id_token_hint", "registration",
	}
}

func tokenParameters() []string {
	return []string{
		"grant_type", "code", "redirect_uri", "client_id", "client_secret", "client_assertion", "client_assertion_type",
		"code_verifier", "refresh_token", "scope",
	}
}

func exchangeParameters() []string {
	return []string{
		"grant_type", "audience", "scope", "requested_token_type", "subject_token", "subject_token_type",
		"actor_token", "actor_token_type", "client_id", "client_secret", "client_assertion", "client_assertion_type",
	}
}

// plainHeaders checks headers whose values stand in a resource.
func (c *checker) plainHeaders(d *document, path, secretHint string, headers map[string]string) {
	canonical := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		at := path + "." + name
		if !c.headerName(d, at, name) {
			continue
		}
		if secretHeader(name) {
			c.report.errorf(d, at, "sounds like a literal secret, which a resource must not contain%s", secretHint)
			continue
		}
		if v := headers[name]; strings.TrimSpace(v) != v {
			c.report.errorf(d, at, "has space around its value")
		}
		if other, dup := canonical[strings.ToLower(name)]; dup {
			c.report.errorf(d, at, "is the same header as %s", other)
		}
		canonical[strings.ToLower(name)] = name
	}
}

func (c *checker) headerName(d *document, path, name string) bool {
	if name == "" || c.report.reported(d, path) {
		return false
	}
	if !isHeaderName(name) {
		c.report.errorf(d, path, "is not the name of a header")
		return false
	}
	if why := protocolHeader(name); why != "" {
		c.report.errorf(d, path, "%s cannot be set: %s", name, why)
		return false
	}
	return true
}

// entry checks an MCPServerEntry.
func (c *checker) entry(e resource[MCPServerEntrySpec]) {
	d, spec := e.doc, e.Spec
	if spec.Transport == "sse" {
		c.report.errorf(d, "spec.transport", "sse, which MCP replaced in 2025-03-26, is not supported; use streamable-http and the server's streamable endpoint")
	}
	c.remoteURL(d, spec)
	c.caBundle(d, "spec.caBundleRef", spec.CABundleRef)
	if spec.HeaderForward == nil {
		return
	}
	const plain, secrets = "spec.headerForward.addPlaintextHeaders", "spec.headerForward.addHeadersFromSecret"
	c.plainHeaders(d, plain, "; use addHeadersFromSecret", spec.HeaderForward.AddPlaintextHeaders)
	seen := map[string]bool{}
	for name := range spec.HeaderForward.AddPlaintextHeaders {
		seen[strings.ToLower(name)] = true
	}
	for i, h := range spec.HeaderForward.AddHeadersFromSecret {
		at := fmt.Sprintf("%s[%d]", secrets, i)
		if c.headerName(d, at+".headerName", h.HeaderName) {
			lower := strings.ToLower(h.HeaderName)
			switch {
			case lower == "authorization":
				c.report.errorf(d, at+".headerName", "Authorization is set by the backend's MCPExternalAuthConfig; use one of type bearerToken")
			case seen[lower]:
				c.report.errorf(d, at+".headerName", "%s is set twice", h.HeaderName)
			}
			seen[lower] = true
		}
		c.secret(d, at+".valueSecretRef", h.ValueSecretRef)
	}
}

func (c *checker) remoteURL(d *document, spec *MCPServerEntrySpec) {
	const path = "spec.remoteUrl"
	u, err := url.Parse(spec.RemoteURL)
	private := err == nil && isPrivateHost(u.Hostname()) && !outbound.IsLoopback(u.Hostname())
	c.url(d, path, spec.RemoteURL, urlRules{
		query: true, allowHTTP: private && spec.AllowPrivateEndpoint,
		permit: "the server is on a private network and allowPrivateEndpoint is true",
	})
	if err != nil || spec.RemoteURL == "" || c.report.reported(d, path) {
		return
	}
	if private && !spec.AllowPrivateEndpoint {
		c.report.errorf(d, path, "is on a private network; if that is meant, set allowPrivateEndpoint: true")
	}
	for name := range u.Query() {
		if secretHeader(name) || strings.EqualFold(name, "key") {
			c.report.errorf(d, path, "has a query parameter that sounds like a literal secret; send it in a header instead (headerForward.addHeadersFromSecret)")
		}
	}
}

// oidc checks an MCPOIDCConfig.
func (c *checker) oidc(o resource[MCPOIDCConfigSpec]) {
	d := o.doc
	switch {
	case o.Spec.Type == "kubernetesServiceAccount":
		if !d.has("spec.kubernetesServiceAccount") {
			c.report.errorf(d, "spec.type", "kubernetesServiceAccount is not supported; use inline")
		}
		return
	case o.Spec.Inline == nil:
		if !c.report.reported(d, "spec.inline") {
			c.report.errorf(d, "spec.inline", "is required for type inline")
		}
		return
	}
	in := o.Spec.Inline
	c.url(d, "spec.inline.issuer", in.Issuer, urlRules{allowHTTP: in.InsecureAllowHTTP, permit: "insecureAllowHTTP is true"})
	c.url(d, "spec.inline.jwksUrl", in.JWKSURL, urlRules{query: true, allowHTTP: in.InsecureAllowHTTP, permit: "insecureAllowHTTP is true"})
	c.caBundle(d, "spec.inline.caBundleRef", in.CABundleRef)
}
