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
)

func TestAReplayWithoutTheVerifierEndsNothing(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c := s.client()
	code := c.login(s.browser())
	first := c.redeem(code)
	form := c.redemption(code)
	form.Set("code_verifier", strings.Repeat("x", 43))
	if got := c.token(form); got.Error != "invalid_grant" {
		t.Errorf("replay: %+v", got)
	}
	if got := c.redeem("x" + code); got.Error != "invalid_grant" { // its signature fits, and finds it
		t.Errorf("tampered: %+v", got)
	}
	if got := c.refresh(first.RefreshToken); got.status != http.StatusOK {
		t.Errorf("who only saw the code in a URL has ended the session: %+v", got)
	}
}

func TestADatabaseThatInterruptsARefreshIsNoThief(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c, first := s.connected()
	for _, state := range []string{"40001", "40P01", "23505"} {
		s.exec(`CREATE FUNCTION authserver.interrupt() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '` + state + `'; END$$`)
		s.exec(`CREATE TRIGGER interrupt BEFORE INSERT ON authserver.refresh_tokens FOR EACH ROW EXECUTE FUNCTION authserver.interrupt()`)
		if got := c.refresh(first.RefreshToken); got.status != http.StatusServiceUnavailable || got.header.Get("Retry-After") == "" {
			t.Errorf("%s: %+v", state, got)
		}
		s.exec(`DROP FUNCTION authserver.interrupt() CASCADE`)
	}
	if got := c.refresh(first.RefreshToken); got.status != http.StatusOK {
		t.Errorf("afterwards: %+v", got)
	}
}

func TestALockedSessionGoesOnWhenItIsUnlocked(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c, first := s.connected()
	session := s.broker.Sessions("active")[0]
	s.broker.Lock(session, true)
	if got := c.refresh(first.RefreshToken); got.Error != "invalid_grant" || got.status != http.StatusBadRequest {
		t.Errorf("locked: %+v", got)
	}
	s.settle()
	s.broker.Lock(session, false)
	if got := c.refresh(first.RefreshToken); got.status != http.StatusOK {
		t.Errorf("the lock became a logout: %+v", got)
	}
}

func TestWhatDiesHereIsEndedAtTheBrokerAsWell(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c, first := s.connected()
	s.broker.EndNow(s.broker.Sessions("active")[0])
	c.refresh(first.RefreshToken)
	s.settle()
	if n := s.broker.Calls("EndSession"); n != 1 {
		t.Errorf("the broker was told %d times", n)
	}
}

func TestARepeatedRefreshStillSaysWhatItAsksFor(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c := s.client()
	first := c.redeem(c.login(s.browser(), func(q url.Values) { q.Set("scope", "tools admin") }))
	refresh := func(edit func(f url.Values)) tokens {
		form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {first.RefreshToken}}
		edit(form)
		got := c.token(form)
		if got.status != http.StatusOK {
			t.Fatalf("%+v", got)
		}
		return got
	}
	whole := refresh(func(url.Values) {})
	narrow := refresh(func(f url.Values) { f.Set("resource", audience+"/repos"); f.Set("scope", "tools") })
	if narrow.RefreshToken != whole.RefreshToken {
		t.Error("two successors of one refresh token")
	}
	_, claims := s.verified(narrow.AccessToken)
	if !cmp.Equal(claims["aud"], any([]any{audience + "/repos"})) || claims["scope"] != "tools" || narrow.Scope != "tools" {
		t.Errorf("a token for %v with %v, answer %q", claims["aud"], claims["scope"], narrow.Scope)
	}
	if narrow.ExpiresIn > whole.ExpiresIn {
		t.Errorf("it lives for %d s, the first answer's for %d", narrow.ExpiresIn, whole.ExpiresIn)
	}
}

func TestNoTokenOutlivesASessionThatIsAlmostOver(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	s.broker.EndsIn(time.Minute)
	c, first := s.connected()
	check := func(got tokens) {
		t.Helper()
		_, claims := s.verified(got.AccessToken)
		if left := time.Until(time.Unix(int64(claims["exp"].(float64)), 0)); left > time.Minute || got.ExpiresIn > 60 || got.ExpiresIn < 30 {
			t.Errorf("exp in %v, expires_in %d", left, got.ExpiresIn)
		}
		if n := s.count(`SELECT count(*) FROM authserver.refresh_tokens WHERE expires_at > now() + interval '61 seconds'`); n != 0 {
			t.Error("the refresh token outlives the session")
		}
	}
	check(first)
	check(c.refresh(first.RefreshToken))
}

func TestACodeIsNotRedeemedForAnotherUserThanTheChains(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c := s.client()
	code := c.login(s.browser())
	s.broker.NameAs("user-mallory")
	if got := c.redeem(code); got.status != http.StatusInternalServerError || got.AccessToken != "" {
		t.Errorf("%+v", got)
	}
	s.broker.NameAs("")
	if got := c.redeem(code); got.status != http.StatusOK {
		t.Errorf("afterwards: %+v", got)
	}
}

func TestTokensThatAreOverAreNotActive(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c, first := s.connected()
	_, claims := s.verified(first.AccessToken)
	signed := func(iss string, expires time.Time) string {
		claims["iss"], claims["exp"] = iss, expires.Unix()
		token, err := s.server.Keys.Sign("at+jwt", claims)
		s.must(err)
		return token
	}
	c.refresh(first.RefreshToken) // rotates it away
	for name, tt := range map[string]struct {
		token string
		want  bool
	}{
		"a living access token":    {signed(issuer, time.Now().Add(time.Minute)), true},
		"an expired access token":  {signed(issuer, time.Now().Add(-time.Second)), false},
		"one of another issuer":    {signed(issuer+"/other", time.Now().Add(time.Minute)), false},
		"a refresh token, rotated": {first.RefreshToken, false},
	} {
		p := c.post("/oauth/introspect", url.Values{"token": {tt.token}})
		var answer struct{ Active bool }
		s.must(json.Unmarshal([]byte(p.body), &answer))
		if answer.Active != tt.want {
			t.Errorf("%s: active %v", name, answer.Active)
		}
	}
}

func TestACodeThatComesTooLateIsNoReplay(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c := s.client()
	code := c.login(s.browser())
	s.exec(`UPDATE authserver.authorization_codes SET expires_at = now()`)
	if got := c.redeem(code); got.Error != "invalid_grant" {
		t.Errorf("late: %+v", got)
	}
	s.settle()
	if n := s.broker.Calls("EndSession"); n != 0 {
		t.Error("a code that came too late ended a session")
	}
}

func TestWhatIsSealedOpensOnlyWhereItWasSealed(t *testing.T) {
	t.Parallel()
	t.Run("a leg of another login", func(t *testing.T) {
		t.Parallel()
		s := newSystem(t)
		c, b := s.client(), s.browser()
		first := s.broker.SignIn(t, c.approve(b), "alice")
		c.approve(b)
		s.exec(`UPDATE authserver.legs l SET sealed = o.sealed FROM authserver.legs o WHERE o.request_id <> l.request_id`)
		wantStatus(t, b.get(first), http.StatusInternalServerError, "Something went wrong")
		if n := s.broker.Calls("RedeemCode"); n != 0 {
			t.Error("the verifier of another login went to the broker")
		}
	})
	t.Run("an answer of another session", func(t *testing.T) {
		t.Parallel()
		s := newSystem(t)
		c, first := s.connected()
		other := c.redeem(c.login(s.browser()))
		c.refresh(first.RefreshToken)
		_, claims := s.verified(other.AccessToken)
		s.exec(`UPDATE authserver.refresh_tokens SET grant_id = (SELECT id FROM authserver.grants WHERE session_id = $1) WHERE used_at IS NOT NULL`, claims["tsid"])
		if got := c.refresh(first.RefreshToken); got.status != http.StatusInternalServerError || got.AccessToken != "" {
			t.Errorf("%+v", got)
		}
	})
}

func TestAnAnswerThatIsKeptForItsGraceIsNotGivenAfterTheSessionsEnd(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c, first := s.connected()
	second := c.refresh(first.RefreshToken)
	s.exec(`UPDATE authserver.grants SET status = 'ended', ended_at = now()`)
	touched := s.broker.Calls("TouchSession")
	for _, token := range []string{first.RefreshToken, second.RefreshToken} {
		if got := c.refresh(token); got.Error != "invalid_grant" || got.AccessToken != "" {
			t.Errorf("%+v", got)
		}
	}
	if s.broker.Calls("TouchSession") != touched {
		t.Error("the broker was asked to keep a session that is over")
	}
}

func TestACodeOfASessionThatIsOverDoesNotWakeIt(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c := s.client()
	code := c.login(s.browser())
	s.exec(`UPDATE authserver.grants SET status = 'ended', ended_at = now()`) // the broker has not heard of it yet
	if got := c.redeem(code); got.Error != "invalid_grant" {
		t.Errorf("%+v", got)
	}
	if n := s.broker.Calls("ActivateSession"); n != 0 {
		t.Error("the session was made active at the broker")
	}
}

func TestAThiefWhoIsOvertakenInMidRequestIsNoticed(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c, first := s.connected()
	s.broker.During("TouchSession", func() { // the token was good when it was looked at
		if got := c.refresh(c.refresh(first.RefreshToken).RefreshToken); got.status != http.StatusOK {
			t.Errorf("the other: %+v", got)
		}
	})
	if got := c.refresh(first.RefreshToken); got.Error != "invalid_grant" || got.AccessToken != "" {
		t.Errorf("%+v", got)
	}
	s.wantEnded(brokerv1.SessionEndReason_SESSION_END_REASON_REFRESH_TOKEN_REUSED)
}
