package gatewaytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Issuer signs access tokens.
type Issuer struct {
	// URL is the issuer, JWKSURL where its keys are.
	URL, JWKSURL string
	// Client reaches it.
	Client *http.Client

	t      testing.TB
	signer jose.Signer
}

// NewIssuer starts an issuer that ends with the test.
func NewIssuer(t testing.TB) *Issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	jwk := jose.JSONWebKey{Key: key, KeyID: "k1", Algorithm: "ES256", Use: "sig"}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jwk},
		(&jose.SignerOptions{}).WithType("at+jwt"))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{jwk.Public()}})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(keys)
	}))
	t.Cleanup(server.Close)
	return &Issuer{
		URL: server.URL, JWKSURL: server.URL + "/jwks", t: t, signer: signer,
		// Not the default client: httptest closes its connections with each server.
		Client: &http.Client{Transport: &http.Transport{}},
	}
}

// Claims of a token.
type Claims map[string]any

// Token signs the claims of a person in a session, good for an hour, with
// changes; a nil value removes a claim.
func (i *Issuer) Token(subject, session, audience string, changes Claims) string {
	i.t.Helper()
	now := time.Now()
	claims := Claims{
		"iss": i.URL, "sub": subject, "tsid": session, "aud": []string{audience}, "client_id": "client",
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "jti": rand.Text(), "scope": "openid",
	}
	for name, value := range changes {
		if claims[name] = value; value == nil {
			delete(claims, name)
		}
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		i.t.Fatal(err)
	}
	signed, err := i.signer.Sign(payload)
	if err != nil {
		i.t.Fatal(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		i.t.Fatal(err)
	}
	return token
}
