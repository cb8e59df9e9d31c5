package upstream_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/upstream"
)

// octohub configures a provider with GitHub's shapes at the paths of an idp.
func octohub(i *idp) config.Provider {
	return config.Provider{
		Name: "octohub", Type: config.ProviderOAuth2, Optional: true,
		ClientID: "chatelaine", ClientSecret: &secret.Ref{Name: "octohub", Key: "client-secret"},
		AuthMethod: config.AuthMethodPost, RedirectURI: "http://localhost:8080/oauth/callback/octohub",
		Scopes: []string{"repo", "read:user"},
		OAuth2: &config.OAuth2Provider{
			AuthorizationEndpoint: i.url + "/authorize", TokenEndpoint: i.url + "/login/oauth/access_token",
			TokenResponse: config.TokenResponsePaths{
				AccessToken: "access_token", RefreshToken: "refresh_token", Scope: "scope", ExpiresIn: "expires_in",
			},
		},
		UserInfo: &config.UserInfoRequest{
			URL: i.url + "/user", Method: "GET", Headers: map[string]string{"X-GitHub-Api-Version": "2022-11-28"},
			SubjectFields: []string{"id"}, NameFields: []string{"name", "login"}, EmailFields: []string{"email"},
		},
	}
}

func startOctohub(t testing.TB) *idp {
	i := startIDP(t)
	i.handle("/login/oauth/access_token", respond(200, "application/json",
		`{"access_token":"`+plantedAccess+`","scope":"repo,read:user","token_type":"bearer"}`))
	i.handle("/user", respond(200, "application/json", `{"id":9007199254740993,"login":"alice","name":null,"email":"`+plantedEmail+`"}`))
	return i
}

func TestOAuth2LoginAtGitHub(t *testing.T) {
	t.Parallel()
	answers := map[string]struct{ contentType, body string }{
		"JSON": {"application/json; charset=utf-8", `{"access_token":"` + plantedAccess + `","scope":"repo,read:user","token_type":"bearer"}`},
		"form": {"application/x-www-form-urlencoded; charset=utf-8", "access_token=" + plantedAccess + "&scope=repo%2Cread%3Auser&token_type=bearer"},
	}
	for name, a := range answers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := startOctohub(t)
			var form url.Values
			var accept, bearer, version string
			i.handle("/login/oauth/access_token", func(w http.ResponseWriter, r *http.Request) {
				_ = r.ParseForm()
				form, accept = r.PostForm, r.Header.Get("Accept")
				respond(200, a.contentType, a.body)(w, r)
			})
			i.handle("/user", func(w http.ResponseWriter, r *http.Request) {
				bearer, version = r.Header.Get("Authorization"), r.Header.Get("X-Github-Api-Version")
				respond(200, "application/json", `{"id":9007199254740993,"login":"alice","name":null}`)(w, r)
			})
			p := build(t, octohub(i), plantedEnv())
			g, err := p.Redeem(t.Context(), upstream.RedeemRequest{Code: secret.New(plantedCode), Verifier: secret.New(testVerifier)})
			if err != nil {
				t.Fatal(fault.Detail(err))
			}
			// 2^53+1: a float64 would name the neighbour.
			if g.Identity != (upstream.Identity{Subject: "9007199254740993", SubjectField: "id", Name: "alice"}) {
				t.Errorf("identity %+v", g.Identity)
			}
			if !slices.Equal(g.Scopes, []string{"read:user", "repo"}) || g.HasExpiry || !g.RefreshToken.IsZero() {
				t.Errorf("grant %+v", g)
			}
			if g.Realm != i.url+"/login/oauth/access_token" {
				t.Errorf("realm %s", g.Realm)
			}
			if accept != "application/json" || bearer != "Bearer "+plantedAccess || version != "2022-11-28" {
				t.Errorf("headers %q, %q, %q", accept, bearer, version)
			}
			if form.Get("client_secret") != plantedSecret || form.Get("code_verifier") != testVerifier || form.Get("client_id") != "chatelaine" {
				t.Error("the form lacks the client's credentials or the verifier")
			}
		})
	}
}

func TestOAuth2ErrorsOfRealServices(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name              string
		status            int
		contentType, body string
		code              string
	}{
		{"GitHub, JSON", 200, "application/json", `{"error":"bad_verification_code","error_description":"` + plantedBody + `"}`, "invalid_grant"},
		{"GitHub, form", 200, "application/x-www-form-urlencoded", "error=bad_refresh_token&error_description=" + plantedBody, "invalid_grant"},
		{"GitHub, credentials", 200, "application/json", `{"error":"incorrect_client_credentials"}`, "invalid_client"},
		{"Slack", 200, "application/json", `{"ok":false,"error":"invalid_code"}`, "invalid_grant"},
		{"Slack, no code", 200, "application/json", `{"ok":false}`, ""},
		{"RFC 6749", 400, "application/json", `{"error":"invalid_grant"}`, "invalid_grant"},
		{"RFC 6749, client", 401, "application/json", `{"error":"invalid_client"}`, "invalid_client"},
		{"text as a code", 400, "application/json", `{"error":"` + plantedBody + `"}`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			i := startOctohub(t)
			i.handle("/login/oauth/access_token", respond(tt.status, tt.contentType, tt.body))
			_, err := build(t, octohub(i), plantedEnv()).Refresh(t.Context(), upstream.RefreshRequest{RefreshToken: secret.New(plantedRefresh)})
			wantRefused(t, err, tt.code)
		})
	}
}

func TestOAuth2TokenResponseMapping(t *testing.T) {
	t.Parallel()
	i := startOctohub(t)
	i.handle("/login/oauth/access_token", respond(200, "application/json", `{
		"ok": true, "token_type": "bot", "access_token": "the bot's, not the person's",
		"authed_user": {"id": "U1", "access_token": "`+plantedAccess+`", "token_type": "user",
			"scope": "channels:read,chat:write", "refresh_token": "`+plantedRefresh+`", "expires_in": "43200",
			"profile": {"display": "Alice", "mail": "`+plantedEmail+`"}}}`))
	cfg := octohub(i)
	cfg.OAuth2.TokenResponse = config.TokenResponsePaths{
		AccessToken: "authed_user.access_token", RefreshToken: "authed_user.refresh_token",
		Scope: "authed_user.scope", ExpiresIn: "authed_user.expires_in",
	}
	cfg.UserInfo = nil
	cfg.OAuth2.Identity = &config.IdentityPaths{
		Subject: "authed_user.id", Name: "authed_user.profile.display", Email: "authed_user.profile.mail",
	}
	p := build(t, cfg, plantedEnv())
	before := time.Now()
	g, err := p.Redeem(t.Context(), redeemRequest())
	if err != nil {
		t.Fatal(fault.Detail(err))
	}
	if g.AccessToken.Reveal() != plantedAccess || g.RefreshToken.Reveal() != plantedRefresh {
		t.Error("took another token than the mapped one")
	}
	if g.Identity != (upstream.Identity{Subject: "U1", Name: "Alice", Email: plantedEmail}) {
		t.Errorf("identity %+v", g.Identity)
	}
	if !slices.Equal(g.Scopes, []string{"channels:read", "chat:write"}) {
		t.Errorf("scopes %q", g.Scopes)
	}
	if life := g.ExpiresAt.Sub(before); !g.HasExpiry || life < 43199*time.Second || life > 43210*time.Second {
		t.Errorf("lives for %v", life)
	}

	// The same answer to another account's refresh.
	_, err = p.Refresh(t.Context(), upstream.RefreshRequest{RefreshToken: secret.New("r"), Subject: "U2"})
	wantIdentityInvalid(t, err, "subject_changed")
}

func TestOAuth2IdentityFromJWTInTheAnswer(t *testing.T) {
	t.Parallel()
	i := startOctohub(t)
	token := sign(t, newSigner(t, jose.ES256, i.key, "k"), map[string]any{"sub": "snow-7", "org.name": "Alice"})
	i.handle("/login/oauth/access_token", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, map[string]any{"access_token": token, "id_token": "unverified"})
	})
	cfg := octohub(i)
	cfg.OAuth2.Identity = &config.IdentityPaths{Subject: "access_token|@upstreamjwt|sub", Name: `access_token.@upstreamjwt.org\.name`}
	g, err := build(t, cfg, plantedEnv()).Redeem(t.Context(), redeemRequest())
	if err != nil {
		t.Fatal(fault.Detail(err))
	}
	if g.Identity != (upstream.Identity{Subject: "snow-7", Name: "Alice"}) {
		t.Errorf("identity %+v", g.Identity)
	}
	if !g.IDToken.IsZero() {
		t.Error("an id token that nobody verified is in the grant")
	}
}

func TestOAuth2WithoutASubject(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"missing": `{"login":"alice"}`, "null": `{"id":null}`, "empty": `{"id":""}`, "object": `{"id":{}}`,
		"list": `{"id":[1]}`, "bool": `{"id":true}`, "fraction": `{"id":1.5}`, "exponent": `{"id":1e3}`,
		"lone surrogate": `{"id":"\ud800"}`, "line break": `{"id":"a\nb"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := startOctohub(t)
			i.handle("/user", respond(200, "application/json", body))
			_, err := build(t, octohub(i), plantedEnv()).Redeem(t.Context(), redeemRequest())
			wantIdentityInvalid(t, err, "subject")
		})
	}
	t.Run("and none asked for", func(t *testing.T) {
		t.Parallel()
		i := startOctohub(t)
		cfg := octohub(i)
		cfg.UserInfo = nil
		g, err := build(t, cfg, plantedEnv()).Redeem(t.Context(), redeemRequest())
		if err != nil || g.Identity != (upstream.Identity{}) {
			t.Errorf("identity %+v, error %v", g.Identity, err)
		}
	})
}

func TestRegistryFindsProvidersByRealmOnly(t *testing.T) {
	t.Parallel()
	i, j := startIDP(t), startIDP(t)
	first, second := i.provider(), j.provider()
	first.Name, second.Name = "corp", "partner"
	r, err := upstream.NewRegistry(deployment(first, second), upstream.Config{Secrets: resolver(plantedEnv())})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, realm, want string }{
		{"corp", i.url, "corp"},
		{"renamed", i.url, "corp"},
		{"corp", j.url, "partner"}, // repointed: the name alone counts for nothing
		{"corp", "https://gone.example", ""},
	} {
		p, err := r.Find(tt.name, tt.realm)
		switch {
		case tt.want == "" && err == nil:
			t.Errorf("%s in %s: found %s", tt.name, tt.realm, p.Name())
		case tt.want != "" && (err != nil || p.Name() != tt.want):
			t.Errorf("%s in %s: %v, %v", tt.name, tt.realm, p, err)
		}
	}
}

func TestRegistryNamesEveryMissingSecret(t *testing.T) {
	t.Parallel()
	i := startIDP(t)
	_, err := upstream.NewRegistry(deployment(i.provider(), octohub(i)), upstream.Config{Secrets: resolver(nil)})
	if err == nil {
		t.Fatal("started without secrets")
	}
	for _, want := range []string{"provider corp", "CORP_CLIENT_SECRET", "provider octohub", "OCTOHUB_CLIENT_SECRET"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %s", err, want)
		}
	}
}

// What a person disconnects must end at a provider without discovery too.
func TestOAuth2TokensAreGivenBackWhereTheConfigurationSays(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		endpoint string
		want     int
	}{"named": {"/revoke", 1}, "not named": {"", 0}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := startOctohub(t)
			cfg := octohub(i)
			if tt.endpoint != "" {
				cfg.OAuth2.RevocationEndpoint = i.url + tt.endpoint
			}
			if err := build(t, cfg, plantedEnv()).Revoke(t.Context(), secret.New(plantedRefresh), upstream.HintRefreshToken); err != nil {
				t.Fatal(err)
			}
			if n := i.count("/revoke"); n != tt.want {
				t.Errorf("revoked %d times, want %d", n, tt.want)
			}
		})
	}
}
