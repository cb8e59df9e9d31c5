package corp_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"testing"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"chatelaine.dev/examples/corp"
)

const (
	accessType  = "urn:ietf:params:oauth:token-type:access_token"
	jwtType     = "urn:ietf:params:oauth:token-type:jwt"
	stsClient   = "broker"
	stsSecret   = "secret of CORP_STS_CLIENT_SECRET"
	loginSecret = "secret of CORP_IDP_CLIENT_SECRET"
)

func exchangeForm(subject string, change func(url.Values)) url.Values {
	v := url.Values{
		"grant_type":           {"urn:ietf:params:oauth:grant-type:token-exchange"},
		"subject_token":        {subject},
		"subject_token_type":   {accessType},
		"requested_token_type": {accessType},
		"audience":             {"payroll"},
		"scope":                {"payroll:read"},
	}
	if change != nil {
		change(v)
	}
	return v
}

func TestTheBrokerExchangesAPersonsTokenForOneToPayroll(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	tok := in.signIn(t, "alice")
	for name, c := range map[string]struct {
		user, password string
		change         func(url.Values)
	}{
		"Basic":             {stsClient, stsSecret, nil},
		"post":              {"", "", func(v url.Values) { v.Set("client_id", stsClient); v.Set("client_secret", stsSecret) }},
		"default scopes":    {stsClient, stsSecret, func(v url.Values) { v.Del("scope") }},
		"no requested type": {stsClient, stsSecret, func(v url.Values) { v.Del("requested_token_type") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status, body := post(t.Context(), t, in.url+"/oauth/token", exchangeForm(tok.AccessToken, c.change), c.user, c.password)
			if status != http.StatusOK {
				t.Fatalf("%d %v", status, body)
			}
			raw, _ := body["access_token"].(string)
			if body["issued_token_type"] != accessType || body["token_type"] != "Bearer" || body["refresh_token"] != nil || body["scope"] != "payroll:read" {
				t.Errorf("response without its token: %v", slices.Sorted(maps.Keys(body)))
			}
			provider, err := gooidc.NewProvider(t.Context(), in.url)
			if err != nil {
				t.Fatal(err)
			}
			got, err := provider.Verifier(&gooidc.Config{ClientID: "payroll"}).Verify(t.Context(), raw)
			if err != nil {
				t.Fatal(err)
			}
			var claims struct {
				Scope    string `json:"scope"`
				Name     string `json:"name"`
				Username string `json:"preferred_username"`
				Client   string `json:"client_id"`
				Act      struct {
					Sub string `json:"sub"`
				} `json:"act"`
			}
			if err := got.Claims(&claims); err != nil {
				t.Fatal(err)
			}
			if got.Subject != "emp-1001" || claims.Scope != "payroll:read" || claims.Username != "alice" || claims.Name != "Alice Archer" ||
				claims.Client != stsClient || claims.Act.Sub != stsClient || !slices.Equal(got.Audience, []string{"payroll"}) {
				t.Errorf("token: %+v, %+v", got, claims)
			}
			if life := got.Expiry.Sub(got.IssuedAt); life > 6*time.Minute {
				t.Errorf("the token lives %v", life)
			}
			// It is for payroll alone.
			if status, _ := in.userinfo(t, raw); status != http.StatusUnauthorized {
				t.Errorf("userinfo accepts it: %d", status)
			}
			if status, body := post(t.Context(), t, in.url+"/oauth/token", exchangeForm(raw, nil), stsClient, stsSecret); status != http.StatusBadRequest {
				t.Errorf("it can be exchanged again: %d %v", status, body)
			}
		})
	}
}

func TestExchangesThatAreRefused(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	tok := in.signIn(t, "alice")
	idToken, _ := tok.Extra("id_token").(string)
	revoked := in.signIn(t, "bob")
	in.adminPost(t, "/revoke-all?user=bob", "")
	for name, c := range map[string]struct {
		subject, user, password string
		change                  func(url.Values)
		status                  int
		code                    string
	}{
		"another audience":    {tok.AccessToken, stsClient, stsSecret, func(v url.Values) { v.Set("audience", "treasury") }, 400, "invalid_target"},
		"two audiences":       {tok.AccessToken, stsClient, stsSecret, func(v url.Values) { v.Add("audience", "treasury") }, 400, "invalid_target"},
		"no audience":         {tok.AccessToken, stsClient, stsSecret, func(v url.Values) { v.Del("audience") }, 400, "invalid_target"},
		"a resource":          {tok.AccessToken, stsClient, stsSecret, func(v url.Values) { v.Set("resource", "https://payroll") }, 400, "invalid_target"},
		"another scope":       {tok.AccessToken, stsClient, stsSecret, func(v url.Values) { v.Set("scope", "payroll:read payroll:write") }, 400, "invalid_scope"},
		"login client":        {tok.AccessToken, "chatelaine", loginSecret, nil, 400, "unauthorized_client"},
		"wrong secret":        {tok.AccessToken, stsClient, "wrong", nil, 401, "invalid_client"},
		"no client":           {tok.AccessToken, "", "", nil, 401, "invalid_client"},
		"both ways":           {tok.AccessToken, stsClient, stsSecret, func(v url.Values) { v.Set("client_secret", stsSecret) }, 400, "invalid_request"},
		"revoked token":       {revoked.AccessToken, stsClient, stsSecret, nil, 400, "invalid_request"},
		"garbage":             {"garbage", stsClient, stsSecret, nil, 400, "invalid_request"},
		"ID token":            {idToken, stsClient, stsSecret, nil, 400, "invalid_request"},
		"ID token as itself":  {idToken, stsClient, stsSecret, func(v url.Values) { v.Set("subject_token_type", "urn:ietf:params:oauth:token-type:id_token") }, 400, "invalid_request"},
		"refresh token":       {tok.RefreshToken, stsClient, stsSecret, func(v url.Values) { v.Set("subject_token_type", "urn:ietf:params:oauth:token-type:refresh_token") }, 400, "invalid_request"},
		"for a refresh token": {tok.AccessToken, stsClient, stsSecret, func(v url.Values) { v.Set("requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token") }, 400, "invalid_request"},
		"for an ID token":     {tok.AccessToken, stsClient, stsSecret, func(v url.Values) { v.Set("requested_token_type", "urn:ietf:params:oauth:token-type:id_token") }, 400, "invalid_request"},
		"with an actor": {tok.AccessToken, stsClient, stsSecret, func(v url.Values) {
			v.Set("actor_token", tok.AccessToken)
			v.Set("actor_token_type", accessType)
		}, 400, "invalid_request"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status, body := post(t.Context(), t, in.url+"/oauth/token", exchangeForm(c.subject, c.change), c.user, c.password)
			if status != c.status || body["error"] != c.code {
				t.Errorf("%d %v, want %d %s", status, body["error"], c.status, c.code)
			}
		})
	}
}

func TestOnlyTokensOfAllowedClientsCanBeExchanged(t *testing.T) {
	t.Parallel()
	in := start(t, func(c *corp.Config) {
		c.Rules.Exchange = slices.Clone(c.Rules.Exchange)
		c.Rules.Exchange[0].SubjectClients = []string{"another"}
	})
	tok := in.signIn(t, "alice")
	if status, body := post(t.Context(), t, in.url+"/oauth/token", exchangeForm(tok.AccessToken, nil), stsClient, stsSecret); status != http.StatusBadRequest {
		t.Errorf("%d %v", status, body)
	}
}

// foreign is an issuer of somebody else's.
type foreign struct {
	url string
	key *ecdsa.PrivateKey
}

func newForeign(t *testing.T) *foreign {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f := &foreign{key: key}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		err := json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &key.PublicKey, KeyID: "k1", Algorithm: "ES256", Use: "sig"}}})
		if err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(srv.Close)
	f.url = srv.URL
	return f
}

func (f *foreign) mint(t *testing.T, key *ecdsa.PrivateKey, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "k1"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestATokenOfATrustedIssuerIsExchangedForTheLinkedPerson(t *testing.T) {
	t.Parallel()
	f := newForeign(t)
	in := start(t, func(c *corp.Config) {
		c.Rules.TrustedIssuers = []corp.TrustedIssuer{{Issuer: f.url, JWKSURL: f.url}}
		c.Client = &http.Client{Timeout: 5 * time.Second}
	})
	in.adminPost(t, "/links", `{"issuer":"`+f.url+`","subject":"user-7","username":"bob"}`)
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	claims := func(change func(map[string]any)) map[string]any {
		m := map[string]any{
			"iss": f.url, "sub": "user-7", "aud": in.url + "/oauth/token",
			"iat": time.Now().Unix(), "exp": time.Now().Add(2 * time.Minute).Unix(),
		}
		if change != nil {
			change(m)
		}
		return m
	}
	for name, c := range map[string]struct {
		key    *ecdsa.PrivateKey
		change func(map[string]any)
		typ    string
		status int
	}{
		"as jwt":            {f.key, nil, jwtType, 200},
		"as access token":   {f.key, nil, accessType, 200},
		"for somebody else": {f.key, func(m map[string]any) { m["aud"] = "https://other" }, jwtType, 400},
		"the agent's own":   {f.key, func(m map[string]any) { m["aud"] = []string{"http://localhost:8000/mcp"} }, jwtType, 400},
		"expired":           {f.key, func(m map[string]any) { m["exp"] = time.Now().Add(-time.Minute).Unix() }, jwtType, 400},
		"lives for a day":   {f.key, func(m map[string]any) { m["exp"] = time.Now().Add(24 * time.Hour).Unix() }, jwtType, 400},
		"not linked":        {f.key, func(m map[string]any) { m["sub"] = "user-8" }, jwtType, 400},
		"no subject":        {f.key, func(m map[string]any) { delete(m, "sub") }, jwtType, 400},
		"another issuer":    {f.key, func(m map[string]any) { m["iss"] = "https://other" }, jwtType, 400},
		"claims to be corp": {f.key, func(m map[string]any) { m["iss"] = in.url }, accessType, 400},
		"another key":       {other, nil, jwtType, 400},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			form := exchangeForm(f.mint(t, c.key, claims(c.change)), func(v url.Values) { v.Set("subject_token_type", c.typ) })
			status, body := post(t.Context(), t, in.url+"/oauth/token", form, stsClient, stsSecret)
			if status != c.status {
				t.Fatalf("%d %v, want %d", status, body["error_description"], c.status)
			}
			if status != http.StatusOK {
				return
			}
			provider, err := gooidc.NewProvider(t.Context(), in.url)
			if err != nil {
				t.Fatal(err)
			}
			raw, _ := body["access_token"].(string)
			got, err := provider.Verifier(&gooidc.Config{ClientID: "payroll"}).Verify(t.Context(), raw)
			if err != nil || got.Subject != "emp-1002" {
				t.Errorf("token: %+v, %v", got, err)
			}
		})
	}
}

// The backend must learn which client acts, and nobody may claim to be another.
func TestAnActorTokenBecomesTheActOfTheExchangedToken(t *testing.T) {
	t.Parallel()
	f := newForeign(t)
	in := start(t, func(c *corp.Config) {
		c.Rules.TrustedIssuers = []corp.TrustedIssuer{{Issuer: f.url, JWKSURL: f.url}}
		c.Client = &http.Client{Timeout: 5 * time.Second}
	})
	person := in.signIn(t, "alice").AccessToken
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	claims := map[string]any{
		"iss": f.url, "sub": "client-9", "aud": in.url + "/oauth/token",
		"iat": time.Now().Unix(), "exp": time.Now().Add(2 * time.Minute).Unix(),
	}
	elsewhere := maps.Clone(claims)
	elsewhere["aud"] = "https://other"
	for name, c := range map[string]struct {
		token, typ string
		status     int
	}{
		"a client":           {f.mint(t, f.key, claims), jwtType, 200},
		"as access token":    {f.mint(t, f.key, claims), accessType, 400},
		"by another key":     {f.mint(t, other, claims), jwtType, 400},
		"for somebody else":  {f.mint(t, f.key, elsewhere), jwtType, 400},
		"a token of corp's":  {person, accessType, 400},
		"the same, as a JWT": {person, jwtType, 400},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			form := exchangeForm(person, func(v url.Values) { v.Set("actor_token", c.token); v.Set("actor_token_type", c.typ) })
			status, body := post(t.Context(), t, in.url+"/oauth/token", form, stsClient, stsSecret)
			if status != c.status {
				t.Fatalf("%d %v, want %d", status, body["error_description"], c.status)
			}
			if status != http.StatusOK {
				return
			}
			provider, err := gooidc.NewProvider(t.Context(), in.url)
			if err != nil {
				t.Fatal(err)
			}
			raw, _ := body["access_token"].(string)
			got, err := provider.Verifier(&gooidc.Config{ClientID: "payroll"}).Verify(t.Context(), raw)
			if err != nil {
				t.Fatal(err)
			}
			var issued struct{ Act struct{ Iss, Sub string } }
			if err := got.Claims(&issued); err != nil || got.Subject != "emp-1001" || issued.Act.Iss != f.url || issued.Act.Sub != "client-9" {
				t.Errorf("of %s, act %+v, %v", got.Subject, issued.Act, err)
			}
		})
	}
}
