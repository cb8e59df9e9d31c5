package endpoint_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // x5t
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/upstream/endpoint"
)

func keyPEM(t *testing.T, key crypto.Signer) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func certificate(t *testing.T, key crypto.Signer) (text string, der []byte) {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"}, NotAfter: time.Now().Add(time.Hour),
	}, &x509.Certificate{Subject: pkix.Name{CommonName: "client"}}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), der
}

func rsaKey(t *testing.T, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func ecKey(t *testing.T, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sentForm is the form that a server gets of a client with this key.
func sentForm(t *testing.T, key *endpoint.ClientKey, now time.Time) url.Values {
	t.Helper()
	var form url.Values
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("it sends an Authorization header, too")
		}
		_ = r.ParseForm()
		form = r.PostForm
		_, _ = w.Write([]byte("{}"))
	}))
	defer server.Close()
	c := endpoint.NewClient(endpoint.Config{Label: "x", Display: "x", HTTP: server.Client(), Now: func() time.Time { return now }})
	err := c.Do(t.Context(), endpoint.Request{
		Operation: "redeem", Method: http.MethodPost, URL: server.URL, Form: url.Values{"grant_type": {"x"}},
		Auth: &endpoint.ClientAuth{Method: config.AuthMethodPrivateKeyJWT, ID: "client-7", Key: key, Audience: "https://idp.example.com"},
	}, func(*endpoint.Response) error { return nil })
	if err != nil {
		t.Fatal(fault.Detail(err))
	}
	return form
}

func TestClientAssertions(t *testing.T) {
	t.Parallel()
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		key       crypto.Signer
		algorithm jose.SignatureAlgorithm
		certified bool
		id        string
	}{
		"RSA":                    {rsaKey(t, 2048), jose.RS256, false, ""},
		"RSA with certificate":   {rsaKey(t, 2048), jose.PS256, true, ""},
		"P-256":                  {ecKey(t, elliptic.P256()), jose.ES256, false, ""},
		"P-384":                  {ecKey(t, elliptic.P384()), jose.ES384, false, "named"},
		"P-521 with certificate": {ecKey(t, elliptic.P521()), jose.ES512, true, "named"},
		"Ed25519":                {edKey, jose.EdDSA, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := keyPEM(t, c.key)
			thumbprint, err := (&jose.JSONWebKey{Key: c.key.Public()}).Thumbprint(crypto.SHA256)
			if err != nil {
				t.Fatal(err)
			}
			kid, x5t, x5t256 := base64.RawURLEncoding.EncodeToString(thumbprint), any(nil), any(nil)
			if c.certified {
				cert, der := certificate(t, c.key)
				text += cert
				sum1, sum256 := sha1.Sum(der), sha256.Sum256(der) //nolint:gosec // x5t
				kid = base64.RawURLEncoding.EncodeToString(sum1[:])
				x5t, x5t256 = kid, base64.RawURLEncoding.EncodeToString(sum256[:])
			}
			if c.id != "" {
				kid = c.id
			}
			key, err := endpoint.ParseClientKey(secret.New(text), c.id)
			if err != nil {
				t.Fatal(err)
			}
			now := time.Now()
			form := sentForm(t, key, now)
			if form.Get("client_id") != "client-7" || form.Has("client_secret") ||
				form.Get("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
				t.Errorf("form %v", form)
			}
			jws, err := jose.ParseSignedCompact(form.Get("client_assertion"), []jose.SignatureAlgorithm{c.algorithm})
			if err != nil {
				t.Fatal(err)
			}
			h := jws.Signatures[0].Protected
			if h.KeyID != kid || h.ExtraHeaders["typ"] != "JWT" || h.ExtraHeaders["x5t"] != x5t || h.ExtraHeaders["x5t#S256"] != x5t256 {
				t.Errorf("header %+v, want kid %s, x5t %v", h, kid, x5t)
			}
			payload, err := jws.Verify(c.key.Public())
			if err != nil {
				t.Fatal(err)
			}
			var claims struct {
				Iss, Sub, Aud, Jti string
				Iat, Nbf, Exp      int64
			}
			if err := json.Unmarshal(payload, &claims); err != nil {
				t.Fatal(err)
			}
			if claims.Iss != "client-7" || claims.Sub != "client-7" || claims.Aud != "https://idp.example.com" || len(claims.Jti) < 16 {
				t.Errorf("claims %s", payload)
			}
			life := time.Unix(claims.Exp, 0).Sub(time.Unix(claims.Iat, 0))
			if claims.Iat > now.Unix() || claims.Nbf > now.Unix() || claims.Exp <= now.Unix() || life > 5*time.Minute {
				t.Errorf("times %s at %d", payload, now.Unix())
			}
			if again := sentForm(t, key, now); again.Get("client_assertion") == form.Get("client_assertion") {
				t.Error("an assertion is sent twice: servers take each once")
			}
		})
	}
}

func TestKeysThatCannotAuthenticateAClient(t *testing.T) {
	t.Parallel()
	const planted = "planted-key-material-5d1"
	own, other := ecKey(t, elliptic.P256()), ecKey(t, elliptic.P256())
	foreign, _ := certificate(t, other)
	public, err := x509.MarshalPKIXPublicKey(own.Public())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"no PEM":              planted,
		"a public key":        string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})),
		"garbage":             string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte(planted)})),
		"a certificate alone": foreign,
		"another's":           keyPEM(t, own) + foreign,
		"two keys":            keyPEM(t, own) + keyPEM(t, other),
		"a short key":         keyPEM(t, rsaKey(t, 1024)),
		"P-224":               keyPEM(t, ecKey(t, elliptic.P224())),
	} {
		_, err := endpoint.ParseClientKey(secret.New(text), "")
		if fault.KindOf(err) != fault.Invalid || strings.Contains(fault.Detail(err), planted) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
