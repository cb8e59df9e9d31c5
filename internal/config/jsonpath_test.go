package config

import (
	"slices"
	"testing"
)

func TestPathsAreSplitAsTheBrokerReadsThem(t *testing.T) {
	t.Parallel()
	for path, want := range map[string][]string{
		"":                              nil,
		"id":                            {"id"},
		"a.b":                           {"a", "b"},
		`a\.b.c`:                        {"a.b", "c"},
		"token|" + JWTModifier + "|sub": {"token", JWTModifier, "sub"},
		"a.":                            {"a", ""},
	} {
		if got := JSONKeys(path); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", path, got, want)
		}
	}
	if mutablePath("") || !mutablePath("user.login") || mutablePath("login.id") {
		t.Error("what may change is not told by the last key")
	}
}
