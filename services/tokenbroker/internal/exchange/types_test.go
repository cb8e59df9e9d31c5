package exchange_test

import (
	"crypto/tls"
	"encoding/pem"
	"net/http/httptest"
	"strings"
	"testing"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/exchange"
	"chatelaine.dev/services/tokenbroker/internal/reason"
)

func TestTokenTypesThatAreAskedForAndAccepted(t *testing.T) {
	t.Parallel()
	const bearer, named = "Authorization", "X-Assertion"
	for name, c := range map[string]struct {
		requested, header, issued, tokenType string
		ok                                   bool
	}{
		"an access token":                      {"", bearer, config.TokenTypeAccessToken, "Bearer", true},
		"a JWT in place of one":                {"", bearer, config.TokenTypeJWT, "bearer", true},
		"a JWT":                                {config.TokenTypeJWT, bearer, config.TokenTypeJWT, "Bearer", true},
		"an access token in place of it":       {config.TokenTypeJWT, named, config.TokenTypeAccessToken, "Bearer", true},
		"an assertion":                         {config.TokenTypeSAML2, named, config.TokenTypeSAML2, "N_A", true},
		"an older assertion":                   {config.TokenTypeSAML1, named, config.TokenTypeSAML1, "n_a", true},
		"an id token":                          {config.TokenTypeIDToken, named, config.TokenTypeIDToken, "N_A", true},
		"a JWT that opens nothing":             {config.TokenTypeJWT, named, config.TokenTypeJWT, "N_A", true},
		"the same as bearer":                   {config.TokenTypeJWT, bearer, config.TokenTypeJWT, "N_A", false},
		"an access token that opens nothing":   {"", named, config.TokenTypeAccessToken, "N_A", false},
		"a JWT that is no access token":        {"", named, config.TokenTypeJWT, "N_A", false},
		"an assertion as bearer":               {config.TokenTypeSAML2, bearer, config.TokenTypeSAML2, "N_A", false},
		"an assertion that nobody asked for":   {"", named, config.TokenTypeSAML2, "N_A", false},
		"another assertion":                    {config.TokenTypeSAML2, named, config.TokenTypeSAML1, "N_A", false},
		"a refresh token":                      {config.TokenTypeSAML2, named, config.TokenTypeRefreshToken, "N_A", false},
		"no type":                              {config.TokenTypeSAML2, named, "", "N_A", false},
		"a type of token that is nobody's":     {config.TokenTypeSAML2, named, config.TokenTypeSAML2, "mac", false},
		"an access token that nobody can send": {config.TokenTypeSAML2, named, config.TokenTypeAccessToken, "N_A", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startSTS(t)
			s.answer(respond(200, `{"access_token":"x","token_type":"`+c.tokenType+`","issued_token_type":"`+c.issued+`"}`))
			strategy := s.strategy()
			strategy.RequestedTokenType, strategy.HeaderName = c.requested, c.header
			_, err := newClient(t, strategy, exchange.NewCache(0, nil), newClock()).Token(t.Context(), subject("c", 1))
			if (err == nil) != c.ok {
				t.Errorf("%v", err)
			}
			want := c.requested
			if want == "" {
				want = config.TokenTypeAccessToken
			}
			if got := s.form.Get("requested_token_type"); got != want {
				t.Errorf("asked for %s", got)
			}
		})
	}
}

// What is good for a header of its own must not reach a backend as bearer token by way
// of the cache that configurations share.
func TestATokenThatIsNoBearerTokenIsNotSharedWithABearersConfiguration(t *testing.T) {
	t.Parallel()
	s := startSTS(t)
	s.answer(respond(200, `{"access_token":"x","token_type":"N_A","issued_token_type":"`+config.TokenTypeJWT+`"}`))
	cache := exchange.NewCache(0, nil)
	named, bearer := s.strategy(), s.strategy()
	named.RequestedTokenType, bearer.RequestedTokenType = config.TokenTypeJWT, config.TokenTypeJWT
	named.HeaderName = "X-Assertion"
	get(t, newClient(t, named, cache, newClock()), subject("c", 1))
	if _, err := newClient(t, bearer, cache, newClock()).Token(t.Context(), subject("c", 1)); err == nil {
		t.Error("it is sent as a bearer token")
	}
}

// A token service of the house: a certificate of its own authority, a private address.
func TestTokenServiceWithACertificateOfItsOwn(t *testing.T) {
	t.Parallel()
	server := httptest.NewUnstartedServer(respond(200, grant("x", "")))
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
	server.Config.ErrorLog = nil
	server.StartTLS()
	t.Cleanup(server.Close)
	bundle := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	secrets := &secret.Resolver{LookupEnv: func(name string) (string, bool) {
		return map[string]string{"CORPORATE_CA_CA_CRT": bundle, "BROKEN_CA_CRT": "no certificate"}[name], name != ""
	}}
	strategy := &config.TokenExchangeStrategy{TokenURL: server.URL, Audience: "a", SubjectTokenType: config.TokenTypeAccessToken, SubjectProvider: "corp"}
	made := func() (*exchange.Client, error) {
		return exchange.New(strategy, exchange.Config{Name: "x", Cache: exchange.NewCache(0, nil), Secrets: secrets})
	}
	c, err := made()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Token(t.Context(), subject("1", 1)); fault.ReasonOf(err) != reason.UpstreamUnavailable {
		t.Errorf("without the bundle: %v", err)
	}
	strategy.CABundle = &secret.Ref{Name: "corporate-ca", Key: "ca.crt"}
	if c, err = made(); err != nil {
		t.Fatal(err)
	}
	get(t, c, subject("1", 1))
	strategy.CABundle = &secret.Ref{Name: "broken", Key: "ca.crt"}
	if _, err = made(); err == nil || !strings.Contains(err.Error(), "token exchange x") {
		t.Errorf("a bundle that is none: %v", err)
	}
}

func TestAPrivateAddressIsRefusedWhereItIsNotMeant(t *testing.T) {
	t.Parallel()
	strategy := (&sts{}).strategy()
	strategy.TokenURL, strategy.DenyPrivateIPs = "http://10.255.255.1/token", true
	_, err := newClient(t, strategy, exchange.NewCache(0, nil), newClock()).Token(t.Context(), subject("1", 1))
	if text := fault.Detail(err); err == nil || !strings.Contains(text, "allowPrivateIPs is false") {
		t.Errorf("it says %s", text)
	}
}
