package app_test

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"chatelaine.dev/internal/fault"
	brokerv1 "chatelaine.dev/proto/broker/v1"
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

// While the broker's keys are changed, one replica may lack the key that another has
// sealed a login with. The next request meets another replica.
func TestABrokerThatCannotOpenALoginNowCostsNoCode(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c := s.client()
	code := c.login(s.browser())
	for _, err := range []error{
		fault.New(fault.Precondition, "no such key").WithReason("seal_key_unknown"),
		fault.New(fault.Precondition, "of a later version").WithReason("NEW_REASON"),
		fault.New(fault.Precondition, "no reason"),
	} {
		s.broker.Fail(err)
		if got := c.redeem(code); got.status != http.StatusServiceUnavailable || got.Error != "temporarily_unavailable" {
			t.Errorf("%v: %d %s", err, got.status, got.Error)
		}
	}
	s.broker.Fail(nil)
	if got := c.redeem(code); got.status != http.StatusOK {
		t.Errorf("at the next try: %d %s", got.status, got.Error)
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
	for _, verifier := range []string{stranger.verifier, c.verifier} {
		stranger.verifier = verifier
		if got := stranger.redeem(code); got.Error != "invalid_grant" {
			t.Errorf("stranger: %+v", got)
		}
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
