package app_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	brokerv1 "chatelaine.dev/proto/broker/v1"
)

// replacing edits resources: pairs of old and new text.
func replacing(pairs ...string) func(string) string {
	return strings.NewReplacer(pairs...).Replace
}

// providers replaces the list of upstreamProviders.
func providers(list string) func(string) string {
	return func(text string) string {
		before, rest, _ := strings.Cut(text, "    upstreamProviders:\n")
		_, after, _ := strings.Cut(rest, "  incomingAuth:")
		return before + list + "  incomingAuth:" + after
	}
}

func TestALoginWalksThroughAsManyProvidersAsThereAreWithThePrimaryFirst(t *testing.T) {
	t.Parallel()
	oidc := func(name string) string {
		return "      - {name: " + name + ", type: oidc, oidcConfig: {issuerUrl: https://" + name + ".example, clientId: chatelaine}}\n"
	}
	const hub = `      - name: hub
        type: oauth2
        oauth2Config:
          authorizationEndpoint: https://hub.example/authorize
          tokenEndpoint: https://hub.example/token
          clientId: chatelaine
          userInfo: {endpointUrl: https://hub.example/user, fieldMapping: {subjectFields: [id]}}
`
	for name, tt := range map[string]struct {
		list string
		want []string
	}{
		"one, without a name": {
			"    upstreamProviders:\n      - {type: oidc, oidcConfig: {issuerUrl: https://sole.example, clientId: chatelaine}}\n",
			[]string{"sole.example"},
		},
		"three in their order": {
			"    upstreamProviders:\n" + oidc("zeta") + hub + oidc("alpha"),
			[]string{"zeta.example", "hub.example", "alpha.example"},
		},
		"the primary last in the list": {
			"    primaryUpstreamProvider: alpha\n    upstreamProviders:\n" + oidc("zeta") + hub + oidc("alpha"),
			[]string{"alpha.example", "zeta.example", "hub.example"},
		},
		"the primary in the middle, of OAuth 2.0": {
			"    primaryUpstreamProvider: hub\n    upstreamProviders:\n" + oidc("zeta") + hub + oidc("alpha"),
			[]string{"hub.example", "zeta.example", "alpha.example"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSystemWith(t, options{resources: providers(tt.list)})
			c, b := s.client(), s.browser()
			first := c.approve(b)
			if len(tt.want) == 1 && !strings.Contains(first, url.QueryEscape(issuer+"/oauth/callback/default")) {
				t.Errorf("the only provider is not called default: %s", first)
			}
			hosts, last := s.walk(b, first)
			if !slices.Equal(hosts, tt.want) {
				t.Errorf("the login went by %v, want %v", hosts, tt.want)
			}
			if got := c.redeem(s.clientAnswer(last).Get("code")); got.status != http.StatusOK {
				t.Errorf("tokens %+v", got)
			}
			if n := s.broker.Calls("RedeemCode"); n != len(tt.want) {
				t.Errorf("%d codes were redeemed, want %d", n, len(tt.want))
			}
		})
	}
}

func TestNobodyBeginsALoginThatCannotSayWhoTheyAre(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.broker.Change("corp", func(p *brokerv1.Provider) { p.Primary = false })
	if q := s.clientAnswer(s.browser().get(s.client().query()).location); q.Get("error") != "temporarily_unavailable" {
		t.Errorf("no provider is the primary one: %v", q)
	}
	s.nothingLeft()
}

func TestAProviderThatKnowsUsByAnotherRedirectURIIsUsedWithThatOne(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ corp, octohub string }{
		"the path of them all for one":  {issuer + "/oauth/callback", ""},
		"and for the other":             {"", issuer + "/oauth/callback"},
		"one's own below":               {issuer + "/oauth/callback/old/corp", issuer + "/oauth/callback/a%2Fb"},
		"each the default of the other": {issuer + "/oauth/callback/octohub", issuer + "/oauth/callback/corp"},
		"with a slash at its end":       {issuer + "/oauth/callback/", ""},
		"one spelling of two":           {issuer + "/oauth/callback/%61", issuer + "/oauth/callback/a"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var edit []string
			if tt.corp != "" {
				edit = append(edit, "clientId: chatelaine, scopes: [openid]", "clientId: chatelaine, scopes: [openid], redirectUri: "+tt.corp)
			}
			if tt.octohub != "" {
				edit = append(edit, "oauth2Config:\n", "oauth2Config:\n          redirectUri: "+tt.octohub+"\n")
			}
			s := newSystemWith(t, options{resources: replacing(edit...)})
			c, b := s.client(), s.browser()
			want := map[string]string{"corp.example": tt.corp, "octohub.example": tt.octohub}
			leg := c.approve(b)
			for range want {
				u, err := url.Parse(leg)
				s.must(err)
				if uri := want[u.Host]; uri != "" && u.Query().Get("redirect_uri") != uri {
					t.Errorf("%s is asked to answer at %s, want %s", u.Host, u.Query().Get("redirect_uri"), uri)
				}
				// The broker in memory redeems a code with the redirect URI that it was asked for alone.
				p := b.get(s.broker.SignIn(t, leg, "alice"))
				wantStatus(t, p, http.StatusSeeOther)
				leg = p.location
			}
			if got := c.redeem(s.clientAnswer(leg).Get("code")); got.status != http.StatusOK {
				t.Errorf("tokens %+v", got)
			}
			if skips := s.broker.Skips(s.broker.Sessions("active")[0]); len(skips) != 0 {
				t.Errorf("skipped: %v", skips)
			}
		})
	}
}

func TestBrowsersThatReachUsAtAnAddressOfTheirOwnCanLogIn(t *testing.T) {
	t.Parallel()
	for _, door := range []string{"http://localhost:8080/door", "http://login.localhost:8080", "http://login.localhost:8080/door"} {
		t.Run(door, func(t *testing.T) {
			t.Parallel()
			s := newSystemWith(t, options{resources: replacing("    issuer: "+issuer+"\n", "    issuer: "+issuer+"\n    authorizationEndpointBaseUrl: "+door+"\n")})
			s.doors = append(s.doors, strings.TrimSuffix(door, "/door"))
			var metadata struct {
				Issuer        string `json:"issuer"`
				Authorization string `json:"authorization_endpoint"`
				Token         string `json:"token_endpoint"`
			}
			p := s.browser().get("/.well-known/oauth-authorization-server")
			s.must(json.Unmarshal([]byte(p.body), &metadata))
			if metadata.Issuer != issuer || metadata.Authorization != door+"/oauth/authorize" || metadata.Token != issuer+"/oauth/token" {
				t.Fatalf("metadata %+v", metadata)
			}
			c, b := s.client(), s.browser()
			_, query, _ := strings.Cut(c.query(), "?")
			consent := b.get(metadata.Authorization + "?" + query)
			wantStatus(t, consent, http.StatusOK, "Example Client")
			first := b.answer(consent, "approve")
			if !strings.Contains(first.location, url.QueryEscape(door+"/oauth/callback/corp")) {
				t.Errorf("the provider answers elsewhere than the browser came from: %s", first.location)
			}
			_, last := s.walk(b, first.location)
			if got := c.redeem(s.clientAnswer(last).Get("code")); got.status != http.StatusOK { // with iss: the issuer's, not the door's
				t.Fatalf("tokens %+v", got)
			}
			for path, want := range map[string]int{"/oauth/authorize?" + query: http.StatusNotFound, "/oauth/callback/corp?state=x": http.StatusNotFound} {
				if strings.HasSuffix(door, "/door") {
					wantStatus(t, b.get(path), want)
				}
			}
		})
	}
}
