package exchange_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/exchange"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/upstream"
	"chatelaine.dev/services/tokenbroker/internal/upstream/optest"
)

// clientKey is a key in PEM, and what its server knows of it.
func clientKey(t testing.TB) (text string, public *jose.JSONWebKey) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
		&jose.JSONWebKey{Key: key.Public(), KeyID: "key-of-ours", Use: "sig"}
}

// A token service that takes no secrets is asked with a key, at one that we did not write.
func TestExchangeByPrivateKeyJWTAtARealTokenService(t *testing.T) {
	t.Parallel()
	text, public := clientKey(t)
	op := optest.StartWithKey(t, public)
	secrets := &secret.Resolver{LookupEnv: func(string) (string, bool) { return text, true }}
	key := &config.ClientKey{Key: secret.Ref{Name: "corp", Key: "client-key"}, ID: public.KeyID, Audience: op.Issuer}
	registry, err := upstream.NewRegistry(&config.Deployment{AuthServer: &config.AuthServer{Providers: []config.Provider{{
		Name: "corp", Type: config.ProviderOIDC, ClientID: optest.ClientID, ClientKey: key, AuthMethod: config.AuthMethodPrivateKeyJWT,
		RedirectURI: optest.RedirectURI, OIDC: &config.OIDCProvider{Issuer: op.Issuer, SubjectClaim: "sub"},
	}}}}, upstream.Config{Secrets: secrets})
	if err != nil {
		t.Fatal(err)
	}
	verifier := strings.Repeat("v", 43)
	g, err := registry.Providers()[0].Redeem(t.Context(), upstream.RedeemRequest{
		Code: secret.New(op.Code(t, verifier, "n")), Verifier: secret.New(verifier), Nonce: "n",
	})
	if err != nil {
		t.Fatal(fault.Detail(err))
	}
	strategy := &config.TokenExchangeStrategy{
		TokenURL: op.Issuer + "/oauth/token", ClientID: optest.ClientID, ClientKey: key, AuthMethod: config.AuthMethodPrivateKeyJWT,
		Audience: "payroll", Scopes: []string{"profile"}, SubjectTokenType: config.TokenTypeAccessToken, SubjectProvider: "corp",
	}
	s := exchange.Subject{Key: exchange.ConnectionKey("1"), Version: 1, Token: func(context.Context) (secret.String, error) {
		return g.AccessToken, nil
	}}
	made := func(strategy *config.TokenExchangeStrategy) *exchange.Client {
		c, err := exchange.New(strategy, exchange.Config{Name: "for-payroll", Cache: exchange.NewCache(0, nil), Secrets: secrets})
		if err != nil {
			t.Fatal(fault.Detail(err))
		}
		return c
	}
	if token := get(t, made(strategy), s); token.AccessToken.IsZero() || token.AccessToken.Equal(g.AccessToken) {
		t.Error("no token came of it")
	}
	elsewhere := *strategy
	elsewhere.ClientKey = &config.ClientKey{Key: key.Key, ID: key.ID} // for the token endpoint, which this service is not called
	if _, err := made(&elsewhere).Token(t.Context(), s); fault.ReasonOf(err) != reason.UpstreamRefused {
		t.Errorf("an assertion for another audience: %v", err)
	}
}

// A method that is configured is the only one tried: a service may lock a client that fails.
func TestAConfiguredMethodIsTheOnlyOne(t *testing.T) {
	t.Parallel()
	text, _ := clientKey(t)
	for method, change := range map[string]func(*config.TokenExchangeStrategy){
		config.AuthMethodBasic: func(s *config.TokenExchangeStrategy) { s.AuthMethod = config.AuthMethodBasic },
		config.AuthMethodPost:  func(s *config.TokenExchangeStrategy) { s.AuthMethod = config.AuthMethodPost },
		config.AuthMethodPrivateKeyJWT: func(s *config.TokenExchangeStrategy) {
			s.ClientSecret, s.ClientKey = nil, &config.ClientKey{Key: secret.Ref{Name: "sts", Key: "client-key"}}
			s.AuthMethod = config.AuthMethodPrivateKeyJWT
		},
	} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			s := startSTS(t)
			s.answer(func(w http.ResponseWriter, r *http.Request) {
				_, _, basic := r.BasicAuth()
				got := map[string]bool{
					config.AuthMethodBasic: basic, config.AuthMethodPost: r.PostForm.Has("client_secret"),
					config.AuthMethodPrivateKeyJWT: r.PostForm.Has("client_assertion"),
				}
				for name, sent := range got {
					if sent != (name == method) {
						t.Errorf("%s: %v", name, sent)
					}
				}
				respond(401, `{"error":"invalid_client"}`)(w, r)
			})
			strategy := s.strategy()
			change(strategy)
			c, err := exchange.New(strategy, exchange.Config{
				Name: "for-payroll", Cache: exchange.NewCache(0, nil),
				Secrets: &secret.Resolver{LookupEnv: func(name string) (string, bool) {
					return map[string]string{"STS_CLIENT_KEY": text, "STS_CLIENT_SECRET": plantedSecret}[name], true
				}},
			})
			if err != nil {
				t.Fatal(fault.Detail(err))
			}
			if _, err := c.Token(t.Context(), subject("1", 1)); fault.ReasonOf(err) != reason.UpstreamRefused {
				t.Errorf("%v", err)
			}
			if n := s.requests.Load(); n != 1 {
				t.Errorf("%d requests", n)
			}
		})
	}
}
