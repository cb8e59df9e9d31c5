package octohub_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"chatelaine.dev/examples/browse"
	"chatelaine.dev/examples/octohub"
	"golang.org/x/oauth2"
)

func TestAStockClientGetsATokenForThePersonWhoAuthorizedIt(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	for name, want := range map[string]struct {
		login string
		repos []string
	}{
		"alice": {"alice-codes", []string{"dotfiles", "orchard", "diary"}},
		"bob":   {"bob-builds", []string{"bridge-sim", "invoices"}},
	} {
		tok := in.signIn(t, name)
		if tok.Extra("scope") != "repo,read:user" || tok.RefreshToken == "" || time.Until(tok.Expiry) < 7*time.Hour || tok.Type() != "Bearer" {
			t.Errorf("%s: scope %v, expiry %v, type %s", name, tok.Extra("scope"), tok.Expiry, tok.Type())
		}
		var user octohub.User
		if status := in.api(t, "/user", tok.AccessToken, &user); status != 200 || user.Login != want.login || user.Email == "" {
			t.Errorf("%s: /user %d %+v", name, status, user)
		}
		var repos []octohub.Repository
		status := in.api(t, "/user/repos", tok.AccessToken, &repos)
		var names []string
		for _, r := range repos {
			names = append(names, r.Name)
		}
		if status != 200 || !slices.Equal(names, want.repos) {
			t.Errorf("%s: /user/repos %d %v", name, status, names)
		}
		if status := in.api(t, "/user/repos?per_page=1&page=2", tok.AccessToken, &repos); status != 200 || len(repos) != 1 || repos[0].Name != want.repos[1] {
			t.Errorf("%s: second page %d %v", name, status, repos)
		}
		if status := in.api(t, "/user/repos?page=0", tok.AccessToken, &repos); status != http.StatusUnprocessableEntity {
			t.Errorf("%s: page 0: %d", name, status)
		}
	}
	if status := in.api(t, "/user", "ohu_nothing", nil); status != http.StatusUnauthorized {
		t.Errorf("an unknown token: %d", status)
	}
}

func TestScopesLimitWhatATokenShows(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	cfg := in.oauth()
	cfg.Scopes = []string{"admin:everything"}
	got, err := newPerson(t, "alice", nil).Walk(t.Context(), cfg.AuthCodeURL("st"), redirectURI)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := cfg.Exchange(t.Context(), got.URL.Query().Get("code"))
	if err != nil {
		t.Fatal(err)
	}
	var repos []octohub.Repository
	if in.api(t, "/user/repos", tok.AccessToken, &repos); len(repos) != 2 {
		t.Errorf("without the scope repo: %v", repos)
	}
	var user octohub.User
	if in.api(t, "/user", tok.AccessToken, &user); user.Email != "" || user.ID == 0 {
		t.Errorf("without the scope read:user: %+v", user)
	}
}

func TestAnswersAreFormsUnlessJSONIsAskedFor(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	for accept, wantType := range map[string]string{"": "application/x-www-form-urlencoded; charset=utf-8", "application/json": "application/json; charset=utf-8"} {
		tok := in.signIn(t, "alice")
		form := url.Values{"client_id": {"chatelaine"}, "client_secret": {clientSecret}, "grant_type": {"refresh_token"}, "refresh_token": {tok.RefreshToken}}
		status, header, body := do(t, http.MethodPost, in.url+"/login/oauth/access_token", formType, form.Encode(), "Accept", accept)
		if status != 200 || header.Get("Content-Type") != wantType || header.Get("Cache-Control") != "no-store" {
			t.Errorf("Accept %q: %d %v", accept, status, header)
		}
		var scope, tokenType string
		if accept == "" {
			v, err := url.ParseQuery(body)
			if err != nil {
				t.Fatal(err)
			}
			scope, tokenType = v.Get("scope"), v.Get("token_type")
		} else {
			var v struct {
				Scope     string `json:"scope"`
				TokenType string `json:"token_type"`
				ExpiresIn int    `json:"expires_in"`
			}
			if err := json.Unmarshal([]byte(body), &v); err != nil || v.ExpiresIn != 8*3600 {
				t.Errorf("%v, expires_in %d", err, v.ExpiresIn)
			}
			scope, tokenType = v.Scope, v.TokenType
		}
		if scope != "repo,read:user" || tokenType != "bearer" {
			t.Errorf("Accept %q: scope %q, token_type %q", accept, scope, tokenType)
		}
	}
}

func TestTokenErrorsComeWithStatus200AndGitHubsWords(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	code := func() string {
		got, err := newPerson(t, "alice", nil).Walk(t.Context(), in.oauth().AuthCodeURL("st", oauth2.S256ChallengeOption("v")), redirectURI)
		if err != nil {
			t.Fatal(err)
		}
		return got.URL.Query().Get("code")
	}
	tok := in.signIn(t, "alice")
	mine := url.Values{"client_id": {"chatelaine"}, "client_secret": {clientSecret}}
	with := func(base url.Values, kv ...string) url.Values {
		v := url.Values{}
		for k, s := range base {
			v[k] = s
		}
		for i := 0; i+1 < len(kv); i += 2 {
			v.Set(kv[i], kv[i+1])
		}
		return v
	}
	theirs := url.Values{"client_id": {"other"}, "client_secret": {"other"}}
	for name, c := range map[string]struct {
		form url.Values
		want string
	}{
		"unknown code":           {with(mine, "code", "x"), "bad_verification_code"},
		"no code":                {mine, "bad_verification_code"},
		"wrong secret":           {with(mine, "client_secret", "x", "code", code()), "incorrect_client_credentials"},
		"unknown client":         {with(mine, "client_id", "x", "code", code()), "incorrect_client_credentials"},
		"another client's code":  {with(theirs, "code", code(), "code_verifier", "v"), "bad_verification_code"},
		"other redirect":         {with(mine, "code", code(), "code_verifier", "v", "redirect_uri", "http://evil.example"), "redirect_uri_mismatch"},
		"no verifier":            {with(mine, "code", code()), "bad_verification_code"},
		"wrong verifier":         {with(mine, "code", code(), "code_verifier", "w"), "bad_verification_code"},
		"unknown refresh token":  {with(mine, "grant_type", "refresh_token", "refresh_token", "x"), "bad_refresh_token"},
		"another client's token": {with(theirs, "grant_type", "refresh_token", "refresh_token", tok.RefreshToken), "bad_refresh_token"},
		"unknown grant":          {with(mine, "grant_type", "password"), "unsupported_grant_type"},
	} {
		status, _, body := do(t, http.MethodPost, in.url+"/login/oauth/access_token", formType, c.form.Encode(), "Accept", "application/json")
		var got struct {
			Error string `json:"error"`
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil || status != 200 || got.Error != c.want {
			t.Errorf("%s: %d %s, want 200 %s", name, status, body, c.want)
		}
	}
	if _, err := in.refresh(t, tok.RefreshToken); err != nil {
		t.Errorf("the refresh token that another client tried: %v", err)
	}
}

func TestACodeIsRedeemedOnce(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	cfg := in.oauth()
	got, err := newPerson(t, "alice", nil).Walk(t.Context(), cfg.AuthCodeURL("st"), redirectURI)
	if err != nil {
		t.Fatal(err)
	}
	code := got.URL.Query().Get("code")
	if _, err := cfg.Exchange(t.Context(), code, oauth2.VerifierOption("never announced")); err == nil {
		t.Error("a verifier without a challenge was accepted")
	}
	tok, err := cfg.Exchange(t.Context(), code)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cfg.Exchange(t.Context(), code); err == nil {
		t.Error("the code worked twice")
	}
	if status := in.api(t, "/user", tok.AccessToken, nil); status != http.StatusUnauthorized {
		t.Errorf("the token after its code was replayed: %d", status)
	}
}

func TestRefreshTokensAreUsedOnce(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	first := in.signIn(t, "alice")
	second, err := in.refresh(t, first.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	var user octohub.User
	if status := in.api(t, "/user", second.AccessToken, &user); status != 200 {
		t.Fatalf("the new token: %d", status)
	}
	if _, err := in.refresh(t, first.RefreshToken); err == nil {
		t.Error("a spent refresh token worked")
	}
	if status := in.api(t, "/user", second.AccessToken, &user); status != http.StatusUnauthorized {
		t.Errorf("the family lives on after a reuse: %d", status)
	}
}

func TestTheGraceAllowsOneMoreTry(t *testing.T) {
	t.Parallel()
	in := start(t, func(c *octohub.Config) { c.Lifetimes.RefreshGrace = time.Hour })
	first := in.signIn(t, "alice")
	if _, err := in.refresh(t, first.RefreshToken); err != nil {
		t.Fatal(err)
	}
	again, err := in.refresh(t, first.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	var user octohub.User
	if status := in.api(t, "/user", again.AccessToken, &user); status != 200 {
		t.Errorf("the token of the second try: %d", status)
	}
}

func TestTokensWithoutExpiryHaveNoRefreshToken(t *testing.T) {
	t.Parallel()
	in := start(t, func(c *octohub.Config) { c.Lifetimes.AccessToken = 0 })
	tok := in.signIn(t, "alice")
	var user octohub.User
	if status := in.api(t, "/user", tok.AccessToken, &user); status != 200 || tok.RefreshToken != "" || !tok.Expiry.IsZero() {
		t.Errorf("/user %d, refresh token %v, expiry %v", status, tok.RefreshToken != "", tok.Expiry)
	}
}

func TestRevocation(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	basic := func(id, pass string) string {
		r := &http.Request{Header: http.Header{}}
		r.SetBasicAuth(id, pass)
		return r.Header.Get("Authorization")
	}
	mine, theirs := basic("chatelaine", clientSecret), basic("other", "other")
	alive := func(tok *oauth2.Token) bool {
		var u octohub.User
		return in.api(t, "/user", tok.AccessToken, &u) == http.StatusOK
	}
	body := func(tok *oauth2.Token) string { return `{"access_token":"` + tok.AccessToken + `"}` }

	a, b := in.signIn(t, "alice"), in.signIn(t, "alice")
	if status, _, _ := do(t, http.MethodDelete, in.url+"/applications/other/token", "application/json", body(a), "Authorization", theirs); status != http.StatusNotFound || !alive(a) {
		t.Errorf("another client's DELETE token: %d", status)
	}
	if status, _, _ := do(t, http.MethodDelete, in.url+"/applications/chatelaine/token", "application/json", body(a), "Authorization", theirs); status != http.StatusUnauthorized || !alive(a) {
		t.Errorf("DELETE token in another's name: %d", status)
	}
	if status, _, _ := do(t, http.MethodDelete, in.url+"/applications/chatelaine/token", "application/json", body(a), "Authorization", mine); status != http.StatusNoContent || alive(a) || !alive(b) {
		t.Errorf("DELETE token: %d, alive %v, the other %v", status, alive(a), alive(b))
	}
	next, err := in.refresh(t, a.RefreshToken)
	if err != nil {
		t.Fatalf("DELETE token took the refresh token along: %v", err)
	}
	if status, _, _ := do(t, http.MethodDelete, in.url+"/applications/chatelaine/grant", "application/json", body(next), "Authorization", mine); status != http.StatusNoContent || alive(next) || alive(b) {
		t.Errorf("DELETE grant: %d, alive %v, the other %v", status, alive(next), alive(b))
	}

	c := in.signIn(t, "bob")
	form := url.Values{"token": {c.RefreshToken}}.Encode()
	if status, _, _ := do(t, http.MethodPost, in.url+"/login/oauth/revoke", formType, form, "Authorization", theirs); status != http.StatusOK || !alive(c) {
		t.Errorf("another client's revocation: %d", status)
	}
	if status, _, _ := do(t, http.MethodPost, in.url+"/login/oauth/revoke", formType, form); status != http.StatusUnauthorized || !alive(c) {
		t.Errorf("nobody's revocation: %d", status)
	}
	if status, _, _ := do(t, http.MethodPost, in.url+"/login/oauth/revoke", formType, form, "Authorization", mine); status != http.StatusOK || alive(c) {
		t.Errorf("revocation: %d, alive %v", status, alive(c))
	}
}

func TestSessionsCodesAndTokensSurviveARestart(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	cfg := in.oauth()
	passwords := 0
	b, err := browse.New(browse.Options{
		Account: browse.Account{Username: "alice", Password: "alice-password"},
		OnPage: func(p browse.Page) error {
			if strings.HasPrefix(p.Title, "Sign in") {
				passwords++
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := b.Walk(t.Context(), cfg.AuthCodeURL("st"), redirectURI)
	if err != nil {
		t.Fatal(err)
	}
	bob := in.signIn(t, "bob")
	spent := bob.RefreshToken
	if bob, err = in.refresh(t, spent); err != nil {
		t.Fatal(err)
	}

	in.restart(t)

	if _, err := cfg.Exchange(t.Context(), got.URL.Query().Get("code")); err != nil {
		t.Errorf("alice's code: %v", err)
	}
	if _, err := b.Walk(t.Context(), cfg.AuthCodeURL("st"), redirectURI); err != nil || passwords != 1 {
		t.Errorf("alice's session: %v, asked for a password %d times", err, passwords)
	}
	var user octohub.User
	if status := in.api(t, "/user", bob.AccessToken, &user); status != 200 || user.Login != "bob-builds" {
		t.Errorf("bob's token: %d %+v", status, user)
	}
	if _, err := in.refresh(t, spent); err == nil {
		t.Error("a token that was spent before the restart worked")
	}
	if status := in.api(t, "/user", bob.AccessToken, &user); status != http.StatusUnauthorized {
		t.Errorf("reuse over a restart did not end the family: %d", status)
	}
}

func TestAdminSwitches(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	alice, bob := in.signIn(t, "alice"), in.signIn(t, "bob")
	var user octohub.User
	if status, _, _ := do(t, http.MethodPost, in.admin+"/revoke-all?user=alice", "", ""); status != 200 {
		t.Fatalf("revoke-all: %d", status)
	}
	if in.api(t, "/user", alice.AccessToken, &user) != 401 || in.api(t, "/user", bob.AccessToken, &user) != 200 {
		t.Error("revoke-all of alice did not end alice's tokens alone")
	}
	if status, _, _ := do(t, http.MethodPut, in.admin+"/faults", "application/json", `{"token":{"mode":"error","error":"bad_refresh_token","times":1}}`); status != 200 {
		t.Fatalf("PUT faults: %d", status)
	}
	if _, err := in.refresh(t, bob.RefreshToken); err == nil {
		t.Error("the refresh worked in spite of the fault")
	}
	if _, err := in.refresh(t, bob.RefreshToken); err != nil {
		t.Errorf("after the fault: %v", err)
	}
	_, _, body := do(t, http.MethodGet, in.admin+"/requests", "", "")
	if !strings.Contains(body, `"refresh_token":{"requests":2,"succeeded":1}`) || !strings.Contains(body, `"authorization_code":{"requests":2,"succeeded":2}`) {
		t.Errorf("counts: %s", body)
	}
	if status, _, _ := do(t, http.MethodPut, in.admin+"/faults", "application/json", `{"authorize":"access_denied"}`); status != 200 {
		t.Fatalf("PUT faults: %d", status)
	}
	got, err := newPerson(t, "alice", nil).Walk(t.Context(), in.oauth().AuthCodeURL("st"), redirectURI)
	if err != nil || got.URL.Query().Get("error") != "access_denied" {
		t.Errorf("a refused authorization: %v, %v", got.URL, err)
	}
}
