package app_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/authserver/internal/brokertest"
)

func TestTokensCanBeNarrowedToABackendAndNeverWidened(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c := s.client()
	redeem := func(code string, resources ...string) tokens {
		form := c.redemption(code)
		form["resource"] = resources
		return c.token(form)
	}
	aud := func(got tokens) any {
		t.Helper()
		if got.status != http.StatusOK {
			t.Fatalf("%+v", got)
		}
		_, claims := s.verified(got.AccessToken)
		return claims["aud"]
	}
	got := redeem(c.login(s.browser()), audience+"/repos")
	if !cmp.Equal(aud(got), any([]any{audience + "/repos"})) {
		t.Errorf("narrowed: %v", aud(got))
	}
	// The grant keeps what was approved: a refresh may have all of it again.
	if whole := aud(c.refresh(got.RefreshToken)); !cmp.Equal(whole, any([]any{audience})) {
		t.Errorf("refreshed: %v", whole)
	}
	narrow := func(q url.Values) { q.Set("resource", audience+"/repos") }
	code := c.login(s.browser(), narrow)
	if got := redeem(code, audience); got.Error != "invalid_target" {
		t.Errorf("widened: %+v", got)
	}
	got = redeem(code, audience+"/repos")
	aud(got)
	form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {got.RefreshToken}, "resource": {audience}}
	if got := c.token(form); got.Error != "invalid_target" {
		t.Errorf("widened by refresh: %+v", got)
	}
}

func TestConfidentialClientsMustProveThemselves(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	for _, method := range []string{"client_secret_basic", "client_secret_post"} {
		c := s.clientWith(`{"redirect_uris":["http://127.0.0.1:1/cb"],"grant_types":["authorization_code","refresh_token"],"token_endpoint_auth_method":"` + method + `"}`)
		code := c.login(s.browser())
		right := c.secret
		c.secret = "wrong"
		got := c.redeem(code)
		if got.status != http.StatusUnauthorized || got.Error != "invalid_client" || (method == "client_secret_basic") != (got.header.Get("WWW-Authenticate") != "") {
			t.Errorf("%s with a wrong secret: %+v", method, got)
		}
		c.secret, c.method = right, "none"
		if got := c.redeem(code); got.Error != "invalid_client" {
			t.Errorf("%s without a secret: %+v", method, got)
		}
		c.method = method
		if got := c.redeem(code); got.status != http.StatusOK {
			t.Errorf("%s: %+v", method, got)
		}
		s.notLogged(right)
	}
}

func TestRevokingAnyTokenEndsTheSession(t *testing.T) {
	t.Parallel()
	for name, pick := range map[string]func(tokens) string{
		"refresh token": func(t tokens) string { return t.RefreshToken },
		"access token":  func(t tokens) string { return t.AccessToken },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSystem(t)
			c, got := s.connected()
			stranger := s.client()
			wantStatus(t, stranger.post("/oauth/revoke", url.Values{"token": {pick(got)}}), http.StatusBadRequest, "unauthorized_client")
			if len(s.broker.Sessions("active")) != 1 {
				t.Fatal("a stranger ended the session")
			}
			wantStatus(t, c.post("/oauth/revoke", url.Values{"token": {pick(got)}, "token_type_hint": {"nonsense"}}), http.StatusOK)
			s.wantEnded(brokerv1.SessionEndReason_SESSION_END_REASON_CLIENT_REVOKED)
			if got := c.refresh(got.RefreshToken); got.Error != "invalid_grant" {
				t.Errorf("%+v", got)
			}
			wantStatus(t, c.post("/oauth/revoke", url.Values{"token": {pick(got)}}), http.StatusOK) // again is no error
			wantStatus(t, c.post("/oauth/revoke", url.Values{"token": {"unknown"}}), http.StatusOK)
			wantStatus(t, c.post("/oauth/revoke", url.Values{}), http.StatusBadRequest, "invalid_request")
			c.id = "nobody"
			wantStatus(t, c.post("/oauth/revoke", url.Values{"token": {"x"}}), http.StatusUnauthorized, "invalid_client")
		})
	}
}

func TestAClientLearnsOfItsOwnTokensAlone(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c, got := s.connected()
	ask := func(c *client, token string) map[string]any {
		t.Helper()
		p := c.post("/oauth/introspect", url.Values{"token": {token}})
		wantStatus(t, p, http.StatusOK)
		var answer map[string]any
		s.must(json.Unmarshal([]byte(p.body), &answer))
		return answer
	}
	for _, token := range []string{got.AccessToken, got.RefreshToken} {
		if answer := ask(c, token); answer["active"] != true || answer["client_id"] != c.id || answer["sub"] != "user-alice" || answer["scope"] != "tools" {
			t.Errorf("own token: %v", answer)
		}
		if answer := ask(s.client(), token); len(answer) != 1 || answer["active"] != false {
			t.Errorf("a stranger learns %v", answer)
		}
	}
	if answer := ask(c, "unknown"); answer["active"] != false {
		t.Errorf("unknown: %v", answer)
	}
	c.post("/oauth/revoke", url.Values{"token": {got.RefreshToken}})
	for _, token := range []string{got.AccessToken, got.RefreshToken} {
		if answer := ask(c, token); len(answer) != 1 || answer["active"] != false {
			t.Errorf("after the end: %v", answer)
		}
	}
}

func TestTheTokenEndpointTakesFormsOfBoundedSize(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c := s.client()
	if got := c.token(url.Values{"grant_type": {"authorization_code"}, "code": {strings.Repeat("x", 70<<10)}}); got.status != http.StatusRequestEntityTooLarge || got.Error != "invalid_request" {
		t.Errorf("oversize: %+v", got)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.local("/oauth/token"), strings.NewReader(`{"grant_type":"authorization_code"}`))
	s.must(err)
	r.Header.Set("Content-Type", "application/json")
	wantStatus(t, s.browser().do(r), http.StatusBadRequest, "application/x-www-form-urlencoded")
	wantStatus(t, s.browser().get("/oauth/token"), http.StatusMethodNotAllowed)
}

func TestNoTokenOutlivesTheSession(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	_, got := s.connected()
	var left time.Duration
	s.must(s.pool.QueryRow(t.Context(), `SELECT expires_at - now() FROM authserver.grants`).Scan(&left))
	if left > brokertest.SessionLife || left < brokertest.SessionLife-time.Minute {
		t.Errorf("the grant lives for %v, the session for %v", left, brokertest.SessionLife)
	}
	if got.ExpiresIn > int(left.Seconds()) {
		t.Error("the access token outlives the session")
	}
}
