package app_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	brokerv1 "chatelaine.dev/proto/broker/v1"
)

func TestThePersonIsToldInWordsThatTheApplicationStaysConnected(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	for scope, want := range map[string]bool{"tools offline_access": true, "": true, "tools": false} {
		p := s.browser().get(s.client().query(func(q url.Values) { q.Set("scope", scope) }))
		wantStatus(t, p, http.StatusOK, "<code>tools</code>")
		if said := strings.Contains(p.body, "until you end it"); said != want || strings.Contains(p.body, "<code>offline_access") {
			t.Errorf("%q: said %v, want %v\n%s", scope, said, want, p.body)
		}
	}
}

func TestDenyingLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	b := s.browser()
	p := b.answer(b.get(s.client().query()), "deny")
	wantStatus(t, p, http.StatusSeeOther)
	if q := s.clientAnswer(p.location); q.Get("error") != "access_denied" || q.Get("error_description") == "" {
		t.Errorf("answer %v", q)
	}
	s.nothingLeft()
}

func TestAFormOfAnotherBrowserOrRequestIsRefused(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c, b, stranger := s.client(), s.browser(), s.browser()
	mine, other, strangers := b.get(c.query()), b.get(c.query()), stranger.get(c.query())
	field := func(p page, name string) string {
		for _, f := range hidden.FindAllStringSubmatch(p.body, -1) {
			if f[1] == name {
				return f[2]
			}
		}
		return ""
	}
	for name, form := range map[string]url.Values{
		"a stranger's token":      {"request": {field(mine, "request")}, "csrf": {field(strangers, "csrf")}},
		"another request's token": {"request": {field(mine, "request")}, "csrf": {field(other, "csrf")}},
		"no token":                {"request": {field(mine, "request")}},
		"a garbled token":         {"request": {field(mine, "request")}, "csrf": {"%%%"}},
		"a stranger's request":    {"request": {field(strangers, "request")}, "csrf": {field(strangers, "csrf")}},
	} {
		form.Set("decision", "approve")
		p := b.post("/oauth/consent", form)
		if p.status != http.StatusForbidden || !strings.Contains(p.body, "This form is not valid") {
			t.Errorf("%s: %d", name, p.status)
		}
	}
	wantStatus(t, s.browser().post("/oauth/consent", url.Values{"request": {field(mine, "request")}, "csrf": {field(mine, "csrf")}, "decision": {"approve"}}),
		http.StatusForbidden, "not known here")
	wantStatus(t, b.post("/oauth/confirm", url.Values{"request": {field(mine, "request")}, "csrf": {field(mine, "csrf")}, "decision": {"confirm"}}),
		http.StatusForbidden, "This form is not valid")
	wantStatus(t, b.post("/oauth/consent", url.Values{"request": {strings.Repeat("x", 20_000)}}), http.StatusRequestEntityTooLarge)
	wantStatus(t, b.answer(mine, "perhaps"), http.StatusForbidden, "This form is not valid")
	wantStatus(t, b.get("/oauth/confirm?request="+field(mine, "request")), http.StatusOK, "Approve and sign in") // still asked
	if n := s.broker.Calls("BeginSession"); n != 0 {
		t.Errorf("%d sessions begun", n)
	}
}

func TestApprovingTwiceGoesOnWithOneSession(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c, b := s.client(), s.browser()
	consent := b.get(c.query())
	first, second := b.answer(consent, "approve"), b.answer(consent, "approve")
	wantStatus(t, b.get(s.broker.SignIn(t, first.location, "alice")), http.StatusBadRequest)
	if p := b.get(s.broker.SignIn(t, second.location, "alice")); !strings.HasPrefix(p.location, "https://octohub.example/") {
		t.Errorf("the second click's leg: %d %s", p.status, p.location)
	}
	if n := len(s.broker.Sessions("pending")); n != 1 {
		t.Errorf("%d pending sessions, want 1", n)
	}
}

func TestAnotherAccountThanBeforeIsConfirmedBeforeTheCode(t *testing.T) {
	t.Parallel()
	arrive := func(t *testing.T) (*system, *client, *browser, page) {
		t.Helper()
		s := newSystem(t)
		s.broker.Connected("alice", "octohub", "alice-before")
		c, b := s.client(), s.browser()
		second := b.get(s.broker.SignIn(t, c.approve(b), "alice"))
		p := b.get(s.broker.SignIn(t, second.location, "alice-now"))
		wantStatus(t, p, http.StatusSeeOther)
		question := b.get(p.location)
		wantStatus(t, question, http.StatusOK, "alice-before", "alice-now", "octohub")
		wantStatus(t, b.get(p.location), http.StatusOK, "alice-before") // a reload asks again
		if n := s.count(`SELECT count(*) FROM authserver.authorization_codes`); n != 0 {
			t.Error("the code was issued before the answer")
		}
		wantStatus(t, s.browser().get(p.location), http.StatusForbidden)
		return s, c, b, question
	}
	t.Run("confirmed", func(t *testing.T) {
		t.Parallel()
		s, c, b, question := arrive(t)
		p := b.answer(question, "confirm")
		if got := c.redeem(s.clientAnswer(p.location).Get("code")); got.status != http.StatusOK {
			t.Errorf("tokens %+v", got)
		}
		wantStatus(t, b.answer(question, "confirm"), http.StatusBadRequest, "This sign-in is over")
	})
	t.Run("cancelled", func(t *testing.T) {
		t.Parallel()
		s, _, b, question := arrive(t)
		if q := s.clientAnswer(b.answer(question, "cancel").location); q.Get("error") != "access_denied" {
			t.Errorf("answer %v", q)
		}
		s.wantEnded(brokerv1.SessionEndReason_SESSION_END_REASON_CHAIN_FAILED)
		s.nothingLeft()
	})
}

// A code that is redeemed when the chain is over, as after an answer that got lost, puts
// an account in place that nobody has seen.
func TestOnlyTheAccountsThatThePersonHasSeenBecomeTheirs(t *testing.T) {
	t.Parallel()
	for name, late := range map[string]bool{"as they were seen": false, "with another one after": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSystem(t)
			c := s.client()
			code := c.login(s.browser())
			if late {
				s.broker.Redeemed("octohub")
			}
			if got := c.redeem(code); got.status != http.StatusOK {
				t.Fatalf("tokens %+v", got)
			}
			active := s.broker.Sessions("active")
			if len(active) != 1 || !s.broker.Linked(active[0], "corp") || s.broker.Linked(active[0], "octohub") == late {
				t.Errorf("sessions %v, linked with octohub: %t", active, s.broker.Linked(active[0], "octohub"))
			}
		})
	}
}

func TestAQuestionThatAnotherTabHasRaisedIsNotUndone(t *testing.T) {
	t.Parallel()
	const raise = `UPDATE authserver.authorization_requests SET phase = 'confirm', version = version + 1,
		progress = jsonb_set(progress, '{changes}', '[{"provider": "corp", "previous": "alice", "new": "mallory"}]')`
	t.Run("by a leg that comes back", func(t *testing.T) {
		t.Parallel()
		s := newSystem(t)
		c, b := s.client(), s.browser()
		second := b.get(s.broker.SignIn(t, c.approve(b), "alice"))
		s.broker.During("RedeemCode", func() { s.exec(raise) })
		p := b.get(s.broker.SignIn(t, second.location, "alice"))
		wantStatus(t, p, http.StatusSeeOther)
		wantStatus(t, b.get(p.location), http.StatusOK, "mallory")
	})
	t.Run("just before the code is made", func(t *testing.T) {
		t.Parallel()
		s := newSystem(t)
		c, b := s.client(), s.browser()
		second := b.get(s.broker.SignIn(t, c.approve(b), "alice"))
		s.exec(`CREATE FUNCTION authserver.raise() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN ` + raise + ` WHERE id = NEW.id; RETURN NULL; END $$`)
		s.exec(`CREATE TRIGGER raise AFTER UPDATE ON authserver.authorization_requests FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION authserver.raise()`)
		p := b.get(s.broker.SignIn(t, second.location, "alice"))
		wantStatus(t, p, http.StatusSeeOther)
		if !strings.HasPrefix(p.location, "/oauth/confirm?") {
			t.Fatalf("sent to %s", p.location)
		}
		wantStatus(t, b.get(p.location), http.StatusOK, "mallory")
	})
	t.Run("by an answer to an older question", func(t *testing.T) {
		t.Parallel()
		s := newSystem(t)
		s.broker.Connected("alice", "octohub", "alice-before")
		c, b := s.client(), s.browser()
		second := b.get(s.broker.SignIn(t, c.approve(b), "alice"))
		question := b.get(b.get(s.broker.SignIn(t, second.location, "alice-now")).location)
		s.exec(raise)
		p := b.answer(question, "confirm")
		wantStatus(t, p, http.StatusSeeOther)
		wantStatus(t, b.get(p.location), http.StatusOK, "mallory")
		if n := s.count(`SELECT count(*) FROM authserver.authorization_codes`); n != 0 {
			t.Error("the code was issued for an account that nobody has confirmed")
		}
	})
}
