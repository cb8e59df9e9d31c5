package clients_test

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/authserver/internal/clients"
	"chatelaine.dev/services/authserver/internal/store"
)

func TestOnlyRedirectURIsThatLeadBackToTheClientCanBeRegistered(t *testing.T) {
	t.Parallel()
	tests := []struct {
		uri    string
		public bool
		want   string // a part of the problem; empty: fine
	}{
		{"https://client.example/cb", false, ""},
		{"https://client.example/cb?a=b", true, ""},
		{"http://localhost:3000/cb", true, ""},
		{"http://localhost/cb", true, ""},
		{"http://127.0.0.1:33418/", true, ""},
		{"http://[::1]:8080/cb", true, ""},
		{"cursor://anysphere.cursor-mcp/oauth/callback", true, ""},
		{"vscode://vendor.extension/cb", true, ""},
		{"com.example.app:/cb", true, ""},
		{"cursor://anysphere.cursor-mcp/oauth/callback", false, "confidential"},
		{"http://client.example/cb", true, "loopback"},
		{"http://127.0.0.1.evil.example/cb", true, "loopback"},
		{"http://localhost.evil.example/cb", true, "loopback"},
		{"https://client.example/cb#x", true, "fragment"},
		{"https://client.example/cb#", true, "fragment"},
		{"https://user@client.example/cb", true, "user name"},
		{"https://*.client.example/cb", true, "wildcard"},
		{"https:///cb", true, "host"},
		{"https://client.example:0/cb", true, "port"},
		{"https://client.example:99999/cb", true, "port"},
		{"https://client.example:/cb", true, "port"},
		{"javascript:alert(1)", true, "not for redirects"},
		{"JavaScript:alert(1)", true, "not for redirects"},
		{"data:text/html,x", true, "not for redirects"},
		{"file:///etc/passwd", true, "not for redirects"},
		{"/cb", true, "absolute"},
		{"", true, "empty"},
		{"https://client.example/c b", true, "character"},
		{"https://client.example\\@evil.example/", true, "character"},
		{"https://clïent.example/", true, "character"},
		{"https://client.example/\r\nSet-Cookie:a=b", true, "character"},
		{"https://client.example/" + strings.Repeat("a", 2048), true, "longer"},
		// What the consent page would show is not where the browser would go.
		{"https://%D0%B0pple.com/cb", true, "percent-encoded host"},
		{"https://apple.com%E2%80%AE/cb", true, "percent-encoded host"},
		{"https://apple.com%C2%A0.evil.example/cb", true, "percent-encoded host"},
		{"https://%EF%BD%81pple.com/cb", true, "percent-encoded host"},
		{"https://apple%2Ecom/cb", true, "percent-encoded host"},
		{"cursor://%D0%B0pple/cb", true, "percent-encoded host"},
		{"http://[::1%25eth0]/cb", true, "percent-encoded host"},
		{"https://apple.com,evil.example/cb", true, "letters, digits"},
		{"https://apple.com;evil.example/cb", true, "letters, digits"},
		{"https://apple.com'evil.example/cb", true, "letters, digits"},
		{"https://[v1.x]/cb", true, "not a URI"},
		{"https://xn--pple-43d.com/cb%20x?a=%D0%B0", true, ""},
		{"https://[2001:db8::1]:8443/cb", true, ""},
		{"https://CLIENT.example:8443/cb", true, ""},
		{"ms-word:ofe|u|x", true, "character"},
		{"ms-msdt:/id", true, "not for redirects"},
		{"search-ms:query=x", true, "not for redirects"},
		{"ssh://host/cb", true, "not for redirects"},
		{"ldap://host/cb", true, "not for redirects"},
		{"itms-services://x/cb", true, "not for redirects"},
		{"android-app://x/cb", true, "not for redirects"},
		{"chrome-extension://abcdef/cb", true, "not for redirects"},
		{"feed:https://x", true, "not for redirects"},
		{"vscode-insiders://vendor.extension/cb", true, ""},
		{"windsurf://vendor.extension/cb", true, ""},
	}
	for _, tt := range tests {
		got := clients.CheckRedirectURI(tt.uri, tt.public)
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%.60q (public %v): %q, want %q", tt.uri, tt.public, got, tt.want)
		}
	}
}

func TestARedirectURIMatchesByteForByteButForALoopbackPort(t *testing.T) {
	t.Parallel()
	registered := []string{
		"https://client.example/cb", "http://localhost:3000/cb", "http://127.0.0.1/cb?x=1", "http://[::1]:1/cb", "cursor://a/cb",
		"https://localhost:3000/tls",
	}
	for uri, want := range map[string]bool{
		"https://client.example/cb":      true,
		"https://client.example/cb/":     false,
		"https://client.example:443/cb":  false,
		"https://CLIENT.example/cb":      false,
		"https://client.example/cb?x":    false,
		"http://client.example/cb":       false,
		"http://localhost:3000/cb":       true,
		"http://localhost:51234/cb":      true,
		"http://localhost/cb":            true,
		"http://localhost:51234/other":   false,
		"http://localhost:51234/cb?":     false,
		"https://localhost:3000/cb":      false,
		"http://127.0.0.1:9/cb":          false, // the query is missing
		"http://127.0.0.1:9/cb?x=1":      true,
		"http://127.0.0.1:9/cb?x=2":      false,
		"http://[::1]:2/cb":              true,
		"http://localhost:1@evil/cb":     false,
		"http://localhost:99999/cb":      false,
		"http://localhost.evil/cb":       false,
		"http://localhost:1/cb#fragment": false,
		"https://localhost:3000/tls":     true,
		"http://localhost:3000/tls":      false,
		"https://localhost:3001/tls":     false,
		"cursor://a/cb":                  true,
		"cursor://b/cb":                  false,
		"":                               false,
	} {
		if got := clients.MatchRedirectURI(registered, uri); got != want {
			t.Errorf("%q: %v, want %v", uri, got, want)
		}
	}
}

type memory struct{ stored []store.Client }

func (m *memory) CreateClient(_ context.Context, c *store.Client) error {
	c.CreatedAt = time.Unix(1e9, 0)
	m.stored = append(m.stored, *c)
	return nil
}

func TestTheAnswerToARegistrationSaysWhatWasGranted(t *testing.T) {
	t.Parallel()
	full := clients.Registrar{AllowConfidential: true, Scopes: []string{"tools", "admin", "offline_access"}, Baseline: []string{"tools"}}
	publicOnly := full
	publicOnly.AllowConfidential = false
	zero := int64(0)
	tests := map[string]struct {
		registrar clients.Registrar
		body      string
		want      clients.Information
	}{
		"nothing but a redirect URI": {full, `{"redirect_uris":["http://localhost/cb"]}`, clients.Information{Metadata: clients.Metadata{
			RedirectURIs: []string{"http://localhost/cb"}, TokenEndpointAuthMethod: "none", GrantTypes: []string{"authorization_code"},
			ResponseTypes: []string{"code"}, Scope: "tools admin offline_access",
		}}},
		"a typical MCP client": {
			full, `{"client_name":"Example\u202e\n Client","redirect_uris":["http://localhost/cb"],"grant_types":["authorization_code","refresh_token"],
			"response_types":["code"],"token_endpoint_auth_method":"none","scope":"admin unknown","application_type":"odd","client_uri":"https://client.example"}`,
			clients.Information{Metadata: clients.Metadata{
				RedirectURIs: []string{"http://localhost/cb"}, TokenEndpointAuthMethod: "none", GrantTypes: []string{"authorization_code", "refresh_token"},
				ResponseTypes: []string{"code"}, ClientName: "Example Client", ClientURI: "https://client.example", Scope: "tools admin",
			}},
		},
		"several redirect URIs": {full, `{"redirect_uris":["https://z.example/","https://a.example/","https://z.example/"]}`, clients.Information{Metadata: clients.Metadata{
			RedirectURIs: []string{"https://z.example/", "https://a.example/"}, TokenEndpointAuthMethod: "none", GrantTypes: []string{"authorization_code"},
			ResponseTypes: []string{"code"}, Scope: "tools admin offline_access",
		}}},
		"a confidential client": {
			full, `{"redirect_uris":["https://client.example/cb"],"token_endpoint_auth_method":"client_secret_post"}`,
			clients.Information{ClientSecret: "set", ClientSecretExpiresAt: &zero, Metadata: clients.Metadata{
				RedirectURIs: []string{"https://client.example/cb"}, TokenEndpointAuthMethod: "client_secret_post", GrantTypes: []string{"authorization_code"},
				ResponseTypes: []string{"code"}, Scope: "tools admin offline_access",
			}},
		},
		"a secret that is not to be had": {
			publicOnly, `{"redirect_uris":["https://client.example/cb"],"token_endpoint_auth_method":"client_secret_basic"}`,
			clients.Information{Metadata: clients.Metadata{
				RedirectURIs: []string{"https://client.example/cb"}, TokenEndpointAuthMethod: "none", GrantTypes: []string{"authorization_code"},
				ResponseTypes: []string{"code"}, Scope: "tools admin offline_access",
			}},
		},
		"grants that we do not have": {
			full, `{"redirect_uris":["https://client.example/cb"],"grant_types":["authorization_code","implicit","client_credentials"]}`,
			clients.Information{Metadata: clients.Metadata{
				RedirectURIs: []string{"https://client.example/cb"}, TokenEndpointAuthMethod: "none", GrantTypes: []string{"authorization_code"},
				ResponseTypes: []string{"code"}, Scope: "tools admin offline_access",
			}},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &memory{}
			tt.registrar.Store = m
			asked, err := clients.Parse([]byte(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			got, err := tt.registrar.Register(t.Context(), asked)
			if err != nil {
				t.Fatal(err)
			}
			if got.ClientID == "" || got.ClientIDIssuedAt != 1e9 || len(m.stored) != 1 || m.stored[0].ID != got.ClientID {
				t.Errorf("answer %+v, stored %+v", got, m.stored)
			}
			if got.ClientSecret != "" {
				if !bytes.Equal(m.stored[0].SecretHash, store.Digest(got.ClientSecret)) {
					t.Error("the secret is not stored as its hash")
				}
				got.ClientSecret = "set"
			}
			if diff := cmp.Diff(&tt.want, got, cmpopts.IgnoreFields(clients.Information{}, "ClientID", "ClientIDIssuedAt")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestABadRegistrationSaysWhyAndLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	eleven := `"https://client.example/` + strings.Join(slices.Repeat([]string{`a"`}, 11), `,"https://client.example/`)
	for name, tt := range map[string]struct{ body, reason, text string }{
		"no JSON":             {`redirect_uris=x`, clients.ReasonMetadata, "JSON"},
		"a wrong type":        {`{"redirect_uris":"https://client.example"}`, clients.ReasonMetadata, "JSON"},
		"two documents":       {`{"redirect_uris":["https://client.example"]} {}`, clients.ReasonMetadata, "JSON"},
		"oversize":            {`{"x":"` + strings.Repeat("a", 64<<10) + `"}`, clients.ReasonMetadata, "64 KiB"},
		"no redirect URI":     {`{"client_name":"x"}`, clients.ReasonRedirectURI, "1 to 10"},
		"eleven of them":      {`{"redirect_uris":[` + eleven + `]}`, clients.ReasonRedirectURI, "1 to 10"},
		"9 KiB of them":       {`{"redirect_uris":["https://client.example/` + strings.Join(slices.Repeat([]string{strings.Repeat("a", 1800)}, 5), `","https://client.example/`) + `"]}`, clients.ReasonRedirectURI, "8 KiB"},
		"a bad one":           {`{"redirect_uris":["https://client.example","javascript:x"]}`, clients.ReasonRedirectURI, "redirect_uris[1]: the scheme javascript"},
		"an unknown method":   {`{"redirect_uris":["https://client.example"],"token_endpoint_auth_method":"private_key_jwt"}`, clients.ReasonMetadata, "token_endpoint_auth_method"},
		"no code grant":       {`{"redirect_uris":["https://client.example"],"grant_types":["client_credentials"]}`, clients.ReasonMetadata, "grant_types"},
		"no code as response": {`{"redirect_uris":["https://client.example"],"response_types":["token"]}`, clients.ReasonMetadata, "response_types"},
	} {
		m := &memory{}
		asked, err := clients.Parse([]byte(tt.body))
		if err == nil {
			_, err = (&clients.Registrar{Store: m}).Register(t.Context(), asked)
		}
		if fault.KindOf(err) != fault.Invalid || fault.ReasonOf(err) != tt.reason || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: %v, reason %s", name, err, fault.ReasonOf(err))
		}
		if len(m.stored) != 0 {
			t.Errorf("%s: stored %+v", name, m.stored)
		}
	}
}

func TestAPersonIsShownTheHostThatTheBrowserGoesTo(t *testing.T) {
	t.Parallel()
	for uri, want := range map[string]struct {
		place    string
		loopback bool
	}{
		"https://Client.example/cb":     {"client.example", false},
		"https://xn--pple-43d.com/cb":   {"xn--pple-43d.com", false},
		"https://client.example:8443/x": {"client.example:8443", false},
		"http://localhost:3000/cb":      {"localhost:3000", true},
		"cursor://anysphere/cb":         {"cursor:", false},
		"https://%D0%B0pple.com/cb":     {"an unknown place", false},
	} {
		if place, loopback := clients.ReturnsTo(uri); place != want.place || loopback != want.loopback {
			t.Errorf("%s: %q, loopback %v", uri, place, loopback)
		}
	}
}

func TestANameThatNobodySeesIsNone(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"\u3164":              "",
		"\u115f\u1160\uffa0":  "",
		"\u2800 \u2800":       "",
		"...":                 "",
		"\ufe0f\u034f":        "",
		"Exam\u3164ple\u200b": "Example",
		"例 1":                 "例 1",
	} {
		info, err := (&clients.Registrar{Store: &memory{}}).Register(t.Context(), &clients.Metadata{ClientName: name, RedirectURIs: []string{"https://client.example"}})
		if err != nil || info.ClientName != want {
			t.Errorf("%+q: %+q, %v", name, info.ClientName, err)
		}
	}
}

func FuzzARedirectURIThatMatchesIsOneThatCouldBeRegistered(f *testing.F) {
	for _, seed := range []string{"http://localhost:1/cb", "http://[::1]/cb", "https://client.example/cb", "http://localhost:1\\@evil/cb", "cursor://a"} {
		f.Add(seed)
	}
	registered := []string{"http://localhost:3000/cb", "http://[::1]:1/cb", "https://client.example/cb"}
	f.Fuzz(func(t *testing.T, uri string) {
		if clients.MatchRedirectURI(registered, uri) && clients.CheckRedirectURI(uri, true) != "" {
			t.Errorf("%q matches and could not be registered", uri)
		}
	})
}

func FuzzParseNeverPanics(f *testing.F) {
	f.Add([]byte(`{"redirect_uris":["http://localhost/cb"],"client_name":"x"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		asked, err := clients.Parse(body)
		if err != nil {
			return
		}
		info, err := (&clients.Registrar{Store: &memory{}}).Register(t.Context(), asked)
		if err == nil && (len(info.RedirectURIs) == 0 || len([]rune(info.ClientName)) > 200) {
			t.Errorf("registered %+v", info)
		}
	})
}
