package bearer_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"chatelaine.dev/internal/bearer"
	"chatelaine.dev/internal/outbound"
)

const resource = "https://gw.example/mcp"

// issuer is an authorization server: it publishes keys and signs tokens.
type issuer struct {
	t       testing.TB
	server  *httptest.Server
	fetches atomic.Int32

	mu     sync.Mutex
	keys   []jose.JSONWebKey
	status int // 0: 200
	body   []byte
	block  chan struct{}
}

func newIssuer(t testing.TB) *issuer {
	t.Helper()
	i := &issuer{t: t}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /jwks", i.serveKeys)
	i.server = httptest.NewServer(mux)
	t.Cleanup(i.server.Close)
	return i
}

func (i *issuer) url() string { return i.server.URL }

func (i *issuer) serveKeys(w http.ResponseWriter, r *http.Request) {
	i.fetches.Add(1)
	i.mu.Lock()
	status, body, block := i.status, i.body, i.block
	set := jose.JSONWebKeySet{}
	for _, k := range i.keys {
		set.Keys = append(set.Keys, k.Public())
	}
	i.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-r.Context().Done():
			return
		}
	}
	if status != 0 {
		w.WriteHeader(status)
		return
	}
	if body != nil {
		_, _ = w.Write(body)
		return
	}
	_ = json.NewEncoder(w).Encode(set)
}

// change changes what is published.
func (i *issuer) change(f func(i *issuer)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	f(i)
}

// newKey makes a key and, when publish, puts it into the key set.
func (i *issuer) newKey(kid string, publish bool) jose.JSONWebKey {
	i.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		i.t.Fatal(err)
	}
	jwk := jose.JSONWebKey{Key: key, KeyID: kid, Algorithm: "ES256", Use: "sig"}
	if publish {
		i.change(func(i *issuer) { i.keys = append(i.keys, jwk) })
	}
	return jwk
}

// claims are those of a good token, with changes; a nil value removes a claim.
func (i *issuer) claims(now time.Time, changes map[string]any) map[string]any {
	c := map[string]any{
		"iss": i.url(), "sub": "user-1", "aud": []string{resource}, "client_id": "client-1", "scope": "mcp:read mcp:write",
		"tsid": "session-1", "jti": "id-1", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	maps.Copy(c, changes)
	for k, v := range c {
		if v == nil {
			delete(c, k)
		}
	}
	return c
}

// sign makes a compact token of any kind.
func sign(t testing.TB, alg jose.SignatureAlgorithm, key any, header map[jose.HeaderKey]any, payload any) string {
	t.Helper()
	opts := &jose.SignerOptions{ExtraHeaders: header}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, opts)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(payload)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := signer.Sign(b)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func accessToken(t testing.TB, key jose.JSONWebKey, payload any) string {
	t.Helper()
	return sign(t, jose.ES256, key, map[jose.HeaderKey]any{jose.HeaderType: "at+jwt"}, payload)
}

// clock is a time that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 7, 28, 12, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func verifier(t testing.TB, i *issuer, c *clock, change func(*bearer.Config)) *bearer.Verifier {
	t.Helper()
	cfg := bearer.Config{
		Issuer: i.url(), JWKSURL: i.url() + "/jwks", Type: bearer.TypeAccessToken, Now: c.Now,
		Client: outbound.New(outbound.Config{Policy: outbound.Trusted()}),
	}
	if change != nil {
		change(&cfg)
	}
	v, err := bearer.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
