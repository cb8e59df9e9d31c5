package rules

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chatelaine.dev/internal/secret"
)

type file struct {
	Clients []Registration `yaml:"clients"`
}

func TestLoadTakesOnlyFilesThatItUnderstands(t *testing.T) {
	t.Parallel()
	builtIn := []byte("clients: [{id: built-in}]")
	got, err := Load[file]("", builtIn)
	if err != nil || len(got.Clients) != 1 || got.Clients[0].ID != "built-in" {
		t.Errorf("built in: %+v, %v", got, err)
	}
	for want, text := range map[string]string{
		"":                  "clients: [{id: x, redirectURIs: [http://localhost/cb]}]",
		"field redirectURL": "clients: [{id: x, redirectURL: http://localhost/cb}]",
		"field secret":      "clients: [{id: x, secret: in-the-clear}]",
		"larger than":       "clients: []\n#" + strings.Repeat("x", maxSize),
	} {
		path := filepath.Join(t.TempDir(), "rules.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := Load[file](path, builtIn)
		switch {
		case want == "" && (err != nil || len(got.Clients) != 1 || got.Clients[0].ID != "x"):
			t.Errorf("a good file: %+v, %v", got, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
	if _, err := Load[file](filepath.Join(t.TempDir(), "none.yaml"), builtIn); err == nil {
		t.Error("a missing file became the built-in rules")
	}
}

func TestMissingSecretsAreReportedAtOnceAndUnknownClientsNamed(t *testing.T) {
	t.Parallel()
	clients := []*Registration{
		{ID: "one", SecretRef: secret.Ref{Name: "a", Key: "k"}},
		{ID: "two", SecretRef: secret.Ref{Name: "b", Key: "k"}},
	}
	err := ResolveSecrets(&secret.Resolver{Dir: t.TempDir()}, clients)
	if err == nil || !strings.Contains(err.Error(), "client one") || !strings.Contains(err.Error(), "client two") {
		t.Errorf("got %v", err)
	}
	if err := SetRedirectURIs(clients, "three", nil); err == nil {
		t.Error("an unknown client was accepted")
	}
	if err := SetRedirectURIs(clients, "two", []string{"http://localhost/cb"}); err != nil || len(clients[1].RedirectURIs) != 1 || clients[0].RedirectURIs != nil {
		t.Errorf("%+v, %v", clients, err)
	}
}
