package corp_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"chatelaine.dev/examples/browse"
	"chatelaine.dev/examples/corp"
	"chatelaine.dev/examples/internal/rules"
)

func TestAStockClientSignsAPersonIn(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	cfg, provider := in.oauth(t)
	verifier := oauth2.GenerateVerifier()
	got, err := newPerson(t, "alice").Walk(t.Context(), cfg.AuthCodeURL("the-state", gooidc.Nonce("the-nonce"), oauth2.S256ChallengeOption(verifier)), redirectURI)
	if err != nil {
		t.Fatal(err)
	}
	q := got.URL.Query()
	if q.Get("state") != "the-state" || q.Get("iss") != in.url {
		t.Errorf("authorization response: state %q, iss %q", q.Get("state"), q.Get("iss"))
	}
	tok, err := cfg.Exchange(t.Context(), q.Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := tok.Extra("id_token").(string)
	id, err := provider.Verifier(&gooidc.Config{ClientID: "chatelaine"}).Verify(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	var claims struct {
		Name     string `json:"name"`
		Username string `json:"preferred_username"`
		Email    string `json:"email"`
	}
	if err := id.Claims(&claims); err != nil {
		t.Fatal(err)
	}
	if id.Subject != "emp-1001" || id.Nonce != "the-nonce" || claims.Username != "alice" || claims.Name != "Alice Archer" || claims.Email == "" {
		t.Errorf("id_token: %+v, %+v", id, claims)
	}
	if err := id.VerifyAccessToken(tok.AccessToken); err != nil {
		t.Errorf("at_hash: %v", err)
	}
	if tok.RefreshToken == "" || time.Until(tok.Expiry) > 11*time.Minute {
		t.Errorf("refresh token %v, expiry %v", tok.RefreshToken != "", tok.Expiry)
	}
	info, err := provider.UserInfo(t.Context(), cfg.TokenSource(t.Context(), tok))
	if err != nil || info.Subject != "emp-1001" || !info.EmailVerified {
		t.Errorf("userinfo: %+v, %v", info, err)
	}
}

func TestDiscoveryPromisesOnlyWhatWorks(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	_, p := in.oauth(t)
	var doc struct {
		Grants    []string `json:"grant_types_supported"`
		Types     []string `json:"response_types_supported"`
		Methods   []string `json:"code_challenge_methods_supported"`
		Iss       bool     `json:"authorization_response_iss_parameter_supported"`
		Device    string   `json:"device_authorization_endpoint"`
		SignOut   string   `json:"end_session_endpoint"`
		Token     string   `json:"token_endpoint"`
		Revoke    string   `json:"revocation_endpoint"`
		AuthTypes []string `json:"token_endpoint_auth_methods_supported"`
	}
	if err := p.Claims(&doc); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(doc.Types, []string{"code"}) || !slices.Equal(doc.Methods, []string{"S256"}) || !doc.Iss ||
		slices.Contains(doc.Grants, "implicit") || !slices.Contains(doc.Grants, "urn:ietf:params:oauth:grant-type:token-exchange") ||
		doc.Device != "" || doc.SignOut != "" || doc.Token != in.url+"/oauth/token" || doc.Revoke != in.url+"/oauth/revoke" ||
		!slices.Equal(doc.AuthTypes, []string{"client_secret_basic", "client_secret_post"}) {
		t.Errorf("discovery: %+v", doc)
	}
}

func TestCancelAndTooManyWrongPasswordsGoBackToTheClient(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	cfg, _ := in.oauth(t)
	begin := cfg.AuthCodeURL("st", oauth2.S256ChallengeOption(oauth2.GenerateVerifier()))

	b, err := browse.New(browse.Options{Press: func(_ browse.Page, f browse.Form) *browse.Button { return f.Button("action", "cancel") }})
	if err != nil {
		t.Fatal(err)
	}
	got, err := b.Walk(t.Context(), begin, redirectURI)
	if err != nil {
		t.Fatal(err)
	}
	if q := got.URL.Query(); q.Get("error") != "access_denied" || q.Get("state") != "st" || q.Get("iss") != in.url || q.Has("code") {
		t.Errorf("after Cancel: %s", got.URL)
	}

	wrong, err := browse.New(browse.Options{Account: browse.Account{Username: "alice", Password: "bob-password"}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = wrong.Walk(t.Context(), begin, redirectURI)
	stuck, ok := errors.AsType[*browse.StuckError](err)
	if !ok || stuck.Page.Status != http.StatusUnauthorized || !strings.Contains(stuck.Page.Text, "Wrong username or password") {
		t.Fatalf("wrong password: %v", err)
	}
}

// form gets the login form with a client of its own and returns the fields.
func form(t *testing.T, in *instance, client *http.Client) url.Values {
	t.Helper()
	cfg, _ := in.oauth(t)
	resp, err := client.Get(cfg.AuthCodeURL("st", oauth2.S256ChallengeOption(oauth2.GenerateVerifier())))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	field := func(name string) string {
		_, rest, _ := strings.Cut(string(body), `name="`+name+`" value="`)
		value, _, _ := strings.Cut(rest, `"`)
		return value
	}
	v := url.Values{"id": {field("id")}, "csrf": {field("csrf")}, "username": {"alice"}, "password": {"alice-password"}, "action": {"login"}}
	if v.Get("id") == "" || v.Get("csrf") == "" {
		t.Fatalf("no form: %s", body)
	}
	return v
}

func newClient(t *testing.T) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Jar: jar, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if r.URL.Host == "client.example" {
			return http.ErrUseLastResponse
		}
		return nil
	}}
}

func TestALoginFormWorksOnlyInTheBrowserThatOpenedIt(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	send := func(c *http.Client, v url.Values, header ...string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, in.url+"/login", strings.NewReader(v.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for i := 0; i+1 < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	mine := newClient(t)
	v := form(t, in, mine)

	if got := send(http.DefaultClient, v); got != http.StatusBadRequest {
		t.Errorf("without the cookie: %d", got)
	}
	other := newClient(t)
	theirs := form(t, in, other)
	if got := send(other, v); got != http.StatusBadRequest {
		t.Errorf("my form in another browser: %d", got)
	}
	stolen := url.Values{"id": {theirs.Get("id")}, "csrf": {v.Get("csrf")}, "username": {"alice"}, "password": {"alice-password"}, "action": {"login"}}
	if got := send(other, stolen); got != http.StatusForbidden {
		t.Errorf("another form's token: %d", got)
	}
	if got := send(mine, v, "Sec-Fetch-Site", "cross-site"); got != http.StatusForbidden {
		t.Errorf("from another site: %d", got)
	}
	if got := send(mine, v); got != http.StatusFound {
		t.Errorf("my form in my browser: %d", got)
	}
	if got := send(mine, v); got != http.StatusBadRequest {
		t.Errorf("the same form again: %d", got)
	}
}

func TestFiveWrongPasswordsEndTheLogin(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	c := newClient(t)
	v := form(t, in, c)
	v.Set("password", "wrong")
	for i, want := range []int{401, 401, 401, 401, 302, 400} {
		resp, err := c.PostForm(in.url+"/login", v)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("attempt %d: %d, want %d", i+1, resp.StatusCode, want)
		}
	}
}

func TestAuthorizationRequestsThatAreRefused(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	cfg, _ := in.oauth(t)
	challenge := oauth2.S256ChallengeOption(oauth2.GenerateVerifier())
	for name, c := range map[string]struct {
		url       string
		wantError string // "": an error page, no redirect
	}{
		"no PKCE":        {cfg.AuthCodeURL("s"), "invalid_request"},
		"plain PKCE":     {cfg.AuthCodeURL("s", oauth2.SetAuthURLParam("code_challenge", "abc"), oauth2.SetAuthURLParam("code_challenge_method", "plain")), "invalid_request"},
		"no prompt":      {cfg.AuthCodeURL("s", challenge, oauth2.SetAuthURLParam("prompt", "none")), "login_required"},
		"implicit":       {cfg.AuthCodeURL("s", challenge, oauth2.SetAuthURLParam("response_type", "id_token")), ""},
		"other redirect": {cfg.AuthCodeURL("s", challenge, oauth2.SetAuthURLParam("redirect_uri", "http://evil.example/callback")), ""},
		"longer path":    {cfg.AuthCodeURL("s", challenge, oauth2.SetAuthURLParam("redirect_uri", redirectURI+"/more")), ""},
		"unknown client": {cfg.AuthCodeURL("s", challenge, oauth2.SetAuthURLParam("client_id", "nobody")), ""},
		"sts client":     {cfg.AuthCodeURL("s", challenge, oauth2.SetAuthURLParam("client_id", "broker")), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			resp, err := newClient(t).Get(c.url)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			loc, _ := resp.Location()
			if c.wantError == "" {
				if resp.StatusCode != http.StatusBadRequest || loc != nil {
					t.Errorf("%d, Location %v", resp.StatusCode, loc)
				}
				return
			}
			if loc == nil {
				t.Fatalf("%d without a redirect", resp.StatusCode)
			}
			if q := loc.Query(); q.Get("error") != c.wantError || q.Get("iss") != in.url {
				t.Errorf("redirected to %s, want error %s", loc, c.wantError)
			}
		})
	}
}

func TestRenamingAPersonKeepsTheirSubject(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	tok := in.signIn(t, "alice")
	renamed := *in
	renamed.cfg.People = mustPeople(t, `people: [{username: alicia, password: p, name: Alicia A., corp: {id: emp-1001}, octohub: {id: 1, login: a}}]`)
	renamed.restart(t)
	if status, name := in.userinfo(t, tok.AccessToken); status != http.StatusOK || name != "alicia" {
		t.Errorf("userinfo: %d %q", status, name)
	}
}

func TestConfigurationsThatCannotWorkAreRefused(t *testing.T) {
	t.Parallel()
	good := start(t, nil).cfg
	for name, change := range map[string]func(*corp.Config){
		"issuer with a path": func(c *corp.Config) { c.Issuer += "/" },
		"no people":          func(c *corp.Config) { c.People = nil },
		"no lifetime":        func(c *corp.Config) { c.Lifetimes.Code = 0 },
		"client twice":       func(c *corp.Config) { c.Rules.Clients = append(slices.Clone(c.Rules.Clients), c.Rules.Clients[0]) },
		"no secret": func(c *corp.Config) {
			c.Rules.Clients = []corp.Client{{Registration: rules.Registration{ID: "x"}}}
			c.Rules.Exchange = nil
		},
		"rule without client": func(c *corp.Config) {
			c.Rules.Exchange = []corp.ExchangeRule{{Client: "x", Audience: "a", Scopes: []string{"s"}}}
		},
		"rule without scopes": func(c *corp.Config) { c.Rules.Exchange = []corp.ExchangeRule{{Client: "broker", Audience: "a"}} },
		"trust without keys": func(c *corp.Config) {
			c.Rules.TrustedIssuers = []corp.TrustedIssuer{{Issuer: "https://x"}}
			c.Client = http.DefaultClient
		},
		"trusts itself": func(c *corp.Config) {
			c.Rules.TrustedIssuers = []corp.TrustedIssuer{{Issuer: c.Issuer, JWKSURL: c.Issuer}}
		},
		"no client for keys": func(c *corp.Config) {
			c.Rules.TrustedIssuers = []corp.TrustedIssuer{{Issuer: "https://x", JWKSURL: "https://x"}}
		},
		"no redirect to go to": func(c *corp.Config) {
			c.Rules.Clients = slices.Clone(c.Rules.Clients)
			c.Rules.Clients[0].RedirectURIs = nil
		},
	} {
		cfg := good
		cfg.StateFile = ""
		change(&cfg)
		if _, err := corp.New(cfg, nil); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
