package app_test

import (
	"net/http"
	"net/url"
	"sync"
	"testing"

	"chatelaine.dev/internal/fault"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/authserver/internal/app"
)

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
	s.broker.During("TouchSession", func() { s.exec(`UPDATE authserver.refresh_tokens SET expires_at = now()`) }) // after it was looked at
	for range 2 {
		if got := c.refresh(first.RefreshToken); got.Error != "invalid_grant" || got.AccessToken != "" {
			t.Errorf("%+v", got)
		}
	}
	if len(s.broker.Sessions("active")) != 1 {
		t.Error("the session was ended")
	}
	if n := s.broker.Calls("TouchSession"); n != 1 {
		t.Error("a token that had expired already has kept the session alive at the broker")
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
