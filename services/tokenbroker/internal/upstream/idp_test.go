package upstream_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/secret"
)

// idp is an OpenID provider that can be told to misbehave. By default it grants
// what plantedTokens has to subject "alice-1".
type idp struct {
	t      testing.TB
	url    string
	key    *ecdsa.PrivateKey
	signer jose.Signer

	mu       sync.Mutex
	handlers map[string]http.HandlerFunc // by path; replaces the default
	requests map[string]int
	forms    map[string]string // last body by path
}

// Texts that must never show up in a log or an error.
const (
	plantedCode    = "planted-code-9d1f"
	plantedAccess  = "planted-access-9d1f"
	plantedRefresh = "planted-refresh-9d1f"
	plantedSecret  = "planted-client-secret-9d1f"
	plantedBody    = "planted-body-9d1f"
	plantedEmail   = "planted-mail-9d1f@example.com"
)

func startIDP(t testing.TB) *idp {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i := &idp{t: t, key: key, handlers: map[string]http.HandlerFunc{}, requests: map[string]int{}, forms: map[string]string{}}
	i.signer = newSigner(t, jose.ES256, key, "k1")
	server := httptest.NewServer(i)
	t.Cleanup(server.Close)
	i.url = server.URL
	return i
}

func newSigner(t testing.TB, alg jose.SignatureAlgorithm, key any, kid string) jose.Signer {
	t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (i *idp) handle(path string, h http.HandlerFunc) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.handlers[path] = h
}

func (i *idp) count(path string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.requests[path]
}

func (i *idp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	i.requests[r.URL.Path]++
	h := i.handlers[r.URL.Path]
	i.mu.Unlock()
	if h != nil {
		h(w, r)
		return
	}
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		answer(w, 200, i.discovery())
	case "/keys":
		answer(w, 200, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: i.key.Public(), KeyID: "k1", Algorithm: "ES256", Use: "sig"}}})
	case "/token":
		answer(w, 200, i.grant(nil))
	case "/userinfo":
		answer(w, 200, map[string]any{"sub": "alice-1", "name": "Alice", "email": plantedEmail})
	case "/revoke":
		w.WriteHeader(200)
	default:
		w.WriteHeader(404)
	}
}

func (i *idp) discovery() map[string]any {
	return map[string]any{
		"issuer":                 i.url,
		"authorization_endpoint": i.url + "/authorize", "token_endpoint": i.url + "/token",
		"jwks_uri": i.url + "/keys", "userinfo_endpoint": i.url + "/userinfo", "revocation_endpoint": i.url + "/revoke",
		"token_endpoint_auth_methods_supported":          []string{"client_secret_post", "client_secret_basic"},
		"authorization_response_iss_parameter_supported": true,
	}
}

// claims of a good id token, with changes; a nil value removes a claim.
func (i *idp) claims(change map[string]any) map[string]any {
	now := time.Now().Unix()
	return merge(map[string]any{
		"iss": i.url, "sub": "alice-1", "aud": "chatelaine", "exp": now + 300, "iat": now, "nonce": "n-1",
		"name": "Alice", "email": plantedEmail,
	}, change)
}

func merge(m, change map[string]any) map[string]any {
	for k, v := range change {
		if v == nil {
			delete(m, k)
			continue
		}
		m[k] = v
	}
	return m
}

func (i *idp) idToken(change map[string]any) string { return sign(i.t, i.signer, i.claims(change)) }

func sign(t testing.TB, s jose.Signer, claims map[string]any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	return signBytes(t, s, payload)
}

func signBytes(t testing.TB, s jose.Signer, payload []byte) string {
	t.Helper()
	jws, err := s.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// unsigned is an id token with alg none.
func unsigned(t testing.TB, claims map[string]any) string {
	t.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	enc := base64.RawURLEncoding
	return enc.EncodeToString([]byte(`{"alg":"none"}`)) + "." + enc.EncodeToString(payload) + "."
}

// grant is a good token answer, with changes.
func (i *idp) grant(change map[string]any) map[string]any {
	return merge(map[string]any{
		"access_token": plantedAccess, "refresh_token": plantedRefresh, "token_type": "Bearer",
		"expires_in": 3600, "scope": "openid profile", "id_token": i.idToken(nil),
	}, change)
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// respond always answers the same.
func respond(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

// hang answers when the test ends or the caller hangs up.
func hang(t testing.TB) http.HandlerFunc {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	return func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then does the server notice a hang-up
		select {
		case <-ctx.Done():
		case <-r.Context().Done():
		}
	}
}

func (i *idp) provider() config.Provider {
	return config.Provider{
		Name: "corp", Type: config.ProviderOIDC, Primary: true,
		ClientID: "chatelaine", ClientSecret: &secret.Ref{Name: "corp", Key: "client-secret"},
		RedirectURI: "http://localhost:8080/oauth/callback/corp", Scopes: []string{"openid", "profile"},
		OIDC: &config.OIDCProvider{Issuer: i.url, SubjectClaim: "sub"},
	}
}

func plantedEnv() map[string]string {
	return map[string]string{"CORP_CLIENT_SECRET": plantedSecret, "OCTOHUB_CLIENT_SECRET": plantedSecret}
}
