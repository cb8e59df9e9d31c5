package credential_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"chatelaine.dev/internal/config"
	authserverv1 "chatelaine.dev/proto/authserver/v1"
)

// keys is an issuer's key and the place where it is published.
type keys struct {
	issuer, url string
	key, p384   *ecdsa.PrivateKey
}

func startKeys(t testing.TB) *keys {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(t, err)
	k := &keys{key: key, p384: p384}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/keys":
			respond(w, 200, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
				{Key: key.Public(), KeyID: "k1", Algorithm: "ES256", Use: "sig"},
				{Key: p384.Public(), KeyID: "k2", Algorithm: "ES384", Use: "sig"},
			}})
		case "/.well-known/openid-configuration":
			respond(w, 200, map[string]any{"issuer": k.issuer, "jwks_uri": k.url})
		default:
			w.WriteHeader(404)
		}
	}))
	t.Cleanup(server.Close)
	k.issuer, k.url = server.URL, server.URL+"/keys"
	return k
}

func signWith(t testing.TB, key *ecdsa.PrivateKey, typ string, claims map[string]any) string {
	t.Helper()
	algorithm, kid := jose.ES256, "k1"
	if key.Curve == elliptic.P384() {
		algorithm, kid = jose.ES384, "k2"
	}
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: algorithm, Key: jose.JSONWebKey{Key: key, KeyID: kid}},
		(&jose.SignerOptions{}).WithType(jose.ContentType(typ)))
	must(t, err)
	payload, err := json.Marshal(claims)
	must(t, err)
	jws, err := signer.Sign(payload)
	must(t, err)
	token, err := jws.CompactSerialize()
	must(t, err)
	return token
}

func respond(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// hub is octohub: plain OAuth 2.0 with refresh tokens that rotate.
type hub struct {
	url string

	mu       sync.Mutex
	n        int
	refresh  string // the one that is good
	renewals int
	dead     bool // invalid_grant from now on
	down     bool
	lifetime int
}

func startHub(t testing.TB) *hub {
	t.Helper()
	h := &hub{lifetime: 3600}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	h.url = server.URL
	return h
}

// sts is a token service. It says in the token what it was given.
type sts struct {
	url string

	mu       sync.Mutex
	n        int
	refuse   func(subject string) string // error code
	subjects []string
	actors   []string
}

func startSTS(t testing.TB) *sts {
	t.Helper()
	s := &sts{}
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	s.url = server.URL
	return s
}

// minter stands in for the authserver.
type minter struct {
	mu    sync.Mutex
	asked []*authserverv1.MintSubjectTokenRequest
	acted []*authserverv1.MintActorTokenRequest
	err   error
}

func (k *keys) sign(t testing.TB, typ string, claims map[string]any) string {
	t.Helper()
	return signWith(t, k.key, typ, claims)
}

func (h *hub) set(change func(*hub)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change(h)
}

func (h *hub) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.renewals
}

func (h *hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	_ = r.ParseForm()
	switch {
	case h.down:
		w.WriteHeader(500)
	case r.URL.Path == "/user":
		respond(w, 200, map[string]any{"id": 42, "login": "alice"})
	case r.PostForm.Get("grant_type") == "refresh_token" && (h.dead || r.PostForm.Get("refresh_token") != h.refresh):
		respond(w, 400, map[string]any{"error": "invalid_grant", "error_description": r.PostForm.Get("refresh_token")})
	default:
		if r.PostForm.Get("grant_type") == "refresh_token" {
			h.renewals++
		}
		h.n++
		h.refresh = fmt.Sprintf("%s-hub-rt-%d", planted, h.n)
		respond(w, 200, map[string]any{
			"access_token": fmt.Sprintf("%s-hub-at-%d", planted, h.n), "refresh_token": h.refresh,
			"token_type": "bearer", "expires_in": h.lifetime, "scope": "repo",
		})
	}
}

func (s *sts) set(change func(*sts)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

func (s *sts) seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.subjects...)
}

func (s *sts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = r.ParseForm()
	subject := r.PostForm.Get("subject_token")
	s.subjects = append(s.subjects, subject)
	s.actors = append(s.actors, r.PostForm.Get("actor_token"))
	if s.refuse != nil {
		if code := s.refuse(subject); code != "" {
			respond(w, 400, map[string]any{"error": code, "error_description": planted + subject})
			return
		}
	}
	s.n++
	respond(w, 200, map[string]any{
		"access_token": fmt.Sprintf("%s-exchanged-%d-for-%s", planted, s.n, r.PostForm.Get("audience")),
		"token_type":   "Bearer", "issued_token_type": config.TokenTypeAccessToken, "expires_in": 3600,
	})
}

func (m *minter) MintSubjectToken(_ context.Context, in *authserverv1.MintSubjectTokenRequest, _ ...grpc.CallOption) (*authserverv1.MintSubjectTokenResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, in)
	if m.err != nil {
		return nil, m.err
	}
	return &authserverv1.MintSubjectTokenResponse{
		Token: planted + "-minted-for-" + in.GetUserId(), ExpiresAt: timestamppb.New(time.Now().Add(2 * time.Minute)),
	}, nil
}

func (m *minter) MintActorToken(_ context.Context, in *authserverv1.MintActorTokenRequest, _ ...grpc.CallOption) (*authserverv1.MintActorTokenResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.acted = append(m.acted, in)
	if m.err != nil {
		return nil, m.err
	}
	return &authserverv1.MintActorTokenResponse{Token: planted + "-actor-of-" + in.GetSessionId()}, nil
}
