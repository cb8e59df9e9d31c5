package grants_test

import (
	"errors"
	"testing"
	"time"

	"chatelaine.dev/examples/internal/grants"
)

var start = time.Date(2026, 9, 1, 12, 0, 0, 0, time.UTC)

func family(l *grants.Ledger, user string) (id string) {
	id = l.Open(grants.Grant{User: user, Client: "c", Scopes: []string{"repo"}})
	l.PutAccess(grants.Key(user+"-access"), id, []string{"repo"}, start.Add(time.Hour))
	l.PutRefresh(grants.Key(user+"-refresh"), id, start.Add(48*time.Hour))
	return id
}

func TestAReusedRefreshTokenEndsItsFamilyAndNoOther(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		after, grace time.Duration
		want         error
	}{
		"at once, no grace":    {0, 0, grants.ErrReused},
		"within the grace":     {9 * time.Second, 10 * time.Second, nil},
		"at the grace's end":   {10 * time.Second, 10 * time.Second, grants.ErrReused},
		"long after the grace": {time.Hour, 10 * time.Second, grants.ErrReused},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := grants.New()
			id := family(&l, "alice")
			family(&l, "bob")
			if got, err := l.Spend(grants.Key("alice-refresh"), start, c.grace); err != nil || got != id {
				t.Fatalf("first Spend = %q, %v", got, err)
			}
			l.PutRefresh(grants.Key("successor"), id, start.Add(48*time.Hour))

			_, err := l.Spend(grants.Key("alice-refresh"), start.Add(c.after), c.grace)
			if !errors.Is(err, c.want) {
				t.Fatalf("second Spend = %v, want %v", err, c.want)
			}
			_, _, alive := l.LookupRefresh(grants.Key("successor"), start)
			_, _, access := l.LookupAccess(grants.Key("alice-access"), start)
			if ended := c.want != nil; (alive != nil) != ended || (access != nil) != ended {
				t.Errorf("family ended: %v; successor %v, access token %v", ended, alive, access)
			}
			if _, err := l.Spend(grants.Key("bob-refresh"), start, 0); err != nil {
				t.Errorf("bob's refresh token was hit: %v", err)
			}
		})
	}
}

func TestTokensEndWithTheirTime(t *testing.T) {
	t.Parallel()
	l := grants.New()
	family(&l, "alice")
	if _, _, err := l.LookupAccess(grants.Key("alice-access"), start.Add(time.Hour)); !errors.Is(err, grants.ErrUnknown) {
		t.Errorf("expired access token: %v", err)
	}
	if _, err := l.Spend(grants.Key("alice-refresh"), start.Add(48*time.Hour), 0); !errors.Is(err, grants.ErrUnknown) {
		t.Errorf("expired refresh token: %v", err)
	}
	l.Prune(start.Add(time.Hour))
	if len(l.Access) != 0 || len(l.Refresh) != 1 || len(l.Grants) != 1 {
		t.Errorf("pruned to %d access, %d refresh, %d grants", len(l.Access), len(l.Refresh), len(l.Grants))
	}
	l.Prune(start.Add(48 * time.Hour))
	if len(l.Refresh) != 0 || len(l.Grants) != 0 {
		t.Errorf("pruned to %d refresh, %d grants", len(l.Refresh), len(l.Grants))
	}
}

func TestRevokingOnePersonLeavesTheOther(t *testing.T) {
	t.Parallel()
	l := grants.New()
	family(&l, "alice")
	family(&l, "bob")
	if n := l.RevokeWhere(func(g grants.Grant) bool { return g.User == "alice" }); n != 1 {
		t.Errorf("revoked %d grants, want 1", n)
	}
	if _, _, err := l.LookupAccess(grants.Key("alice-access"), start); err == nil {
		t.Error("alice's access token is alive")
	}
	if _, _, err := l.LookupAccess(grants.Key("bob-access"), start); err != nil {
		t.Errorf("bob's access token: %v", err)
	}
}
