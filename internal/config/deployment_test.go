package config

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"chatelaine.dev/internal/secret"
)

func parsed(t *testing.T, text string) *Deployment {
	t.Helper()
	set, report := Parse(Source{Name: "x.yaml", Data: []byte(text)})
	if set == nil {
		t.Fatalf("%s", report)
	}
	return set.Deployment()
}

func TestAudiencesOpenWhatTheyNameAndNothingElse(t *testing.T) {
	t.Parallel()
	for _, audience := range []string{"https://mcp.example.com/mcp", "https://mcp.example.com", "https://mcp.example.com/"} {
		d := &Deployment{Audience: CanonicalResource(audience), Backends: []Backend{{Name: "pay"}, {Name: "payroll"}, {Name: "repos"}}}
		for i := range d.Backends {
			d.Backends[i].Resource = d.Resource(d.Backends[i].Name)
		}
		root := strings.TrimSuffix(audience, "/")
		for _, c := range []struct {
			aud     string
			backend string
			want    bool
		}{
			{root, "", true},
			{root, "payroll", true},
			{root + "/payroll", "payroll", true},
			{root + "/payroll", "pay", false},
			{root + "/pay", "payroll", false},
			{root + "/payroll", "repos", false},
			{root + "/payroll", "", false},
			{root + "/payroll/", "payroll", false},
			{root + "/payroll/x", "payroll", false},
			{root + "x", "", false},
			{root + ".evil.example.org", "", false},
			{strings.ToUpper(root), "", false},
			{"", "", false},
			{"/payroll", "payroll", false},
		} {
			if got := d.AudienceCovers([]string{"https://other.example.com", c.aud}, c.backend); got != c.want {
				t.Errorf("audience %q for backend %q of %s: %v", c.aud, c.backend, audience, got)
			}
			if c.aud == "" || c.backend == "pay" {
				continue
			}
			if slices.Contains(d.ResourcesFor(c.backend), c.aud) != c.want {
				t.Errorf("ResourcesFor(%q) disagrees about %q", c.backend, c.aud)
			}
		}
		for resource, want := range map[string]string{root: "", root + "/pay": "pay", root + "/repos": "repos"} {
			if got, ok := d.BackendForResource(resource); !ok || got != want {
				t.Errorf("BackendForResource(%q) = %q, %v", resource, got, ok)
			}
		}
		for _, foreign := range []string{"", root + "/", root + "/nope", root + "//repos", root + "/repos/", "https://evil.example.org"} {
			if got, ok := d.BackendForResource(foreign); ok && CanonicalResource(foreign) != d.Audience {
				t.Errorf("BackendForResource(%q) = %q", foreign, got)
			}
		}
		if got := len(d.Resources()); got != 4 {
			t.Errorf("%d resources", got)
		}
	}
}

func TestNobodysTokenOpensAnAnonymousDeployment(t *testing.T) {
	t.Parallel()
	d := &Deployment{Mode: ModeAnonymous, Backends: []Backend{{Name: "a"}}}
	if d.AudienceCovers([]string{"", "/a", "a"}, "a") || d.Resources() != nil || d.ResourcesFor("a") != nil || d.Resource("a") != "" {
		t.Error("an empty audience is taken for one")
	}
	if _, ok := d.BackendForResource(""); ok {
		t.Error("an empty resource is taken for one")
	}
}

func TestAudienceCoversAllocatesNothing(t *testing.T) {
	d := &Deployment{Audience: "https://mcp.example.com/mcp"}
	audience := []string{"https://mcp.example.com/mcp/repos"}
	if n := testing.AllocsPerRun(100, func() { _ = d.AudienceCovers(audience, "repos") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

const strategySet = `
apiVersion: chatelaine.dev/v1alpha1
kind: VirtualMCPServer
metadata: {name: demo}
spec:
  config: {groupRef: demo}
  incomingAuth: {type: anonymous}
  outgoingAuth: {%s}
---
{apiVersion: chatelaine.dev/v1alpha1, kind: MCPGroup, metadata: {name: demo}}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPServerEntry
metadata: {name: b}
spec: {groupRef: {name: demo}, remoteUrl: "http://b.localhost:80/mcp", transport: streamable-http %s}
---
{apiVersion: chatelaine.dev/v1alpha1, kind: MCPExternalAuthConfig, metadata: {name: own}, spec: {type: bearerToken, bearerToken: {tokenSecretRef: {name: own, key: token}}}}
---
{apiVersion: chatelaine.dev/v1alpha1, kind: MCPExternalAuthConfig, metadata: {name: fallback}, spec: {type: headerInjection, headerInjection: {headerName: x-api-key, valueSecretRef: {name: f, key: k}}}}
---
{apiVersion: chatelaine.dev/v1alpha1, kind: MCPExternalAuthConfig, metadata: {name: named}, spec: {type: unauthenticated}}
`

func TestWhichStrategyABackendGets(t *testing.T) {
	t.Parallel()
	const own = ", externalAuthConfigRef: {name: own}"
	ref := func(name string) string {
		return "{type: externalAuthConfigRef, externalAuthConfigRef: {name: " + name + "}}"
	}
	for _, c := range []struct{ outgoing, entry, want string }{
		{"", "", "unauthenticated:"},
		{"", own, "bearerToken:own"},
		{"source: discovered", own, "bearerToken:own"},
		{"source: inline", own, "unauthenticated:"},
		{"source: inline, default: " + ref("fallback"), own, "headerInjection:fallback"},
		{"source: inline, default: {type: discovered}", own, "bearerToken:own"},
		{"source: inline, backends: {b: {type: discovered}}", own, "bearerToken:own"},
		{"source: inline, backends: {b: {type: discovered}}", "", "unauthenticated:"},
		{"default: " + ref("fallback"), own, "bearerToken:own"},
		{"default: " + ref("fallback"), "", "headerInjection:fallback"},
		{"default: " + ref("fallback") + ", backends: {b: " + ref("named") + "}", own, "unauthenticated:named"},
		{"source: inline, default: " + ref("fallback") + ", backends: {b: " + ref("own") + "}", "", "bearerToken:own"},
	} {
		d := parsed(t, fmt.Sprintf(strategySet, c.outgoing, c.entry))
		b, ok := d.Backend("b")
		if !ok {
			t.Fatal("the backend is missing")
		}
		if got := fmt.Sprintf("%s:%s", b.Strategy.Type, b.Strategy.Config); got != c.want {
			t.Errorf("{%s} %s: got %s, want %s", c.outgoing, c.entry, got, c.want)
		}
		if b.Strategy.PerUser() || b.Origin != "http://b.localhost" {
			t.Errorf("%+v", b)
		}
	}
	d := parsed(t, fmt.Sprintf(strategySet, "backends: {b: "+ref("fallback")+"}", ""))
	b, _ := d.Backend("b")
	if h := b.Strategy.HeaderInjection; h.HeaderName != "X-Api-Key" || h.Value != (secret.Ref{Name: "f", Key: "k"}) || b.Strategy.Header() != "X-Api-Key" {
		t.Errorf("%+v", h)
	}
}

func TestDefaultsAreFilledIn(t *testing.T) {
	t.Parallel()
	d := clean(t, "testdata/demo.yaml").Deployment()
	a := d.AuthServer
	for name, got := range map[string]string{
		"access":    a.AccessTokenLifespan.String(),
		"refresh":   a.RefreshTokenLifespan.String(),
		"code":      a.AuthCodeLifespan.String(),
		"retention": a.ConnectionRetention.String(),
		"primary":   a.Primary,
		"base":      a.AuthorizationBaseURL,
		"scopes":    strings.Join(d.Scopes, " "),
	} {
		want := map[string]string{
			"access": "1h0m0s", "refresh": "168h0m0s", "code": "10m0s", "retention": "168h0m0s",
			"primary": "corp", "base": "http://localhost:8080", "scopes": "",
		}[name]
		if got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	octohub, ok := d.Provider("octohub")
	if !ok || octohub.AuthMethod != AuthMethodPost || octohub.UserInfo.EmailFields[0] != "email" || !octohub.HasIdentity() {
		t.Errorf("%+v", octohub)
	}
	payroll, _ := d.Backend("payroll")
	x := payroll.Strategy.TokenExchange
	if x.SubjectTokenType != TokenTypeAccessToken || x.HeaderName != "Authorization" || payroll.Strategy.Provider() != "corp" || !payroll.Strategy.PerUser() {
		t.Errorf("%+v", x)
	}
	if status, _ := d.Backend("status"); status.Strategy.Type != StrategyUnauthenticated || status.Resource != "http://localhost:8000/mcp/status" {
		t.Errorf("%+v", status)
	}
	if _, ok := d.Backend("nope"); ok {
		t.Error("a backend that does not exist")
	}
	if _, ok := d.Provider("nope"); ok {
		t.Error("a provider that does not exist")
	}
}

func TestThePrimaryLegRunsFirst(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/demo.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(data), "        optional: true\n", "", 1)
	text = strings.Replace(text, "    upstreamProviders:\n", "    primaryUpstreamProvider: octohub\n    upstreamProviders:\n", 1)
	a := parsed(t, text).AuthServer
	if a.Primary != "octohub" || a.Providers[0].Name != "octohub" || !a.Providers[0].Primary || a.Providers[1].Name != "corp" || a.Providers[1].Primary {
		t.Errorf("%+v", a.Providers)
	}
}

func TestASingleProviderMayOmitItsName(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/demo.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	from, to := strings.Index(text, "      - name: octohub"), strings.Index(text, "  incomingAuth:")
	text = text[:from] + text[to:]
	text = strings.Replace(text, "- name: corp\n        type: oidc", "- type: oidc", 1)
	text = strings.NewReplacer("providerName: octohub", "providerName: default", "subjectProviderName: corp", "subjectProviderName: default").Replace(text)
	a := parsed(t, text).AuthServer
	if a.Primary != "default" || a.Providers[0].RedirectURI != "http://localhost:8080/oauth/callback/default" {
		t.Errorf("%+v", a)
	}
}

func TestAnExternalIssuerNeedsNoAuthorizationServer(t *testing.T) {
	t.Parallel()
	set, report := Load("testdata/rules/V-10.yaml")
	if set == nil {
		t.Fatalf("%s", report)
	}
	d := set.Deployment()
	if d.Mode != ModeExternalIssuer || d.AuthServer != nil || d.Issuer.URL != "https://somebody.example.org" || d.Audience == "" {
		t.Errorf("%+v", d)
	}
	if b, _ := d.Backend("repos"); b.Strategy.TokenExchange.SubjectTokenType != TokenTypeAccessToken {
		t.Errorf("%+v", b.Strategy.TokenExchange)
	}
	own, report := Load("testdata/rules/V-03.yaml")
	if own == nil {
		t.Fatalf("%s", report)
	}
	if b, _ := own.Deployment().Backend("repos"); b.Strategy.TokenExchange.SubjectTokenType != TokenTypeJWT {
		t.Errorf("%+v", b.Strategy.TokenExchange)
	}
}

func TestOrigins(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"https://Example.com/mcp":          "https://example.com",
		"https://example.com:443/mcp?a=b":  "https://example.com",
		"http://example.com:80":            "http://example.com",
		"http://example.com:443":           "http://example.com:443",
		"https://example.com:8443/a/b":     "https://example.com:8443",
		"http://[::1]:7001/mcp":            "http://[::1]:7001",
		"http://[::1]/mcp":                 "http://[::1]",
		"HTTPS://EXAMPLE.com:443/mcp":      "https://example.com",
		"https://example.com.:8443/trail/": "https://example.com.:8443",
	} {
		if got := originOf(raw); got != want {
			t.Errorf("%s: got %s, want %s", raw, got, want)
		}
	}
}

func TestURLs(t *testing.T) {
	t.Parallel()
	for raw, ok := range map[string]bool{
		"https://example.com":           true,
		"https://example.com/a/b":       true,
		"http://localhost:8080":         true,
		"http://demo.localhost":         true,
		"http://127.0.0.1:1/x":          true,
		"http://127.8.9.1":              true,
		"http://[::1]:8080":             true,
		"http://[::ffff:127.0.0.1]":     true,
		"http://localhost.evil.example": false,
		"http://127.0.0.1.evil.example": false,
		"http://example.com":            false,
		"http://0x7f.1":                 false,
		"https://u@example.com":         false,
		"https://u:p@example.com":       false,
		"https://example.com#":          false,
		"https://example.com?":          false,
		"https://example.com/..":        false,
		"https://example.com/a/%2e%2e/": false,
		"https://example.com:0":         false,
		"https://example.com:":          false,
		"https://example.com:65536":     false,
		"https://":                      false,
		"https:///path":                 false,
		"https:example.com":             false,
		"//example.com":                 false,
		"javascript:alert(1)":           false,
		"file:///etc/passwd":            false,
		"https://exa mple.com":          false,
		"https://example.com/\"":        false,
		"https://[::1":                  false,
	} {
		if problem := urlProblem(raw, urlRules{}); (problem == "") != ok {
			t.Errorf("%s: %q", raw, problem)
		}
	}
	if urlProblem("http://example.com", urlRules{allowHTTP: true}) != "" || urlProblem("https://example.com/?a=b", urlRules{query: true}) != "" {
		t.Error("what a rule permits is refused")
	}
	if urlProblem("https://example.com/", urlRules{base: true}) == "" {
		t.Error("a base URL must not end with a slash")
	}
}
