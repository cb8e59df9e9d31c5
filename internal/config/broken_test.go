package config

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// brokenCase changes one place of a set and says what must be reported, alone.
type brokenCase struct {
	name     string
	old, new string
	path     string // of the only problem
	message  string // a part of its message
	warning  bool
	among    bool // other problems follow from it
}

const intactSet = "testdata/github-google.yaml"

func replaceOnce(t *testing.T, base, old, replacement string) []byte {
	t.Helper()
	if n := strings.Count(base, old); n != 1 {
		t.Fatalf("%q occurs %d times", old, n)
	}
	return []byte(strings.Replace(base, old, replacement, 1))
}

func runBroken(t *testing.T, cases []brokenCase) {
	t.Helper()
	data, err := os.ReadFile(intactSet)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			set, report := Parse(Source{Name: "set.yaml", Data: replaceOnce(t, string(data), c.old, c.new)})
			i := slices.IndexFunc(report.Problems, func(p Problem) bool {
				return p.Path == c.path && strings.Contains(p.Message, c.message) && (p.Severity == SeverityWarning) == c.warning
			})
			if i < 0 || (len(report.Problems) > 1 && !c.among) {
				t.Fatalf("want %s …%s…, got\n%s", c.path, c.message, report)
			}
			p := report.Problems[i]
			if (set != nil) != c.warning {
				t.Errorf("a set is there: %v", set != nil)
			}
			if p.Line == 0 || p.File != "set.yaml" {
				t.Errorf("the place is missing: %+v", p)
			}
		})
	}
}

func TestFormOfDocuments(t *testing.T) {
	t.Parallel()
	const group = "kind: MCPGroup\nmetadata:\n  name: assistants\n"
	runBroken(t, []brokenCase{
		{"unknown field", "issuerUrl: https://accounts", "issuerURL: https://x.example.com\n          issuerUrl: https://accounts", "spec.authServerConfig.upstreamProviders[0].oidcConfig.issuerURL", "is not a known field; did you mean issuerUrl?", false, false},
		{"misspelled field", "  description: What", "  decsription: What", "spec.decsription", "did you mean description?", false, false},
		{"far from any field", "  description: What", "  xyzzyplugh: What", "spec.xyzzyplugh", "is not a known field", false, false},
		{"duplicate key", "    issuer: https://auth.example.com\n    signing", "    issuer: https://auth.example.com\n    issuer: https://b.example.com\n    signing", "spec.authServerConfig.issuer", "is set twice", false, false},
		{"duplicate kind", group, "kind: MCPGroup\n" + group, "kind", "is set twice", false, false},
		{"unknown kind", "kind: MCPOIDCConfig", "kind: MCPOIDConfig", "kind", "did you mean MCPOIDCConfig?", false, true},
		{"text for a list", "subjectFields: [id]", "subjectFields: id", "spec.authServerConfig.upstreamProviders[1].oauth2Config.userInfo.fieldMapping.subjectFields", "must be a list, but is text", false, false},
		{"number for text", "clientId: Iv1.0123456789abcdef", "clientId: 12345", "spec.authServerConfig.upstreamProviders[1].oauth2Config.clientId", "must be text, but is a number: put quotes around it", false, false},
		{"yes for true", "optional: true", "optional: yes", "spec.authServerConfig.upstreamProviders[1].optional", "must be true or false, but is text", false, false},
		{"object for text", "  name: assistants\nspec:\n  groupRef", "  name: {a: b}\nspec:\n  groupRef", "metadata.name", "must be text, but is an object", false, false},
		{"bad enum", "source: discovered", "source: inlined", "spec.outgoingAuth.source", "use discovered or inline", false, false},
		{"bad type of a strategy", "type: upstreamInject\n  upstreamInject:\n    providerName: github", "type: upstream_inject\n  upstreamInject:\n    providerName: github", "spec.type", "use upstreamInject, tokenExchange", false, false},
		{"literal secret", "clientSecretRef:\n            name: google\n            key: client-secret", "clientSecret: GOCSPX-abc", "spec.authServerConfig.upstreamProviders[0].oidcConfig.clientSecret", "clientSecretRef: {name: NAME, key: KEY}", false, false},
		{"literal secret in a reference", "clientSecretRef:\n            name: google\n            key: client-secret", "clientSecretRef: GOCSPX-abc", "spec.authServerConfig.upstreamProviders[0].oidcConfig.clientSecretRef", "{name: NAME, key: KEY}", false, false},
		{"literal keys", "hmacSecretRefs:\n      - name: authserver-keys\n        key: hmac-2026-11", "hmacSecrets: [abc]", "spec.authServerConfig.hmacSecrets", "hmacSecretRefs: [{name: NAME, key: KEY}]", false, true},
		{"a secret's path", "key: signing-2026-11.pem", "key: ../../etc/passwd", "spec.authServerConfig.signingKeySecretRefs[0].key", "letters, digits", false, false},
		{"a secret without key", "\n            key: client-secret\n          # Google", "\n          # Google", "spec.authServerConfig.upstreamProviders[0].oidcConfig.clientSecretRef.key", "is required", false, false},
		{"merge key", "  description: What our assistants may use", "  <<: {description: x}", "spec", "merge keys", false, false},
		{"control character", "  description: What", "  description: \"\\u001b[2J\" # ", "spec.description", "control character", false, false},
		{"authzConfig", "    oidcConfigRef:", "    authzConfig: {type: inline}\n    oidcConfigRef:", "spec.incomingAuth.authzConfig", "policies would not be enforced", false, false},
		{"rateLimiting", "  outgoingAuth:", "  rateLimiting: {perUser: {}}\n  outgoingAuth:", "spec.rateLimiting", "weaken protection", false, false},
		{"podTemplateSpec", "  outgoingAuth:", "  podTemplateSpec: {spec: {}}\n  outgoingAuth:", "spec.podTemplateSpec", "is ignored", true, false},
		{"storage", "    primaryUpstreamProvider:", "    storage: {type: redis}\n    primaryUpstreamProvider:", "spec.authServerConfig.storage", "kept in Postgres", true, false},
		{"tool filter", "  outgoingAuth:", "  config: {aggregation: {tools: [{workload: github, filter: [a]}]}}\n  outgoingAuth:", "spec.config.aggregation.tools[0].filter", "hidden", false, false},
		{"hidden tools", "  outgoingAuth:", "  config: {aggregation: {tools: [{workload: github, excludeAll: true}]}}\n  outgoingAuth:", "spec.config.aggregation.tools[0].excludeAll", "hidden", false, false},
		{"all tools hidden", "  outgoingAuth:", "  config: {aggregation: {excludeAllTools: true}}\n  outgoingAuth:", "spec.config.aggregation.excludeAllTools", "hidden", false, false},
		{"tool config", "  outgoingAuth:", "  config: {aggregation: {tools: [{workload: github, toolConfigRef: {name: a}}]}}\n  outgoingAuth:", "spec.config.aggregation.tools[0].toolConfigRef", "hidden", false, false},
		{"tool names", "  outgoingAuth:", "  config: {aggregation: {conflictResolution: priority}}\n  outgoingAuth:", "spec.config.aggregation.conflictResolution", "{backend}_{tool}", true, false},
		{"prefix", "  outgoingAuth:", "  config: {aggregation: {conflictResolutionConfig: {prefixFormat: \"{workload}.\"}}}\n  outgoingAuth:", "spec.config.aggregation.conflictResolutionConfig.prefixFormat", "{workload}_ is used", true, false},
		{"other apiVersion", "apiVersion: toolhive.stacklok.dev/v1beta1\n" + group, "apiVersion: toolhive.stacklok.dev/v2\n" + group, "apiVersion", "use chatelaine.dev/v1alpha1", false, false},
		{"namespaces", "  name: assistants\nspec:\n  description", "  name: assistants\n  namespace: a\n---\napiVersion: chatelaine.dev/v1alpha1\nkind: MCPGroup\nmetadata: {name: other, namespace: b}\nspec:\n  description", "metadata.namespace", "one set, one namespace", false, false},
	})
}

func TestWhatTheAuthorizationServerRefuses(t *testing.T) {
	t.Parallel()
	const server = "spec.authServerConfig"
	const google, github = server + ".upstreamProviders[0].oidcConfig", server + ".upstreamProviders[1].oauth2Config"
	runBroken(t, []brokenCase{
		{"refresh tokens that outlive a session", "refreshTokenLifespan: 720h", "refreshTokenLifespan: 721h", server + ".tokenLifespans.refreshTokenLifespan", "from 1m to 720h", false, false},
		{"long codes", "authCodeLifespan: 5m", "authCodeLifespan: 11m", server + ".tokenLifespans.authCodeLifespan", "from 10s to 10m", false, false},
		{"negative lifespan", "authCodeLifespan: 5m", "authCodeLifespan: -5m", server + ".tokenLifespans.authCodeLifespan", "must be a duration", false, false},
		{"days", "accessTokenLifespan: 1h", "accessTokenLifespan: 1d", server + ".tokenLifespans.accessTokenLifespan", "write 24h", false, false},
		{"unknown primary", "primaryUpstreamProvider: google", "primaryUpstreamProvider: gogle", server + ".primaryUpstreamProvider", "did you mean google?", false, false},
		{"no name", "      - name: github\n        type: oauth2", "      - type: oauth2", server + ".upstreamProviders[1].name", "is required: two providers", false, true},
		{"wrong block", "        type: oauth2\n", "        type: oidc\n", server + ".upstreamProviders[1].oauth2Config", "is set, but type is oidc", false, false},
		{"http provider", "issuerUrl: https://accounts.google.com", "issuerUrl: http://accounts.google.com", google + ".issuerUrl", "must be https", false, false},
		{"user name in a URL", "tokenEndpoint: https://github.com", "tokenEndpoint: https://user:hunter2@github.com", github + ".tokenEndpoint", "must not have a user name or password", false, false},
		{"metadata service", "tokenEndpoint: https://github.com", "tokenEndpoint: https://169.254.169.254", github + ".tokenEndpoint", "never a server's", false, false},
		{"no openid", "            - openid\n", "", google + ".scopes", "must contain openid", false, false},
		{"two scopes in one", "            - read:user", "            - read:user gist", github + ".scopes[1]", "list several scopes as several items", false, false},
		{"state", "prompt: consent", "state: fixed", google + ".additionalAuthorizationParams.state", "set by the protocol itself", false, false},
		{"redirect_uri", "prompt: consent", "redirect_uri: https://evil.example.com", google + ".additionalAuthorizationParams.redirect_uri", "use redirectUri", false, false},
		{"code_challenge", "prompt: consent", "code_challenge: x", google + ".additionalAuthorizationParams.code_challenge", "set by the protocol itself", false, false},
		{"nonce", "prompt: consent", "nonce: x", google + ".additionalAuthorizationParams.nonce", "set by the protocol itself", false, false},
		{"upper case", "prompt: consent", "Response_Type: x", google + ".additionalAuthorizationParams.Response_Type", "set by the protocol itself", false, false},
		{"grant_type", "          scopes:\n            - repo", "          additionalTokenParams: {grant_type: password}\n          scopes:\n            - repo", github + ".additionalTokenParams.grant_type", "set by the protocol itself", false, false},
		{"Authorization to userinfo", "Accept: application/vnd.github+json", "Authorization: token abc", github + ".userInfo.additionalHeaders.Authorization", "literal secret", false, false},
		{"Host to userinfo", "Accept: application/vnd.github+json", "host: evil.example.com", github + ".userInfo.additionalHeaders.host", "cannot be set", false, false},
		{"foreign redirect", "          scopes:\n            - repo", "          redirectUri: https://elsewhere.example.com/oauth/callback/github\n          scopes:\n            - repo", github + ".redirectUri", "the browser has to come back", false, false},
		{"redirect with an empty part", "          scopes:\n            - repo", "          redirectUri: https://auth.example.com/oauth/callback//github\n          scopes:\n            - repo", github + ".redirectUri", "empty part", false, false},
		{"issuer with an empty part", "    issuer: https://auth.example.com\n    signing", "    issuer: https://auth.example.com//tenant\n    signing", server + ".issuer", "empty part", false, true},
		{"one redirect for two", "          scopes:\n            - repo", "          redirectUri: https://auth.example.com/oauth/callback/google\n          scopes:\n            - repo", server + ".upstreamProviders[1]", "same redirect URI as provider google", false, false},
		{"client twice", "clientId: Iv1.0123456789abcdef", "clientId: x\n          dcrConfig: {registrationEndpoint: \"https://github.com/register\"}", github + ".dcrConfig", "register the application at the provider by hand", false, false},
		{"registration of a client", "          clientId: Iv1.0123456789abcdef\n", "          dcrConfig: {registrationEndpoint: \"https://github.com/register\"}\n", github + ".dcrConfig", "set clientId", false, false},
		{"registration of an OIDC client", "          clientId: 123456789012-example.apps.googleusercontent.com\n", "          dcrConfig: {}\n", google + ".dcrConfig", "not supported by this version", false, false},
		{"no client", "          clientId: Iv1.0123456789abcdef\n", "", github + ".clientId", "is required", false, false},
		{"secret for none", "          userInfo:\n", "          tokenEndpointAuthMethod: none\n          userInfo:\n", github + ".tokenEndpointAuthMethod", "remove one of them", false, false},
		{"mutable subject", "          scopes:\n            - openid", "          subjectClaim: email\n          scopes:\n            - openid", google + ".subjectClaim", "never changes", false, false},
		{"issuer with a slash", "    issuer: https://auth.example.com\n    signing", "    issuer: https://auth.example.com/\n    signing", server + ".issuer", "must not end with a slash", false, true},
		{"secrets in the clear", "    primaryUpstreamProvider:", "    insecureAllowHTTP: true\n    allowConfidentialClientRegistration: true\n    primaryUpstreamProvider:", server + ".allowConfidentialClientRegistration", "in the clear", false, false},
		{"cache", "    primaryUpstreamProvider:", "    cimd: {cacheMaxSize: 0}\n    primaryUpstreamProvider:", server + ".cimd.cacheMaxSize", "from 1 to 65536", false, false},
		{"default among two", "- name: github\n        type", "- name: default\n        type", server + ".upstreamProviders[1].name", "must not be \"default\"", false, true},
		{"same name twice", "- name: github\n        type", "- name: google\n        type", server + ".upstreamProviders[1].name", "names another provider, too", false, true},
		{"name with capitals", "- name: github\n        type", "- name: GitHub\n        type", server + ".upstreamProviders[1].name", "is not a DNS label", false, true},
		{"scope twice", "            - read:user", "            - repo", github + ".scopes[1]", "listed twice", false, false},
		{"key twice", "      - name: authserver-keys\n        key: hmac-2026-11", "      - {name: a, key: b}\n      - {name: a, key: b}", server + ".hmacSecretRefs[1]", "listed twice", false, false},
		{"certificates", "          userInfo:\n", "          caBundleRef: {configMapRef: {name: UPPER}}\n          userInfo:\n", github + ".caBundleRef.configMapRef", "name of a ConfigMap", false, false},
		{"certificates without name", "          userInfo:\n", "          caBundleRef: {}\n          userInfo:\n", github + ".caBundleRef.configMapRef", "is required", false, false},
		{"parameter name", "prompt: consent", "\"pro mpt\": consent", google + ".additionalAuthorizationParams", "not the name of a parameter", false, false},
		{"audience for authorization", "prompt: consent", "client_secret: x", google + ".additionalAuthorizationParams.client_secret", "use clientSecretRef", false, false},
		{"method without secret", "          clientSecretRef:\n            name: github\n            key: client-secret\n", "          tokenEndpointAuthMethod: client_secret_basic\n", github + ".tokenEndpointAuthMethod", "needs a clientSecretRef", false, false},
		{"two ways to authenticate", "            name: github\n            key: client-secret\n", "            name: github\n            key: client-secret\n          clientKeyRef: {name: a, key: b}\n", github + ".clientKeyRef", "remove one of them", false, false},
		{"method twice", "            name: github\n            key: client-secret\n", "            name: github\n            key: client-secret\n          clientAuthMethod: post\n          tokenEndpointAuthMethod: client_secret_post\n", github + ".tokenEndpointAuthMethod", "the same as clientAuthMethod", false, false},
		{"key and older method", "          clientSecretRef:\n            name: github\n            key: client-secret\n", "          clientKeyRef: {name: a, key: b}\n          tokenEndpointAuthMethod: client_secret_post\n", github + ".tokenEndpointAuthMethod", "for a client with a secret", false, false},
		{"key and method for a secret", "          clientSecretRef:\n            name: github\n            key: client-secret\n", "          clientKeyRef: {name: a, key: b}\n          clientAuthMethod: post\n", github + ".clientAuthMethod", "there is a clientKeyRef", false, false},
		{"kid without key", "            name: github\n            key: client-secret\n", "            name: github\n            key: client-secret\n          clientKeyId: k\n", github + ".clientKeyId", "without clientKeyRef", false, false},
		{"audience without key", "            name: github\n            key: client-secret\n", "            name: github\n            key: client-secret\n          clientAssertionAudience: k\n", github + ".clientAssertionAudience", "without clientKeyRef", false, false},
		{"userInfo and identityFromToken", "          userInfo:\n", "          identityFromToken: {subjectPath: user.id}\n          userInfo:\n", github + ".userInfo", "is not asked", true, false},
		{"space around a header", "Accept: application/vnd.github+json", "X-Tenant: \" a\"", github + ".userInfo.additionalHeaders.X-Tenant", "space around", false, false},
		{"header twice", "Accept: application/vnd.github+json", "{X-Tenant: a, x-tenant: b}", github + ".userInfo.additionalHeaders.x-tenant", "is the same header as X-Tenant", false, false},
		{"an item that is empty", "            - read:user", "            -", github + ".scopes[1]", "is empty", false, false},
		{"a number", "    primaryUpstreamProvider:", "    cimd: {cacheMaxSize: many}\n    primaryUpstreamProvider:", server + ".cimd.cacheMaxSize", "must be a whole number, but is text", false, false},
		{"a date", "authCodeLifespan: 5m", "authCodeLifespan: 2026-01-01", server + ".tokenLifespans.authCodeLifespan", "must be a duration", false, false},
		{"injection turned off", "    primaryUpstreamProvider:", "    disableUpstreamTokenInjection: true\n    primaryUpstreamProvider:", server + ".disableUpstreamTokenInjection", "uses the token of provider", false, true},
	})
}

func TestWhatABackendRefuses(t *testing.T) {
	t.Parallel()
	const remote = "  remoteUrl: https://calendar-mcp.example.com/mcp\n"
	entry := func(url, more string) string { return fmt.Sprintf("  remoteUrl: %s\n%s", url, more) }
	runBroken(t, []brokenCase{
		{"sse", "calendar-mcp.example.com/mcp\n  transport: streamable-http", "calendar-mcp.example.com/mcp\n  transport: sse", "spec.transport", "use streamable-http", false, false},
		{"http", remote, entry("http://calendar-mcp.example.com/mcp", ""), "spec.remoteUrl", "must be https", false, false},
		{"http to a private host", remote, entry("http://calendar.tools.svc:8080/mcp", ""), "spec.remoteUrl", "allowPrivateEndpoint", false, false},
		{"private address", remote, entry("https://10.1.2.3/mcp", ""), "spec.remoteUrl", "set allowPrivateEndpoint: true", false, false},
		{"metadata", remote, entry("http://169.254.169.254/mcp", "  allowPrivateEndpoint: true\n"), "spec.remoteUrl", "must be https", false, false},
		{"fragment", remote, entry("https://calendar-mcp.example.com/mcp#x", ""), "spec.remoteUrl", "fragment", false, false},
		{"other scheme", remote, entry("ftp://calendar-mcp.example.com/mcp", ""), "spec.remoteUrl", "must be https", false, false},
		{"key in the URL", remote, entry("https://calendar-mcp.example.com/mcp?api_key=abc", ""), "spec.remoteUrl", "literal secret", false, false},
		{"literal header", remote, entry("https://calendar-mcp.example.com/mcp", "  headerForward: {addPlaintextHeaders: {X-API-Key: abc}}\n"), "spec.headerForward.addPlaintextHeaders.X-API-Key", "use addHeadersFromSecret", false, false},
		{"Host", remote, entry("https://calendar-mcp.example.com/mcp", "  headerForward: {addPlaintextHeaders: {Host: abc}}\n"), "spec.headerForward.addPlaintextHeaders.Host", "cannot be set", false, false},
		{"Mcp-Session-Id", remote, entry("https://calendar-mcp.example.com/mcp", "  headerForward: {addPlaintextHeaders: {mcp-session-id: abc}}\n"), "spec.headerForward.addPlaintextHeaders.mcp-session-id", "MCP sets it", false, false},
		{"Authorization", remote, entry("https://calendar-mcp.example.com/mcp", "  headerForward: {addHeadersFromSecret: [{headerName: Authorization, valueSecretRef: {name: a, key: b}}]}\n"), "spec.headerForward.addHeadersFromSecret[0].headerName", "bearerToken", false, false},
		{"bad header", remote, entry("https://calendar-mcp.example.com/mcp", "  headerForward: {addPlaintextHeaders: {\"X Y\": abc}}\n"), "spec.headerForward.addPlaintextHeaders.X Y", "not the name of a header", false, false},
		{"no such strategy", "    name: as-google-user\n---", "    name: as-gogle-user\n---", "spec.externalAuthConfigRef.name", "did you mean as-google-user?", false, false},
		{"other group", "  groupRef:\n    name: assistants\n  remoteUrl: https://calendar", "  groupRef:\n    name: assistance\n  remoteUrl: https://calendar", "spec.groupRef.name", "is not served", true, true},
		{"reserved name", "  name: calendar\n", "  name: mcp\n", "metadata.name", "reserved", false, false},
		{"not a label", "  name: calendar\n", "  name: my.calendar\n", "metadata.name", "DNS label", false, false},
		{"same name", "  name: calendar\n", "  name: github\n", "metadata.name", "another MCPServerEntry of this name", false, false},
		{"unknown backend", "    source: discovered\n", "    backends: {calender: {type: discovered}}\n", "spec.outgoingAuth.backends.calender", "did you mean calendar?", false, false},
		{"reference without name", "    source: discovered\n", "    backends: {calendar: {type: externalAuthConfigRef}}\n", "spec.outgoingAuth.backends.calendar.externalAuthConfigRef", "is required", false, false},
		{"no group", "kind: MCPGroup\nmetadata:\n  name: assistants", "kind: MCPGroup\nmetadata:\n  name: assistant", "spec.groupRef.name", "did you mean assistant?", false, false},
		{"no OIDC config", "      name: assistants\n      audience", "      name: asistants\n      audience", "spec.incomingAuth.oidcConfigRef.name", "did you mean assistants?", false, false},
		{"no audience", "      audience: https://mcp.example.com/mcp\n", "", "spec.incomingAuth.oidcConfigRef.audience", "is required: the public URL", false, false},
		{"audience with a slash", "audience: https://mcp.example.com/mcp", "audience: https://mcp.example.com/mcp/", "spec.incomingAuth.oidcConfigRef.audience", "must not end with a slash", false, false},
		{"no OIDC reference", "    oidcConfigRef:\n      name: assistants\n      audience: https://mcp.example.com/mcp\n", "", "spec.incomingAuth.oidcConfigRef", "is required for type oidc", false, false},
		{"service accounts", "  type: inline\n", "  type: kubernetesServiceAccount\n", "spec.type", "use inline", false, false},
		{"no inline block", "  inline:\n    issuer: https://auth.example.com\n", "", "spec.inline", "is required for type inline", false, false},
		{"introspection", "  inline:\n", "  inline:\n    introspectionUrl: https://auth.example.com/introspect\n", "spec.inline.introspectionUrl", "never by introspection", true, false},
		{"groups differ", "  outgoingAuth:", "  config: {groupRef: other}\n  outgoingAuth:", "spec.config.groupRef", "differs from spec.groupRef", false, false},
		{"no groupRef", "  groupRef:\n    name: assistants\n  incomingAuth", "  incomingAuth", "spec.groupRef", "is required", false, true},
		{"discovered with a reference", "    source: discovered\n", "    backends: {calendar: {type: discovered, externalAuthConfigRef: {name: as-google-user}}}\n", "spec.outgoingAuth.backends.calendar.externalAuthConfigRef", "is set, but type is discovered", false, false},
		{"inline ignores the entry", "    source: discovered\n", "    source: inline\n    backends: {github: {type: discovered}}\n", "spec.externalAuthConfigRef", "outgoingAuth.source is inline", true, true},
		{"an empty backend", "    source: discovered\n", "    backends: {calendar: }\n", "spec.outgoingAuth.backends.calendar", "is empty", false, false},
		{"audience elsewhere", "audience: https://mcp.example.com/mcp", "audience: https://mcp.example.com/tools", "spec.incomingAuth.oidcConfigRef.audience", "does not end in /mcp", true, false},
	})
}

func TestStrategies(t *testing.T) {
	t.Parallel()
	const old = "  type: upstreamInject\n  upstreamInject:\n    providerName: google\n"
	runBroken(t, []brokenCase{
		{"exposed injection", old, old + "  exposeToClients: true\n", "spec.exposeToClients", "tokenExchange only", false, false},
		{"other block", old, old + "  bearerToken: {tokenSecretRef: {name: a, key: b}}\n", "spec.bearerToken", "is set, but type is upstreamInject", false, false},
		{"literal bearer", old, "  type: bearerToken\n  bearerToken: {token: abc}\n", "spec.bearerToken.token", "literal secret", false, false},
		{"missing block", old, "  type: tokenExchange\n", "spec.tokenExchange", "is required for type tokenExchange", false, false},
		{"reserved parameter", old, "  type: tokenExchange\n  tokenExchange: {tokenUrl: \"https://a.example.com\", audience: a, subjectProviderName: google, additionalParameters: {subject_token: x}}\n", "spec.tokenExchange.additionalParameters.subject_token", "set by the protocol itself", false, false},
		{"secret parameter", old, "  type: tokenExchange\n  tokenExchange: {tokenUrl: \"https://a.example.com\", audience: a, subjectProviderName: google, additionalParameters: {my_password: x}}\n", "spec.tokenExchange.additionalParameters.my_password", "literal secret", false, false},
		{"secret without client", old, "  type: tokenExchange\n  tokenExchange: {tokenUrl: \"https://a.example.com\", audience: a, subjectProviderName: google, clientSecretRef: {name: a, key: b}}\n", "spec.tokenExchange.clientId", "is required with clientSecretRef", false, false},
		{"key without client", old, "  type: tokenExchange\n  tokenExchange: {tokenUrl: \"https://a.example.com\", audience: a, subjectProviderName: google, clientKeyRef: {name: a, key: b}}\n", "spec.tokenExchange.clientId", "is required with clientKeyRef", false, false},
		{"method without key", old, "  type: tokenExchange\n  tokenExchange: {tokenUrl: \"https://a.example.com\", clientId: c, audience: a, subjectProviderName: google, clientAuthMethod: private_key_jwt}\n", "spec.tokenExchange.clientAuthMethod", "needs a clientKeyRef", false, false},
		{"method without secret", old, "  type: tokenExchange\n  tokenExchange: {tokenUrl: \"https://a.example.com\", clientId: c, audience: a, subjectProviderName: google, clientAuthMethod: basic}\n", "spec.tokenExchange.clientAuthMethod", "needs a clientSecretRef", false, false},
		{"literal key", old, "  type: tokenExchange\n  tokenExchange: {tokenUrl: \"https://a.example.com\", clientId: c, audience: a, subjectProviderName: google, clientKey: abc}\n", "spec.tokenExchange.clientKey", "literal secret", false, false},
		{"refresh token", old, "  type: tokenExchange\n  tokenExchange: {tokenUrl: \"https://a.example.com\", audience: a, subjectProviderName: google, subjectTokenType: refresh_token}\n", "spec.tokenExchange.subjectTokenType", "set insecureSendRefreshToken", false, false},
		{"refresh token of nobody", old, "  type: tokenExchange\n  tokenExchange: {tokenUrl: \"https://a.example.com\", audience: a, subjectTokenType: refresh_token, insecureSendRefreshToken: true}\n", "spec.tokenExchange.subjectTokenType", "needs a subjectProviderName", false, true},
		{"permission without need", old, "  type: tokenExchange\n  tokenExchange: {tokenUrl: \"https://a.example.com\", audience: a, subjectProviderName: google, insecureSendRefreshToken: true}\n", "spec.tokenExchange.insecureSendRefreshToken", "remove it", false, false},
		{"assertion of nobody", old, "  type: tokenExchange\n  tokenExchange: {tokenUrl: \"https://a.example.com\", audience: a, subjectTokenType: saml2}\n", "spec.tokenExchange.subjectTokenType", "needs a subjectProviderName", false, true},
		{"assertion as bearer", old, "  type: tokenExchange\n  tokenExchange: {tokenUrl: \"https://a.example.com\", audience: a, subjectProviderName: google, requestedTokenType: \"urn:ietf:params:oauth:token-type:saml2\"}\n", "spec.tokenExchange.requestedTokenType", "saml2 is no bearer token", false, false},
		{"id token as bearer", old, "  type: tokenExchange\n  tokenExchange: {tokenUrl: \"https://a.example.com\", audience: a, subjectProviderName: google, requestedTokenType: id_token, externalTokenHeaderName: authorization}\n", "spec.tokenExchange.requestedTokenType", "id_token is no bearer token", false, false},
		{"hop-by-hop header", old, "  type: headerInjection\n  headerInjection: {headerName: Transfer-Encoding, valueSecretRef: {name: a, key: b}}\n", "spec.headerInjection.headerName", "cannot be set", false, false},
		{"Authorization header", old, "  type: headerInjection\n  headerInjection: {headerName: authorization, valueSecretRef: {name: a, key: b}}\n", "spec.headerInjection.headerName", "use type bearerToken", true, false},
		{"awsSts", old, "  type: awsSts\n  awsSts: {region: eu-west-1, fallbackRoleArn: \"arn:aws:iam::123456789012:role/x\"}\n", "spec.externalAuthConfigRef.name", "does not support", false, false},
		{"xaa", old, "  type: xaa\n  xaa: {idpTokenUrl: \"https://a.example.com\", targetTokenUrl: \"https://b.example.com\", targetAudience: \"https://b.example.com\"}\n", "spec.externalAuthConfigRef.name", "does not support", false, false},
		{"obo", old, "  type: obo\n  obo: {tenantId: contoso.onmicrosoft.com}\n", "spec.externalAuthConfigRef.name", "does not support", false, false},
		{"embeddedAuthServer", old, "  type: embeddedAuthServer\n  embeddedAuthServer: {issuer: \"https://a.example.com\", upstreamProviders: []}\n", "spec.externalAuthConfigRef.name", "spec.authServerConfig", false, false},
	})
}
