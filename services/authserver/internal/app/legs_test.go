package app_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"chatelaine.dev/internal/fault"
	brokerv1 "chatelaine.dev/proto/broker/v1"
)

// legFailures are the ways in which a provider lets a login down.
func legFailures() map[string]struct {
	prepare func(s *system)
	spoil   func(callback string) string
	skip    brokerv1.SkipReason
	oauth   string
} {
	type failure = struct {
		prepare func(s *system)
		spoil   func(callback string) string
		skip    brokerv1.SkipReason
		oauth   string
	}
	edit := func(change func(q url.Values)) func(string) string {
		return func(callback string) string {
			target, query, _ := strings.Cut(callback, "?")
			q, _ := url.ParseQuery(query)
			change(q)
			return target + "?" + q.Encode()
		}
	}
	problem := func(code string) func(string) string {
		return edit(func(q url.Values) {
			q.Del("code")
			q.Set("error", code)
			q.Set("error_description", "<b>secret-upstream-text</b>")
		})
	}
	upstream := func(kind fault.Kind, reason string) func(s *system) {
		return func(s *system) {
			s.broker.FailRedemption(fault.New(kind, "secret-upstream-text").WithReason(reason))
		}
	}
	same := func(callback string) string { return callback }
	none := func(*system) {}
	const (
		declined    = brokerv1.SkipReason_SKIP_REASON_DECLINED
		failed      = brokerv1.SkipReason_SKIP_REASON_FAILED
		unavailable = brokerv1.SkipReason_SKIP_REASON_UNAVAILABLE
	)
	return map[string]failure{
		"the person refuses there":   {none, problem("access_denied"), declined, "access_denied"},
		"an error":                   {none, problem("invalid_scope"), failed, "server_error"},
		"it is down":                 {none, problem("temporarily_unavailable"), unavailable, "temporarily_unavailable"},
		"no code":                    {none, edit(func(q url.Values) { q.Del("code") }), failed, "server_error"},
		"two codes":                  {none, edit(func(q url.Values) { q.Add("code", "another") }), failed, "server_error"},
		"an oversize code":           {none, edit(func(q url.Values) { q.Set("code", strings.Repeat("x", 5000)) }), failed, "server_error"},
		"a tampered code":            {none, edit(func(q url.Values) { q.Set("code", "tampered") }), failed, "server_error"},
		"another issuer":             {none, edit(func(q url.Values) { q.Set("iss", "https://evil.example") }), failed, "access_denied"},
		"the token endpoint is mute": {upstream(fault.Unavailable, "UPSTREAM_UNAVAILABLE"), same, unavailable, "temporarily_unavailable"},
		"a foreign nonce":            {upstream(fault.Precondition, "IDENTITY_INVALID"), same, failed, "access_denied"},
		"the redemption is refused":  {upstream(fault.Precondition, "UPSTREAM_REFUSED"), same, failed, "server_error"},
	}
}

func TestARequiredProviderThatFailsEndsTheLoginAndNothingIsLeft(t *testing.T) {
	t.Parallel()
	for name, tt := range legFailures() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSystem(t)
			b := s.browser()
			callback := s.broker.SignIn(t, s.client().approve(b), "alice")
			tt.prepare(s)
			p := b.get(tt.spoil(callback))
			wantStatus(t, p, http.StatusSeeOther)
			q := s.clientAnswer(p.location)
			if q.Get("error") != tt.oauth || !strings.Contains(q.Get("error_description"), "corp") || strings.Contains(p.location, "secret-upstream-text") {
				t.Errorf("answer %v, want %s", q, tt.oauth)
			}
			s.wantEnded(brokerv1.SessionEndReason_SESSION_END_REASON_CHAIN_FAILED)
			s.nothingLeft()
			s.wantRecord("corp", tt.skip)
		})
	}
}

// wantRecord checks that the leg that ended the one session is on record, once.
// Where the broker has refused its code the reason is the broker's.
func (s *system) wantRecord(provider string, reason brokerv1.SkipReason) {
	s.t.Helper()
	failures := s.broker.Failures(s.broker.Sessions("ended")[0])
	if len(failures) != 1 || failures[0].GetProvider() != provider || (failures[0].GetReason() != reason && failures[0].GetReason() != 0) {
		s.t.Errorf("failed legs on record: %v, want one of %s because of %v", failures, provider, reason)
	}
}

func TestAnOptionalProviderThatFailsIsSkippedAndTheLoginGoesOn(t *testing.T) {
	t.Parallel()
	for name, tt := range legFailures() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSystem(t)
			// iss is compared with an OAuth 2.0 provider's issuer where it has one.
			s.broker.Change("octohub", func(p *brokerv1.Provider) { p.Issuer = "https://octohub.example" })
			c, b := s.client(), s.browser()
			second := b.get(s.broker.SignIn(t, c.approve(b), "alice"))
			callback := s.broker.SignIn(t, second.location, "alice")
			tt.prepare(s)
			p := b.get(tt.spoil(callback))
			wantStatus(t, p, http.StatusSeeOther)
			got := c.redeem(s.clientAnswer(p.location).Get("code"))
			if got.status != http.StatusOK {
				t.Fatalf("tokens %+v", got)
			}
			if skips := s.broker.Skips(s.broker.Sessions("active")[0]); skips["octohub"] != tt.skip {
				t.Errorf("skipped because of %v, want %v", skips["octohub"], tt.skip)
			}
		})
	}
}

func TestAMissingIssIsAFailureOnlyWhereItWasPromised(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		required  bool
		iss, want string
	}{
		{true, "", "access_denied"},
		{true, "https://corp.example", ""},
		{false, "", ""},
		{false, "https://corp.example", ""},
		{false, "https://corp.example/", "access_denied"},
	} {
		s := newSystem(t)
		s.broker.Change("corp", func(p *brokerv1.Provider) { p.ResponseIssRequired = tt.required })
		b := s.browser()
		callback := s.broker.SignIn(t, s.client().approve(b), "alice")
		if tt.iss != "" {
			callback += "&iss=" + url.QueryEscape(tt.iss)
		}
		p := b.get(callback)
		if tt.want == "" {
			if !strings.HasPrefix(p.location, "https://octohub.example/") {
				t.Errorf("%+v: %d %s", tt, p.status, p.location)
			}
			continue
		}
		if q := s.clientAnswer(p.location); q.Get("error") != tt.want {
			t.Errorf("%+v: %v", tt, q)
		}
	}
}

func TestAProviderThatIsUnavailableFromTheStart(t *testing.T) {
	t.Parallel()
	t.Run("optional: said on the page and skipped", func(t *testing.T) {
		t.Parallel()
		s := newSystem(t)
		s.broker.Change("octohub", func(p *brokerv1.Provider) { p.UnavailableReason = "secret-upstream-text" })
		c, b := s.client(), s.browser()
		consent := b.get(c.query())
		wantStatus(t, consent, http.StatusOK, "not available now")
		p := b.get(s.broker.SignIn(t, b.answer(consent, "approve").location, "alice"))
		if got := c.redeem(s.clientAnswer(p.location).Get("code")); got.status != http.StatusOK {
			t.Errorf("tokens %+v", got)
		}
		if skips := s.broker.Skips(s.broker.Sessions("active")[0]); skips["octohub"] != brokerv1.SkipReason_SKIP_REASON_UNAVAILABLE {
			t.Errorf("skips %v", skips)
		}
	})
	t.Run("required: the client is told to try again", func(t *testing.T) {
		t.Parallel()
		s := newSystem(t)
		s.broker.Change("corp", func(p *brokerv1.Provider) { p.UnavailableReason = "secret-upstream-text" })
		p := s.browser().get(s.client().query())
		if q := s.clientAnswer(p.location); q.Get("error") != "temporarily_unavailable" || strings.Contains(p.location, "secret") {
			t.Errorf("answer %v", q)
		}
		s.nothingLeft()
	})
}

func TestABrokerThatIsDownIsTemporary(t *testing.T) {
	t.Parallel()
	down := fault.New(fault.Unavailable, "down")
	t.Run("at the start", func(t *testing.T) {
		t.Parallel()
		s := newSystem(t)
		c := s.client()
		s.broker.Fail(down)
		if q := s.clientAnswer(s.browser().get(c.query()).location); q.Get("error") != "temporarily_unavailable" {
			t.Errorf("answer %v", q)
		}
		s.broker.Fail(nil)
		s.nothingLeft()
	})
	t.Run("at the approval", func(t *testing.T) {
		t.Parallel()
		s := newSystem(t)
		b := s.browser()
		consent := b.get(s.client().query())
		s.broker.Fail(down)
		wantStatus(t, b.answer(consent, "approve"), http.StatusServiceUnavailable, "reload this page", "Reference")
		s.broker.Fail(nil)
		if p := b.answer(consent, "approve"); !strings.HasPrefix(p.location, "https://corp.example/") {
			t.Errorf("the same form again: %d %s", p.status, p.body)
		}
	})
	t.Run("in a leg: the browser walks it anew", func(t *testing.T) {
		t.Parallel()
		s := newSystem(t)
		c, b := s.client(), s.browser()
		callback := s.broker.SignIn(t, c.approve(b), "alice")
		s.broker.Fail(down)
		wantStatus(t, b.get(callback), http.StatusServiceUnavailable, "reload this page", "Reference")
		wantStatus(t, s.browser().get(callback), http.StatusForbidden)
		s.broker.Fail(nil)
		p := b.get(callback)
		for range 2 {
			wantStatus(t, p, http.StatusSeeOther)
			p = b.get(s.broker.SignIn(t, p.location, "alice"))
		}
		if got := c.redeem(s.clientAnswer(p.location).Get("code")); got.status != http.StatusOK {
			t.Errorf("tokens %+v", got)
		}
		if n := len(s.broker.Sessions("active")); n != 1 || len(s.broker.Sessions("pending")) != 0 {
			t.Errorf("%d sessions are active, want the one of the login", n)
		}
	})
	for name, spoil := range map[string]func(string) string{
		"in an optional leg: it is not skipped for that":  func(callback string) string { return callback },
		"when an optional leg was refused: it can change": func(callback string) string { return strings.Replace(callback, "code=", "error=access_denied&c=", 1) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSystem(t)
			c, b := s.client(), s.browser()
			second := b.get(s.broker.SignIn(t, c.approve(b), "alice"))
			callback := spoil(s.broker.SignIn(t, second.location, "alice"))
			s.broker.Fail(down)
			wantStatus(t, b.get(callback), http.StatusServiceUnavailable, "reload this page")
			s.broker.Fail(nil)
			p := b.get(s.broker.SignIn(t, b.get(callback).location, "alice"))
			if got := c.redeem(s.clientAnswer(p.location).Get("code")); got.status != http.StatusOK {
				t.Errorf("tokens %+v", got)
			}
			if skips := s.broker.Skips(s.broker.Sessions("active")[0]); len(skips) != 0 {
				t.Errorf("skipped %v", skips)
			}
		})
	}
	t.Run("when a leg was refused: the session ends once the broker is back", func(t *testing.T) {
		t.Parallel()
		s := newSystem(t)
		b := s.browser()
		callback := s.broker.SignIn(t, s.client().approve(b), "alice")
		s.broker.Fail(down)
		if q := s.clientAnswer(b.get(strings.Replace(callback, "code=", "error=access_denied&c=", 1)).location); q.Get("error") != "access_denied" {
			t.Errorf("answer %v", q)
		}
		s.settle()
		if n := s.count(`SELECT count(*) FROM authserver.session_ends WHERE attempts = 1 AND next_attempt_at > now()`); n != 1 {
			t.Errorf("%d ends wait for another try, want 1", n)
		}
		s.broker.Fail(nil)
		s.exec(`UPDATE authserver.session_ends SET next_attempt_at = now()`)
		s.wantEnded(brokerv1.SessionEndReason_SESSION_END_REASON_CHAIN_FAILED)
		s.nothingLeft()
		s.wantRecord("corp", brokerv1.SkipReason_SKIP_REASON_DECLINED)
	})
}
