package corp_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"chatelaine.dev/examples/corp"
	"chatelaine.dev/examples/people"
)

func mustPeople(t *testing.T, file string) *people.Directory {
	t.Helper()
	d, err := people.Parse([]byte(file))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func errorCode(err error) string {
	if re, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		return re.ErrorCode
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func TestAReusedRefreshTokenEndsTheSignIn(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	first, bob := in.signIn(t, "alice"), in.signIn(t, "bob")
	second, err := in.refresh(t, first.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	if second.RefreshToken == first.RefreshToken || second.AccessToken == first.AccessToken {
		t.Error("nothing was rotated")
	}
	if status, _ := in.userinfo(t, second.AccessToken); status != http.StatusOK {
		t.Fatalf("the new access token: %d", status)
	}
	if _, err := in.refresh(t, first.RefreshToken); errorCode(err) != "invalid_grant" {
		t.Errorf("reuse: %v", err)
	}
	if _, err := in.refresh(t, second.RefreshToken); errorCode(err) != "invalid_grant" {
		t.Errorf("the successor after a reuse: %v", err)
	}
	if status, _ := in.userinfo(t, second.AccessToken); status != http.StatusUnauthorized {
		t.Errorf("the access token after a reuse: %d", status)
	}
	if _, err := in.refresh(t, bob.RefreshToken); err != nil {
		t.Errorf("bob's sign-in was hit: %v", err)
	}
}

func TestWithinTheGraceALostAnswerCanBeAskedForAgain(t *testing.T) {
	t.Parallel()
	in := start(t, func(c *corp.Config) { c.Lifetimes.RefreshGrace = time.Hour })
	first := in.signIn(t, "alice")
	in.adminDo(t, http.MethodPut, "/faults", `{"token":{"mode":"lost","grant":"refresh_token","times":1}}`)
	if tok, err := in.refresh(t, first.RefreshToken); err == nil {
		t.Fatalf("the answer was not lost: %v", tok.Expiry)
	}
	again, err := in.refresh(t, first.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.refresh(t, again.RefreshToken); err != nil {
		t.Errorf("the successor: %v", err)
	}
}

func TestTwoRefreshesAtOnceDoNotBothWin(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	tok := in.signIn(t, "alice")
	cfg, _ := in.oauth(t)
	var wins atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := cfg.TokenSource(t.Context(), &oauth2.Token{RefreshToken: tok.RefreshToken}).Token(); err == nil {
				wins.Add(1)
			} else if errorCode(err) != "invalid_grant" {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if wins.Load() != 1 {
		t.Errorf("%d refreshes won, want 1", wins.Load())
	}
}

func TestAReplayedCodeEndsTheSignInThatItStarted(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	cfg, _ := in.oauth(t)
	verifier := oauth2.GenerateVerifier()
	got, err := newPerson(t, "alice").Walk(t.Context(), cfg.AuthCodeURL("st", oauth2.S256ChallengeOption(verifier)), redirectURI)
	if err != nil {
		t.Fatal(err)
	}
	code := got.URL.Query().Get("code")
	if _, err := cfg.Exchange(t.Context(), code, oauth2.VerifierOption(oauth2.GenerateVerifier())); errorCode(err) != "invalid_grant" {
		t.Errorf("wrong verifier: %v", err)
	}
	if _, err := cfg.Exchange(t.Context(), code); err == nil {
		t.Error("no verifier: accepted")
	}
	tok, err := cfg.Exchange(t.Context(), code, oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cfg.Exchange(t.Context(), code, oauth2.VerifierOption(verifier)); errorCode(err) != "invalid_grant" {
		t.Errorf("replay: %v", err)
	}
	if status, _ := in.userinfo(t, tok.AccessToken); status != http.StatusUnauthorized {
		t.Errorf("the access token after a replay: %d", status)
	}
}

func TestRevocation(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	const client, password = "chatelaine", "secret of CORP_IDP_CLIENT_SECRET"
	tok := in.signIn(t, "alice")

	if status, body := post(t.Context(), t, in.url+"/oauth/revoke", url.Values{"token": {tok.RefreshToken}}, "broker", "secret of CORP_STS_CLIENT_SECRET"); status != http.StatusBadRequest {
		t.Errorf("another client's revocation: %d %v", status, body)
	}
	if status, _ := post(t.Context(), t, in.url+"/oauth/revoke", url.Values{"token": {tok.RefreshToken}}, client, "wrong"); status != http.StatusUnauthorized {
		t.Errorf("wrong secret: %d", status)
	}
	if status, _ := post(t.Context(), t, in.url+"/oauth/revoke", url.Values{"token": {tok.AccessToken}}, client, password); status != http.StatusOK {
		t.Errorf("revoke the access token: %d", status)
	}
	if status, _ := in.userinfo(t, tok.AccessToken); status != http.StatusUnauthorized {
		t.Errorf("a revoked access token: %d", status)
	}
	next, err := in.refresh(t, tok.RefreshToken)
	if err != nil {
		t.Fatalf("the refresh token should have stayed: %v", err)
	}
	if status, _ := post(t.Context(), t, in.url+"/oauth/revoke", url.Values{"token": {next.RefreshToken}, "token_type_hint": {"refresh_token"}}, client, password); status != http.StatusOK {
		t.Errorf("revoke the refresh token: %d", status)
	}
	if status, _ := in.userinfo(t, next.AccessToken); status != http.StatusUnauthorized {
		t.Errorf("the access token of a revoked family: %d", status)
	}
	if status, _ := post(t.Context(), t, in.url+"/oauth/revoke", url.Values{"token": {"never was one"}}, client, password); status != http.StatusOK {
		t.Errorf("an unknown token: %d, want 200 (RFC 7009 section 2.2)", status)
	}
}

func TestIntrospectionIsForTheTokensOwnClient(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	tok := in.signIn(t, "alice")
	for _, c := range []struct {
		client, password string
		active           bool
	}{
		{"chatelaine", "secret of CORP_IDP_CLIENT_SECRET", true},
		{"broker", "secret of CORP_STS_CLIENT_SECRET", false},
	} {
		_, body := post(t.Context(), t, in.url+"/oauth/introspect", url.Values{"token": {tok.AccessToken}}, c.client, c.password)
		if body["active"] != c.active {
			t.Errorf("%s: %v", c.client, body)
		}
	}
}

func TestTokenRequestsThatAreRefused(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	const client, password = "chatelaine", "secret of CORP_IDP_CLIENT_SECRET"
	for name, c := range map[string]struct {
		query, user, password string
		form                  url.Values
		status                int
		code                  string
	}{
		"no grant":            {"", client, password, url.Values{}, 400, "invalid_request"},
		"client grant":        {"", client, password, url.Values{"grant_type": {"client_credentials"}}, 400, "unsupported_grant_type"},
		"JWT grant":           {"", client, password, url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}}, 400, "unsupported_grant_type"},
		"in the query":        {"?client_secret=x", client, password, url.Values{"grant_type": {"refresh_token"}}, 400, "invalid_request"},
		"sent twice":          {"", client, password, url.Values{"grant_type": {"refresh_token", "refresh_token"}}, 400, "invalid_request"},
		"wrong secret":        {"", client, "wrong", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"x"}}, 401, "invalid_client"},
		"unknown client":      {"", "nobody", password, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"x"}}, 401, "invalid_client"},
		"unknown token":       {"", client, password, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"x"}}, 400, "invalid_grant"},
		"not allowed":         {"", "broker", "secret of CORP_STS_CLIENT_SECRET", url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"x"}}, 400, "unauthorized_client"},
		"unknown code":        {"", client, password, url.Values{"grant_type": {"authorization_code"}, "code": {"x"}}, 400, "invalid_grant"},
		"two authentications": {"", client, password, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"x"}, "client_id": {client}, "client_secret": {password}}, 400, "invalid_request"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status, body := post(t.Context(), t, in.url+"/oauth/token"+c.query, c.form, c.user, c.password)
			if status != c.status || body["error"] != c.code {
				t.Errorf("%d %v, want %d %s", status, body, c.status, c.code)
			}
		})
	}
}

func TestKeysTokensAndHalfDoneLoginsSurviveARestart(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	tok := in.signIn(t, "alice")
	spent := tok.RefreshToken
	tok, err := in.refresh(t, spent)
	if err != nil {
		t.Fatal(err)
	}
	cfg, provider := in.oauth(t)
	verifier := oauth2.GenerateVerifier()
	got, err := newPerson(t, "bob").Walk(t.Context(), cfg.AuthCodeURL("st", oauth2.S256ChallengeOption(verifier)), redirectURI)
	if err != nil {
		t.Fatal(err)
	}

	in.restart(t)

	if status, name := in.userinfo(t, tok.AccessToken); status != http.StatusOK || name != "alice" {
		t.Errorf("alice's access token: %d %q", status, name)
	}
	bob, err := cfg.Exchange(t.Context(), got.URL.Query().Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatalf("bob's code: %v", err)
	}
	// The key set that the client fetched before the restart still verifies.
	raw, _ := bob.Extra("id_token").(string)
	if _, err := provider.Verifier(&gooidc.Config{ClientID: "chatelaine"}).Verify(t.Context(), raw); err != nil {
		t.Errorf("the signing key changed: %v", err)
	}
	next, err := in.refresh(t, tok.RefreshToken)
	if err != nil {
		t.Fatalf("alice's refresh token: %v", err)
	}
	if _, err := in.refresh(t, spent); errorCode(err) != "invalid_grant" {
		t.Errorf("a token that was spent before the restart: %v", err)
	}
	if _, err := in.refresh(t, next.RefreshToken); errorCode(err) != "invalid_grant" {
		t.Errorf("reuse over a restart did not end the family: %v", err)
	}
}

func TestAdminSwitches(t *testing.T) {
	t.Parallel()
	in := start(t, nil)
	alice, bob := in.signIn(t, "alice"), in.signIn(t, "bob")
	in.adminPost(t, "/revoke-all?user=alice", "")
	if status, _ := in.userinfo(t, alice.AccessToken); status != http.StatusUnauthorized {
		t.Errorf("alice after revoke-all: %d", status)
	}
	if status, _ := in.userinfo(t, bob.AccessToken); status != http.StatusOK {
		t.Errorf("bob after alice's revoke-all: %d", status)
	}
	in.adminPost(t, "/revoke-all", "")
	if status, _ := in.userinfo(t, bob.AccessToken); status != http.StatusUnauthorized {
		t.Errorf("bob after revoke-all: %d", status)
	}

	cfg, provider := in.oauth(t)
	verify := provider.Verifier(&gooidc.Config{ClientID: "chatelaine"})
	in.adminPost(t, "/rotate-key", "")
	in.adminDo(t, http.MethodPut, "/faults", `{"wrongNonce":true}`)
	raw, _ := in.signIn(t, "alice").Extra("id_token").(string)
	id, err := verify.Verify(t.Context(), raw)
	if err != nil {
		t.Fatalf("after the key's rotation: %v", err)
	}
	if id.Nonce == "n1" {
		t.Error("the nonce is right though it was switched to wrong")
	}
	for _, ahead := range []int{300, -300} {
		in.adminDo(t, http.MethodPut, "/faults", fmt.Sprintf(`{"clockAheadS":%d}`, ahead))
		raw, _ = in.signIn(t, "alice").Extra("id_token").(string)
		if id, err = verify.Verify(t.Context(), raw); err != nil {
			t.Fatal(err)
		}
		if off := time.Until(id.IssuedAt) - time.Duration(ahead)*time.Second; off.Abs() > 30*time.Second {
			t.Errorf("a clock %ds ahead is %s off that", ahead, off)
		}
	}
	in.adminDo(t, http.MethodPut, "/faults", `{"authorize":"access_denied"}`)
	got, err := newPerson(t, "alice").Walk(t.Context(), cfg.AuthCodeURL("st", oauth2.S256ChallengeOption(oauth2.GenerateVerifier())), redirectURI)
	if err != nil || got.URL.Query().Get("error") != "access_denied" || len(got.Steps) != 1 {
		t.Errorf("a refused authorization: %v, %v", got, err)
	}
}
