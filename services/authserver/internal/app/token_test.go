package app_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"chatelaine.dev/internal/fault"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/authserver/internal/app"
	"chatelaine.dev/services/authserver/internal/brokertest"
)

func TestACodeIsGoodOnlyForItsClientWithItsVerifierAndRedirectURI(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c, other := s.client(), s.client()
	code := c.login(s.browser())
	for name, tt := range map[string]struct {
		client *client
		edit   func(f url.Values)
		code   string
	}{
		"another client":       {other, func(url.Values) {}, "invalid_grant"},
		"a wrong verifier":     {c, func(f url.Values) { f.Set("code_verifier", strings.Repeat("x", 43)) }, "invalid_grant"},
		"no verifier":          {c, func(f url.Values) { f.Del("code_verifier") }, "invalid_grant"},
		"a short verifier":     {c, func(f url.Values) { f.Set("code_verifier", "x") }, "invalid_grant"},
		"another redirect URI": {c, func(f url.Values) { f.Set("redirect_uri", "http://127.0.0.1:1/cb") }, "invalid_grant"},
		"no redirect URI":      {c, func(f url.Values) { f.Del("redirect_uri") }, "invalid_grant"},
		"a tampered code":      {c, func(f url.Values) { f.Set("code", "x"+f.Get("code")) }, "invalid_grant"},
		"half a code":          {c, func(f url.Values) { f.Set("code", strings.SplitN(code, ".", 2)[1]) }, "invalid_grant"},
		"no code":              {c, func(f url.Values) { f.Del("code") }, "invalid_grant"},
		"an unknown resource":  {c, func(f url.Values) { f.Set("resource", "https://other.example") }, "invalid_target"},
		"two codes":            {c, func(f url.Values) { f.Add("code", code) }, "invalid_request"},
		"an unknown grant":     {c, func(f url.Values) { f.Set("grant_type", "password") }, "unsupported_grant_type"},
		"no grant":             {c, func(f url.Values) { f.Del("grant_type") }, "invalid_request"},
	} {
		form := c.redemption(code)
		tt.edit(form)
		if got := tt.client.token(form); got.status != http.StatusBadRequest || got.Error != tt.code || got.Description == "" || got.AccessToken != "" {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if n := s.broker.Calls("ActivateSession"); n != 0 {
		t.Errorf("the broker was asked %d times before the checks were done", n)
	}
	if got := c.redeem(code); got.status != http.StatusOK {
		t.Errorf("none of this spends the code: %+v", got)
	}
}

func TestAnUnknownClientIsToldToRegisterAgain(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c := s.client()
	c.id = "nobody"
	if got := c.redeem("x.y"); got.status != http.StatusUnauthorized || got.Error != "invalid_client" {
		t.Errorf("%+v", got)
	}
	c.id = "a\x00b"
	if got := c.redeem("x.y"); got.status != http.StatusUnauthorized || got.Error != "invalid_client" {
		t.Errorf("%+v", got)
	}
}

func TestADatabaseThatIsDownIsNotAnUnknownClient(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c := s.client()
	code := c.login(s.browser())
	s.exec(`ALTER TABLE authserver.clients RENAME TO gone`)
	if got := c.redeem(code); got.status < 500 || got.Error == "invalid_client" {
		t.Errorf("%+v", got)
	}
	wantStatus(t, s.browser().get(c.query()), http.StatusInternalServerError, "Something went wrong", "Reference")
	s.exec(`ALTER TABLE authserver.gone RENAME TO clients`)
	if got := c.redeem(code); got.status != http.StatusOK {
		t.Errorf("afterwards: %+v", got)
	}
}

func TestABrokerThatIsDownCostsNoToken(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c := s.client()
	code := c.login(s.browser())
	want503 := func(got tokens) {
		t.Helper()
		if got.status != http.StatusServiceUnavailable || got.Error != "temporarily_unavailable" || got.header.Get("Retry-After") == "" {
			t.Errorf("%+v", got)
		}
	}
	s.broker.Fail(fault.New(fault.Unavailable, "down"))
	want503(c.redeem(code))
	s.broker.Fail(nil)
	first := c.redeem(code)
	if first.status != http.StatusOK {
		t.Fatalf("the code was spent: %+v", first)
	}
	s.broker.Fail(fault.New(fault.Unavailable, "down"))
	want503(c.refresh(first.RefreshToken))
	s.broker.Fail(nil)
	if got := c.refresh(first.RefreshToken); got.status != http.StatusOK {
		t.Errorf("the refresh token was spent: %+v", got)
	}
}

func TestACodeThatComesTwiceEndsTheSessionEverywhere(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c := s.client()
	code := c.login(s.browser())
	first := c.redeem(code)
	if got := c.redeem(code); got.Error != "invalid_grant" || got.status != http.StatusBadRequest {
		t.Errorf("replay: %+v", got)
	}
	s.wantEnded(brokerv1.SessionEndReason_SESSION_END_REASON_CODE_REPLAYED)
	if got := c.refresh(first.RefreshToken); got.Error != "invalid_grant" {
		t.Errorf("the refresh token lives on: %+v", got)
	}
}

func TestSomebodyElsesReplayEndsNothing(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c, stranger := s.client(), s.client()
	code := c.login(s.browser())
	first := c.redeem(code)
	if got := stranger.redeem(code); got.Error != "invalid_grant" {
		t.Errorf("stranger: %+v", got)
	}
	if got := c.refresh(first.RefreshToken); got.status != http.StatusOK {
		t.Errorf("the owner's session was ended by a stranger: %+v", got)
	}
}

func TestOfTwoRedemptionsAtOnceOneGetsTokens(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c := s.client()
	code := c.login(s.browser())
	var mu sync.Mutex
	codes := map[string]int{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			got := c.redeem(code)
			mu.Lock()
			defer mu.Unlock()
			codes[got.Error]++
		})
	}
	wg.Wait()
	if codes[""] != 1 || codes["invalid_grant"] != 7 {
		t.Errorf("answers %v, want one with tokens and seven invalid_grant", codes)
	}
	if n := s.count(`SELECT count(*) FROM authserver.refresh_tokens`); n != 1 {
		t.Errorf("%d refresh tokens stored, want 1", n)
	}
	s.wantEnded(brokerv1.SessionEndReason_SESSION_END_REASON_CODE_REPLAYED)
}

func TestARefreshRotatesTheTokenAndKeepsTheSession(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c, first := s.connected()
	second := c.refresh(first.RefreshToken)
	if second.status != http.StatusOK || second.RefreshToken == "" || second.RefreshToken == first.RefreshToken || second.Scope != "tools" || second.ExpiresIn < 3590 {
		t.Fatalf("%+v", second)
	}
	_, before := s.verified(first.AccessToken)
	_, after := s.verified(second.AccessToken)
	if before["jti"] == after["jti"] || before["tsid"] != after["tsid"] || before["sub"] != after["sub"] {
		t.Errorf("claims %v, then %v", before, after)
	}
	if got := c.refresh(second.RefreshToken); got.status != http.StatusOK {
		t.Errorf("the successor does not work: %+v", got)
	}
	s.notLogged(first.RefreshToken, second.RefreshToken, second.AccessToken)
}

func TestARepeatedRefreshGetsTheSameSuccessor(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c, first := s.connected()
	second, again := c.refresh(first.RefreshToken), c.refresh(first.RefreshToken)
	if again.status != http.StatusOK || again.RefreshToken != second.RefreshToken || again.AccessToken != second.AccessToken {
		t.Errorf("first %+v, again %+v", second, again)
	}
	var answers sync.Map
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			got := c.refresh(second.RefreshToken)
			if got.status != http.StatusOK {
				t.Errorf("%+v", got)
			}
			answers.Store(got.RefreshToken, true)
		})
	}
	wg.Wait()
	n := 0
	answers.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("eight requests at once got %d different successors, want 1", n)
	}
	if n := s.count(`SELECT count(*) FROM authserver.refresh_tokens WHERE used_at IS NULL`); n != 1 {
		t.Errorf("%d living refresh tokens, want 1", n)
	}
	if len(s.broker.Sessions("active")) != 1 {
		t.Error("the session has ended")
	}
}

func TestAStolenRefreshTokenEndsTheSession(t *testing.T) {
	t.Parallel()
	for name, use := range map[string]func(s *system, c *client, first, second tokens){
		"after its successor was used": func(s *system, c *client, _, second tokens) {
			if got := c.refresh(second.RefreshToken); got.status != http.StatusOK {
				s.t.Fatalf("%+v", got)
			}
		},
		"after the grace window": func(s *system, _ *client, _, _ tokens) {
			s.exec(`UPDATE authserver.refresh_tokens SET used_at = now() - interval '61 seconds' WHERE used_at IS NOT NULL`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSystem(t)
			c, first := s.connected()
			second := c.refresh(first.RefreshToken)
			use(s, c, first, second)
			if got := c.refresh(first.RefreshToken); got.Error != "invalid_grant" {
				t.Errorf("%+v", got)
			}
			s.wantEnded(brokerv1.SessionEndReason_SESSION_END_REASON_REFRESH_TOKEN_REUSED)
			if got := c.refresh(second.RefreshToken); got.Error != "invalid_grant" {
				t.Errorf("the thief's, or the owner's, other token works: %+v", got)
			}
		})
	}
}

func TestWithoutAGraceEveryReuseEndsTheSession(t *testing.T) {
	t.Parallel()
	s := newSystemWith(t, options{flags: func(f *app.Flags) { f.RefreshGrace = 0 }})
	c, first := s.connected()
	c.refresh(first.RefreshToken)
	if got := c.refresh(first.RefreshToken); got.Error != "invalid_grant" {
		t.Errorf("%+v", got)
	}
	s.wantEnded(brokerv1.SessionEndReason_SESSION_END_REASON_REFRESH_TOKEN_REUSED)
}

func TestARefreshTokenIsOnlyForItsClient(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c, first := s.connected()
	stranger := s.client()
	for _, token := range []string{first.RefreshToken, "x" + first.RefreshToken, "", "a.b"} {
		if got := stranger.refresh(token); got.Error != "invalid_grant" {
			t.Errorf("%+v", got)
		}
	}
	if got := c.refresh(first.RefreshToken); got.status != http.StatusOK {
		t.Errorf("%+v", got)
	}
}

func TestAnExpiredRefreshTokenIsNoReuse(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c, first := s.connected()
	s.exec(`UPDATE authserver.refresh_tokens SET expires_at = now()`)
	if got := c.refresh(first.RefreshToken); got.Error != "invalid_grant" {
		t.Errorf("%+v", got)
	}
	if len(s.broker.Sessions("active")) != 1 {
		t.Error("the session was ended")
	}
}

func TestASessionThatTheBrokerEndedCannotBeRefreshed(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c, first := s.connected()
	s.broker.EndNow(s.broker.Sessions("active")[0])
	if got := c.refresh(first.RefreshToken); got.Error != "invalid_grant" || got.status != http.StatusBadRequest {
		t.Errorf("%+v", got)
	}
	if n := s.count(`SELECT count(*) FROM authserver.grants WHERE status = 'ended'`); n != 1 {
		t.Error("the grant is not dead")
	}
}

func TestACodeWhoseSessionIsGoneIsRefusedForGood(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c := s.client()
	code := c.login(s.browser())
	s.broker.EndNow(s.broker.Sessions("pending")[0])
	for range 2 {
		if got := c.redeem(code); got.Error != "invalid_grant" {
			t.Errorf("%+v", got)
		}
	}
}

func TestOnlyACertainNoOfTheBrokerEndsASession(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c, first := s.connected()
	for name, err := range map[string]error{
		"a certificate that is not let in": fault.New(fault.Denied, "no").WithReason("peer_denied"),
		"a broker that is broken":          fault.New(fault.Internal, ""),
		"a broker of another version":      fault.New(fault.Unimplemented, ""),
		"a call that took too long":        fault.New(fault.Timeout, ""),
	} {
		s.broker.Fail(err)
		if got := c.refresh(first.RefreshToken); got.status != http.StatusServiceUnavailable {
			t.Errorf("%s: %+v", name, got)
		}
	}
	s.broker.Fail(nil)
	if got := c.refresh(first.RefreshToken); got.status != http.StatusOK {
		t.Errorf("afterwards: %+v", got)
	}
	code := c.login(s.browser())
	s.broker.Fail(fault.New(fault.Precondition, "a required provider is missing").WithReason("PROVIDER_REQUIRED"))
	if got := c.redeem(code); got.Error != "invalid_grant" {
		t.Errorf("a session that can never be active: %+v", got)
	}
	s.broker.Fail(nil)
	s.wantEnded(brokerv1.SessionEndReason_SESSION_END_REASON_CHAIN_FAILED)
}

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

func TestARefreshMayAskForFewerScopes(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c := s.client()
	first := c.redeem(c.login(s.browser(), func(q url.Values) { q.Set("scope", "tools admin") }))
	less := c.token(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {first.RefreshToken}, "scope": {"admin offline_access"}})
	if _, claims := s.verified(less.AccessToken); claims["scope"] != "admin" || less.Scope != "admin" {
		t.Errorf("scope %v, answer %q", claims["scope"], less.Scope)
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

func TestAClientThatDidNotRegisterRefreshGetsNone(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c := s.clientWith(`{"redirect_uris":["http://127.0.0.1:1/cb"]}`)
	got := c.redeem(c.login(s.browser(), func(q url.Values) { q.Set("scope", "tools offline_access") }))
	if got.status != http.StatusOK || got.RefreshToken != "" {
		t.Errorf("%+v", got)
	}
	if got := c.refresh("a.b"); got.Error != "unauthorized_client" {
		t.Errorf("%+v", got)
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

func TestTheSweeperEndsTheSessionsOfCodesThatNobodyRedeemed(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.client().login(s.browser())
	s.exec(`UPDATE authserver.grants SET tokens_until = now() - interval '2 minutes'`)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.server.Sweeper.Run(ctx) })
	wg.Go(func() { _ = s.server.Outbox.Run(ctx) })
	deadline := time.Now().Add(10 * time.Second)
	for len(s.broker.Sessions("ended")) == 0 && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
	cancel()
	wg.Wait()
	s.wantEnded(brokerv1.SessionEndReason_SESSION_END_REASON_CHAIN_FAILED)
}
