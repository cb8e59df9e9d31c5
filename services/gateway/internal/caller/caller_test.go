package caller_test

import (
	"fmt"
	"testing"

	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/gateway/internal/caller"
)

func TestNoTwoPeopleShareAKey(t *testing.T) {
	t.Parallel()
	keys := map[string]string{caller.AnonymousCaller().Key: "anonymous"}
	for _, person := range [][2]string{
		{"https://a", "1"},
		{"https://a", "2"},
		{"https://b", "1"},
		{"https://a1", ""},
		{"https://", "a1"},
		{"", "https://a1"},
		{"", ""},
	} {
		c := caller.New(caller.Claims{Issuer: person[0], Subject: person[1]}, secret.New("t"))
		if other, taken := keys[c.Key]; taken {
			t.Errorf("%q has the key of %s", person, other)
		}
		keys[c.Key] = fmt.Sprint(person)
	}
}

func TestPersonKeepsTheKeyOverSessionsAndClients(t *testing.T) {
	t.Parallel()
	one := caller.New(caller.Claims{Issuer: "i", Subject: "s", SessionID: "1", ClientID: "a"}, secret.New("t1"))
	two := caller.New(caller.Claims{Issuer: "i", Subject: "s", SessionID: "2", ClientID: "b"}, secret.New("t2"))
	if one.Key != two.Key {
		t.Error("a new login loses the MCP sessions")
	}
	if one.CacheKey == two.CacheKey {
		t.Error("two sessions share credentials: ending one would not end the other's")
	}
}

func TestCredentialsFollowTheTokenWhereThereIsNoSession(t *testing.T) {
	t.Parallel()
	a := caller.New(caller.Claims{Issuer: "i", Subject: "s"}, secret.New("t1"))
	b := caller.New(caller.Claims{Issuer: "i", Subject: "s"}, secret.New("t2"))
	if a.CacheKey == b.CacheKey || a.CacheKey == "t:t1" {
		t.Errorf("cache keys %q and %q", a.CacheKey, b.CacheKey)
	}
}

func TestCallerDoesNotPrintItsToken(t *testing.T) {
	t.Parallel()
	c := caller.New(caller.Claims{Issuer: "i", Subject: "s"}, secret.New("the-token"))
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(format, c.Token); text != secret.Redacted {
			t.Errorf("%s prints %q", format, text)
		}
	}
}

func TestScopesAreWholeWords(t *testing.T) {
	t.Parallel()
	c := &caller.Caller{Scope: "openid tools:read"}
	if !c.HasScope("tools:read") || c.HasScope("tools") || c.HasScope("") {
		t.Error("a part of a scope counts as the scope")
	}
}
