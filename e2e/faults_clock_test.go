package e2e

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"chatelaine.dev/examples/browse"
	"chatelaine.dev/examples/journey"
)

// The clock of a machine cannot be moved for one process of it. What reaches a
// service from another clock are the times in tokens, so these are moved: those of
// ID tokens at the provider, and those of access tokens with the key that the
// authorization server signs with.

// TestClocksThatDiffer: half a minute is ordinary; more is said.
func TestClocksThatDiffer(t *testing.T) {
	needProcesses(t)
	t.Parallel()
	h := newHouse(t)
	p := h.person()
	login := h.logIn(t, p)

	for name, c := range map[string]struct {
		ahead time.Duration // of the authorization server's clock
		left  time.Duration // of the token, by that clock
		works bool
	}{
		"20 s ahead": {20 * time.Second, time.Hour, true},
		// Over for fifteen seconds, as the gateway sees it: what lets it pass is the leeway.
		"20 s behind":             {-20 * time.Second, 5 * time.Second, true},
		"20 s behind, and is old": {-20 * time.Second, -25 * time.Second, false},
		"5 min ahead":             {5 * time.Minute, time.Hour, true},
		"5 min behind":            {-5 * time.Minute, 20 * time.Second, false},
	} {
		t.Run("the authorization server "+name, func(t *testing.T) {
			log := h.notebook(t)
			moved := h.counter(t, "gateway", "chatelaine_gateway_requests_total", `outcome="refused"`)
			issued := time.Now().Add(c.ahead)
			if c.left < 0 {
				issued = issued.Add(-time.Hour)
			}
			a := h.call(t, h.dated(t, login, issued, time.Now().Add(c.ahead+c.left).Sub(issued)), "repos_whoami")
			switch {
			case c.works && (a.Status != http.StatusOK || !strings.Contains(a.Body, p.Login)):
				t.Errorf("a call answers %s", a)
			case !c.works:
				if a.Status != http.StatusUnauthorized || !strings.Contains(a.Header.Get("WWW-Authenticate"), `error="invalid_token"`) || !strings.Contains(a.Header.Get("WWW-Authenticate"), "expired") {
					t.Errorf("a call answers %s, %s", a, a.Header.Get("WWW-Authenticate"))
				}
				log.any(t, "gateway", `"msg":"mcp request"`, `"reason":"token_expired"`)
				moved()
			}
		})
	}

	for name, c := range map[string]struct {
		ahead int // seconds
		works bool
	}{"20 s ahead": {20, true}, "20 s behind": {-20, true}, "5 min ahead": {300, false}, "5 min behind": {-300, true}} {
		t.Run("the provider "+name, func(t *testing.T) {
			log := h.notebook(t)
			moved := h.counter(t, "authserver", "chatelaine_authserver_legs_total", `provider="corp"`, `outcome="failed"`)
			fault(t, h.stack.Ports().CorpFaults, map[string]any{"clockAheadS": c.ahead})
			err := walk(t, p, newClientAt(t, h.stack.MCPURL()), func(*browse.Options) {})
			if c.works {
				if err != nil {
					t.Errorf("a login ends with %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), "corp") {
				t.Errorf("a login ends with %v, want corp named", err)
			}
			log.any(t, "tokenbroker", "has no time of issue, or one in the future", "corp")
			moved()
		})
	}
	h.works(t, login, p)
}

// Of the two databases' clocks and those of the services, see clock_test.go of the
// authorization server and of the token broker's package refresh.

// dated is the login's access token, issued at another time and good for that long.
func (h *house) dated(t *testing.T, login *journey.Login, issued time.Time, lifetime time.Duration) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(h.stack.SecretsDir("authserver"), "authserver-signing", "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(raw)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jose.ParseSignedCompact(login.Token.AccessToken, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	claims := map[string]any{}
	if err := json.Unmarshal(token.UnsafePayloadWithoutVerification(), &claims); err != nil {
		t.Fatal(err)
	}
	claims["iat"], claims["exp"] = issued.Unix(), issued.Add(lifetime).Unix()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: token.Signatures[0].Header.KeyID}},
		(&jose.SignerOptions{}).WithType("at+jwt"))
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}
