package app

import (
	"strings"
	"testing"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/secret"
)

// Who gives a signing key in another form is told how to make one.
func TestASigningKeyInAnotherFormIsAnsweredWithACommand(t *testing.T) {
	t.Parallel()
	secrets := &secret.Resolver{LookupEnv: func(string) (string, bool) { return "planted, and no PEM", true }}
	_, err := signingKeys(&config.AuthServer{SigningKeys: []secret.Ref{{Name: "authserver", Key: "signing"}}}, secrets)
	if err == nil || !strings.Contains(err.Error(), "authserver/signing") || !strings.Contains(err.Error(), "openssl genpkey") ||
		strings.Contains(err.Error(), "planted") {
		t.Errorf("it says: %v", err)
	}
}
