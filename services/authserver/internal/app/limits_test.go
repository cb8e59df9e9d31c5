package app_test

import (
	"bytes"
	"context"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"

	"chatelaine.dev/services/authserver/internal/app"
	"chatelaine.dev/services/authserver/internal/brokertest"
	"chatelaine.dev/services/authserver/internal/store"
)

func TestAClientThatRefreshesInALoopIsHeldBackAndLosesNothing(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c, got := s.connected()
	s.exec(`UPDATE authserver.grants SET rotations = 200`)
	refused := c.refresh(got.RefreshToken)
	wait, err := strconv.Atoi(refused.header.Get("Retry-After"))
	if refused.status != http.StatusTooManyRequests || refused.Error != "temporarily_unavailable" || err != nil || wait != 60 {
		t.Errorf("too many refreshes: %+v", refused)
	}
	s.exec(`UPDATE authserver.grants SET created_at = now() - interval '61 seconds'`)
	if next := c.refresh(got.RefreshToken); next.status != http.StatusOK {
		t.Errorf("a minute later: %+v", next)
	}
}

func TestHoweverOftenALoginIsRefreshedItEndsWhenItsSessionDoes(t *testing.T) {
	t.Parallel()
	s := newSystem(t)
	c, got := s.connected()
	const days = 9 * 24 * time.Hour
	for range 3 {
		s.broker.Age(days)
		got = c.refresh(got.RefreshToken)
		if got.status != http.StatusOK {
			t.Fatalf("%+v", got)
		}
	}
	var left time.Duration
	s.must(s.pool.QueryRow(t.Context(), `SELECT expires_at - now() FROM authserver.refresh_tokens WHERE used_at IS NULL`).Scan(&left))
	if want := brokertest.SessionLife - 3*days; left > want || left < want-5*time.Minute {
		t.Errorf("after 27 days and three refreshes the last token lives for %v, want %v", left, want)
	}
	s.broker.Age(brokertest.SessionLife - 3*days)
	if got := c.refresh(got.RefreshToken); got.Error != "invalid_grant" {
		t.Errorf("after the session's end: %+v", got)
	}
}

// defaults are the flags of a serve that sets none but those that it must.
func defaults(t *testing.T) (flags *app.Flags) {
	t.Helper()
	program := app.Program()
	program.Serve = func(_ context.Context, f *app.Flags) error { flags = f; return nil }
	var stdout, stderr bytes.Buffer
	status := program.Run([]string{
		"serve", "--config=x.yaml", "--broker-address=localhost:9090", "--database-url=postgres://localhost/x", "--tls-cert=x", "--tls-key=x", "--tls-ca=x",
	}, &stdout, &stderr)
	if status != 0 || flags == nil {
		t.Fatalf("serve: status %d, %s%s", status, &stdout, &stderr)
	}
	return flags
}

func TestARegistrationIsKeptForWhoComesBackAndGivesWayWhenNobodyDoes(t *testing.T) {
	t.Parallel()
	s := newSystemWith(t, options{flags: func(f *app.Flags) {
		d := defaults(t)
		f.UnusedClients, f.IdleClients = d.UnusedClients, d.IdleClients
	}})
	finished := func() *client {
		c := s.client()
		c.redeem(c.login(s.browser()))
		return c
	}
	opened := func() *client {
		c := s.client()
		wantStatus(t, s.browser().get(c.query()), http.StatusOK)
		return c
	}
	began := func() *client {
		c := s.client()
		c.approve(s.browser())
		return c
	}
	hours := func(c *client, column string, n int) *client {
		s.exec(`UPDATE authserver.clients SET `+column+` = now() - make_interval(hours => $2) WHERE id = $1`, c.id, n)
		return c
	}
	clients := map[string]struct {
		client *client
		kept   bool
	}{
		"new":                        {s.client(), true},
		"23 hours, never used":       {hours(s.client(), "created_at", 23), true},
		"25 hours, never used":       {hours(s.client(), "created_at", 25), false},
		"25 hours, a link is opened": {hours(opened(), "created_at", 25), false},
		"25 hours, a login is begun": {hours(began(), "created_at", 25), true},
		"89 days since its tokens":   {hours(finished(), "used_at", 89*24), true},
		"91 days since its tokens":   {hours(finished(), "used_at", 91*24), false},
	}
	living := hours(finished(), "used_at", 365*24)
	s.exec(`DELETE FROM authserver.grants WHERE client_id <> $1`, living.id)
	s.exec(`DELETE FROM authserver.authorization_requests`)
	clients["a year, and a living session"] = struct {
		client *client
		kept   bool
	}{living, true}

	_, err := store.New(s.pool).Sweep(t.Context(), s.server.Sweeper.Policy)
	s.must(err)
	for name, tt := range clients {
		p := s.browser().get(tt.client.query())
		if kept := p.status == http.StatusOK; kept != tt.kept {
			t.Errorf("%s: kept = %v, want %v", name, kept, tt.kept)
		}
	}
}

func TestWhatOneAddressDoesWithLoginsIsLimited(t *testing.T) {
	t.Parallel()
	s := newSystemWith(t, options{flags: func(f *app.Flags) { f.LoginsPerMinute, f.LoginBurst = 1, 2 }})
	c, b := s.client(), s.browser()
	statuses := func(n int, do func() page) (list []int) {
		for range n {
			list = append(list, do().status)
		}
		return list
	}
	consent := b.get(c.query())
	if got := statuses(2, func() page { return b.get(c.query()) }); consent.status != http.StatusOK || !slices.Equal(got, []int{200, 429}) {
		t.Errorf("logins begun: %d, then %v", consent.status, got)
	}
	if got := statuses(3, func() page { return b.answer(consent, "approve") }); !slices.Equal(got, []int{303, 303, 429}) {
		t.Errorf("logins approved: %v", got)
	}
	// Two logins over two providers have room for reloads, and not for more.
	comeBack := func() page { return b.get(s.base + "/oauth/callback/corp?state=x&code=y") }
	const room = 2 * (2 + 4)
	if got := statuses(room, comeBack); slices.Contains(got, 429) {
		t.Errorf("callbacks: %v", got)
	}
	for name, p := range map[string]page{
		"a callback":   comeBack(),
		"the question": b.get(s.base + "/oauth/confirm?request=x"),
		"its answer":   b.post(s.base+"/oauth/confirm", nil),
	} {
		if p.status != http.StatusTooManyRequests || p.header.Get("Retry-After") == "" {
			t.Errorf("%s: %d, Retry-After %q", name, p.status, p.header.Get("Retry-After"))
		}
	}
}
