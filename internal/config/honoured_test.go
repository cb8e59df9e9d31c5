package config

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// Nobody is left to believe that a field has an effect which it has not.
func TestWhatIsAcceptedIsHonouredOrReported(t *testing.T) {
	t.Parallel()
	const (
		server   = "spec.authServerConfig"
		google   = server + ".upstreamProviders[0].oidcConfig"
		github   = server + ".upstreamProviders[1].oauth2Config"
		keys     = "    signingKeySecretRefs:\n      - name: authserver-keys\n        key: signing-2026-11.pem\n"
		primary  = "    primaryUpstreamProvider: google\n"
		consent  = "            prompt: consent\n"
		inject   = "  type: upstreamInject\n  upstreamInject:\n    providerName: github\n"
		exchange = "  type: tokenExchange\n  tokenExchange: {tokenUrl: \"https://sts.example.com/token\", audience: a, subjectProviderName: %s%s}\n"
	)
	override := func(fields string) string {
		return consent + "          userInfoOverride: {endpointUrl: \"https://google.example.com/me\", fieldMapping: {" + fields + "}}\n"
	}
	runBroken(t, []brokenCase{
		{"metadata documents", primary, primary + "    cimd: {enabled: true}\n", server + ".cimd.enabled", "not supported by this version", true, false},
		{"tokens for operators", inject, fmt.Sprintf(exchange, "github", "") + "  exposeToClients: true\n", "spec.exposeToClients", "not supported by this version", true, false},
		{"no signing key", keys, "", server + ".signingKeySecretRefs", "does not start without one", true, false},
		{"no HMAC secret", "    hmacSecretRefs:\n      - name: authserver-keys\n        key: hmac-2026-11\n", "    hmacSecretRefs: []\n", server + ".hmacSecretRefs", "does not start without one", true, false},
		{"openid for clients", primary, primary + "    baselineClientScopes: [tools, openid]\n", server + ".baselineClientScopes[1]", "is not granted", true, false},
		{"subject of userinfo", consent, override("subjectFields: [id], nameFields: [displayName]"), google + ".userInfoOverride.fieldMapping.subjectFields", "the id token says who logged in", true, false},
		{"private_key_jwt", primary, primary + "    allowPrivateKeyJWTRegistration: true\n", server + ".allowPrivateKeyJWTRegistration", "cannot register with private_key_jwt", true, false},
		{"id token of OAuth 2.0", inject, fmt.Sprintf(exchange, "github", ", subjectTokenType: id_token"), "spec.tokenExchange.subjectTokenType", "use access_token", false, false},
		{"id token of OAuth 2.0, by URN", inject, fmt.Sprintf(exchange, "github", ", subjectTokenType: \"urn:ietf:params:oauth:token-type:id_token\""), "spec.tokenExchange.subjectTokenType", "use access_token", false, false},
		{"injection turned off for an exchange", primary, primary + "    disableUpstreamTokenInjection: true\n", server + ".disableUpstreamTokenInjection", "uses the token of provider google", false, true},
		{"jwt outside of the identity", "          userInfo:\n", "          tokenResponseMapping: {accessTokenPath: \"access_token|@upstreamjwt|sub\"}\n          userInfo:\n", github + ".tokenResponseMapping.accessTokenPath", "modifiers and wildcards", false, false},
	})
}

func changed(t *testing.T, pairs ...string) (*Set, *Report) {
	t.Helper()
	data, err := os.ReadFile(intactSet)
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for i := 0; i < len(pairs); i += 2 {
		text = string(replaceOnce(t, text, pairs[i], pairs[i+1]))
	}
	return Parse(Source{Name: "set.yaml", Data: []byte(text)})
}

func TestFieldsThatAreHonouredAreNotWarnedAbout(t *testing.T) {
	t.Parallel()
	const primary, inject = "    primaryUpstreamProvider: google\n", "  type: upstreamInject\n  upstreamInject:\n    providerName: google\n"
	for name, pairs := range map[string][]string{
		"documents turned off":     {primary, primary + "    cimd: {enabled: false, cacheMaxSize: 10}\n"},
		"id token of OIDC":         {inject, "  type: tokenExchange\n  tokenExchange: {tokenUrl: \"https://sts.example.com/token\", audience: a, subjectProviderName: google, subjectTokenType: id_token}\n"},
		"the only subject":         {"            prompt: consent\n", "            prompt: consent\n          userInfoOverride: {endpointUrl: \"https://google.example.com/me\", fieldMapping: {subjectFields: [sub]}}\n"},
		"tokens are not handed on": {inject, inject + "  exposeToClients: false\n"},
	} {
		if set, report := changed(t, pairs...); set == nil || len(report.Problems) != 0 {
			t.Errorf("%s: %s", name, report)
		}
	}
}

// What no backend uses injects nothing.
func TestInjectionIsTurnedOffWhereNoBackendInjects(t *testing.T) {
	t.Parallel()
	const primary = "    primaryUpstreamProvider: google\n"
	set, report := changed(t, primary, primary+"    disableUpstreamTokenInjection: true\n",
		"    source: discovered\n", "    source: inline\n")
	if set == nil {
		t.Fatalf("%s", report)
	}
	for _, b := range set.Deployment().Backends {
		if b.Strategy.Type != StrategyUnauthenticated {
			t.Errorf("%s: %s", b.Name, b.Strategy.Type)
		}
	}
}

func TestOpenIDIsNoBaselineScope(t *testing.T) {
	t.Parallel()
	const primary = "    primaryUpstreamProvider: google\n"
	set, report := changed(t, primary, primary+"    baselineClientScopes: [openid, tools]\n")
	if set == nil {
		t.Fatalf("%s", report)
	}
	if got := strings.Join(set.Deployment().AuthServer.BaselineClientScopes, " "); got != "tools" {
		t.Errorf("%q", got)
	}
}

func TestPathsLeadWhereTheirAuthorMeant(t *testing.T) {
	t.Parallel()
	const block = "          userInfo:\n            endpointUrl: https://api.github.com/user\n            additionalHeaders:\n              Accept: application/vnd.github+json\n            fieldMapping:\n              subjectFields: [id]\n              nameFields: [name, login]\n              emailFields: [email]\n"
	for path, ok := range map[string]bool{
		"id":                                  true,
		"authed_user.id":                      true,
		"users.0.id":                          true,
		"access_token|@upstreamjwt|sub":       true,
		"access_token.@upstreamjwt.sub":       true,
		"data.token|@upstreamjwt|org.user.id": true,
		`access_token|@upstreamjwt|org\.name`: true,
		`a\.b.c`:                              true,
		"a|b":                                 true,
		"@upstreamjwt|sub":                    false, // of no token
		"access_token|@upstreamjwt":           false, // a payload is no name
		"access_token|@upstreamJWT|sub":       false,
		"access_token|@upstreamjwt:x|sub":     false,
		"access_token|@reverse|sub":           false,
		"access_token||sub":                   false,
		"a..b":                                false,
		".a":                                  false,
		"a|":                                  false,
		`a\|b`:                                false,
		`a\\.b`:                               false,
		`a\`:                                  false,
		"users.#.id":                          false,
		`users.#(name=="x").id`:               false,
		"us*r.id":                             false,
		"us?r.id":                             false,
		"{id}":                                false,
		"a b":                                 false,
		"!a":                                  false,
		strings.Repeat("a", 257):              false,
	} {
		set, report := changed(t, block, fmt.Sprintf("          identityFromToken: {subjectPath: '%s', namePath: '%s', emailPath: '%s'}\n", path, path, path))
		if !ok {
			if errs, _ := report.Count(); set != nil || errs != 3 {
				t.Errorf("%s is accepted: %s", path, report)
			}
			continue
		}
		if set == nil {
			t.Errorf("%s is refused: %s", path, report)
			continue
		}
		p, _ := set.Deployment().Provider("github")
		if got := p.OAuth2.Identity; *got != (IdentityPaths{Subject: path, Name: path, Email: path}) {
			t.Errorf("%s became %+v", path, got)
		}
	}
}

// An account that is renamed, or a name that is taken over, must not become
// another person's.
func TestThePrimarySubjectNeverChanges(t *testing.T) {
	t.Parallel()
	identity := func(path string) string {
		return "          identityFromToken: {subjectPath: '" + path + "'}\n          scopes:\n            - repo\n"
	}
	const scopes = "          scopes:\n            - repo\n"
	for name, c := range map[string]struct {
		old, new string
		ok       bool
	}{
		"an id":                      {"subjectFields: [id]", "subjectFields: [id, user.id]", true},
		"a login":                    {"subjectFields: [id]", "subjectFields: [login]", false},
		"a login before an id":       {"subjectFields: [id]", "subjectFields: [login, id]", false},
		"an address in place of it":  {"subjectFields: [id]", "subjectFields: [id, email]", false},
		"a nested login":             {"subjectFields: [id]", "subjectFields: [user.login]", false},
		"a token's subject":          {scopes, identity("access_token|@upstreamjwt|sub"), true},
		"a token's address":          {scopes, identity("access_token|@upstreamjwt|email"), false},
		"an address in the response": {scopes, identity("authed_user.email"), false},
	} {
		_, report := changed(t, "primaryUpstreamProvider: google", "primaryUpstreamProvider: github",
			"        optional: true\n", "", c.old, c.new)
		found := false
		for _, p := range report.Problems {
			found = found || p.Code == "V-09"
		}
		if report.OK() != c.ok || found == c.ok {
			t.Errorf("%s: %s", name, report)
		}
	}
}
