package upstream_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/upstream"
)

func redeemRequest() upstream.RedeemRequest {
	return upstream.RedeemRequest{Code: secret.New(plantedCode), Verifier: secret.New(testVerifier), Nonce: "n-1"}
}

func TestOIDCRedeemSendsWhatTheProviderNeeds(t *testing.T) {
	t.Parallel()
	i := startIDP(t)
	var form url.Values
	var user, pass string
	i.handle("/token", func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		form = r.PostForm
		user, pass, _ = r.BasicAuth()
		answer(w, 200, i.grant(nil))
	})
	cfg := i.provider()
	cfg.TokenParams = map[string]string{"resource": "https://api.example.com", "grant_type": "password"}
	p := build(t, cfg, map[string]string{"CORP_CLIENT_SECRET": "a b+c%"})
	g, err := p.Redeem(t.Context(), redeemRequest())
	if err != nil {
		t.Fatal(fault.Detail(err))
	}
	if g.Identity != (upstream.Identity{Subject: "alice-1", Name: "Alice", Email: plantedEmail}) {
		t.Errorf("identity %v", g.Identity)
	}
	want := url.Values{
		"grant_type": {"authorization_code"}, "code": {plantedCode}, "code_verifier": {testVerifier},
		"redirect_uri": {cfg.RedirectURI}, "resource": {"https://api.example.com"},
	}
	if form.Encode() != want.Encode() {
		t.Errorf("sent %v, want %v", form, want)
	}
	// RFC 6749, section 2.3.1: form-encoded before base64.
	if user != "chatelaine" || pass != url.QueryEscape("a b+c%") {
		t.Errorf("basic credentials %q:%q", user, pass)
	}
	if n := i.count("/userinfo"); n != 0 {
		t.Errorf("asked userinfo %d times although the id token says it all", n)
	}
}

func TestOIDCIdentityIsOnlyWhatTheIDTokenProves(t *testing.T) {
	t.Parallel()
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	soon := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	tests := []struct {
		name  string
		token func(i *idp) string
		check string
	}{
		{"no id token", func(*idp) string { return "" }, "id_token"},
		{"alg none", func(i *idp) string { return unsigned(t, i.claims(nil)) }, "signature"},
		{"signed with our client secret", func(i *idp) string {
			return sign(t, newSigner(t, jose.HS256, []byte(strings.Repeat(plantedSecret, 2)), "k1"), i.claims(nil))
		}, "signature"},
		{"signed by a stranger", func(i *idp) string {
			return sign(t, newSigner(t, jose.ES256, other, "k1"), i.claims(nil))
		}, "signature"},
		{"unknown key", func(i *idp) string {
			return sign(t, newSigner(t, jose.ES256, other, "k2"), i.claims(nil))
		}, "signature"},
		{"not a JWT", func(*idp) string { return "opaque" }, "signature"},
		{"other issuer", func(i *idp) string { return i.idToken(map[string]any{"iss": i.url + "/"}) }, "issuer"},
		{"other audience", func(i *idp) string { return i.idToken(map[string]any{"aud": "another"}) }, "audience"},
		{"no audience", func(i *idp) string { return i.idToken(map[string]any{"aud": nil}) }, "audience"},
		{"many audiences, no azp", func(i *idp) string {
			return i.idToken(map[string]any{"aud": []string{"chatelaine", "another"}})
		}, "authorized_party"},
		{"issued to another client", func(i *idp) string {
			return i.idToken(map[string]any{"aud": []string{"chatelaine", "another"}, "azp": "another"})
		}, "authorized_party"},
		{"expired", func(i *idp) string { return i.idToken(map[string]any{"exp": soon(-2 * time.Minute)}) }, "expiry"},
		{"no expiry", func(i *idp) string { return i.idToken(map[string]any{"exp": nil}) }, "expiry"},
		{"expiry as text", func(i *idp) string { return i.idToken(map[string]any{"exp": "never"}) }, "expiry"},
		{"issued in the future", func(i *idp) string { return i.idToken(map[string]any{"iat": soon(5 * time.Minute)}) }, "issued_at"},
		{"not yet valid", func(i *idp) string { return i.idToken(map[string]any{"nbf": soon(5 * time.Minute)}) }, "not_before"},
		{"other nonce", func(i *idp) string { return i.idToken(map[string]any{"nonce": "n-2"}) }, "nonce"},
		{"no nonce", func(i *idp) string { return i.idToken(map[string]any{"nonce": nil}) }, "nonce"},
		{"no subject", func(i *idp) string { return i.idToken(map[string]any{"sub": nil}) }, "subject"},
		{"empty subject", func(i *idp) string { return i.idToken(map[string]any{"sub": ""}) }, "subject"},
		{"endless subject", func(i *idp) string { return i.idToken(map[string]any{"sub": strings.Repeat("a", 600)}) }, "subject"},
		{"subject with NUL", func(i *idp) string { return i.idToken(map[string]any{"sub": "a\x00b"}) }, "subject"},
		{"subject twice", func(i *idp) string {
			payload, _ := json.Marshal(i.claims(nil))
			return signBytes(t, i.signer, append([]byte(`{"sub":"mallory",`), payload[1:]...))
		}, "claims"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			i := startIDP(t)
			i.handle("/token", func(w http.ResponseWriter, _ *http.Request) {
				answer(w, 200, i.grant(map[string]any{"id_token": tt.token(i)}))
			})
			_, err := build(t, i.provider(), plantedEnv()).Redeem(t.Context(), redeemRequest())
			wantIdentityInvalid(t, err, tt.check)
		})
	}
}

func TestOIDCToleratesClocksThatDifferALittle(t *testing.T) {
	t.Parallel()
	i := startIDP(t)
	i.handle("/token", func(w http.ResponseWriter, _ *http.Request) {
		now := time.Now()
		answer(w, 200, i.grant(map[string]any{"id_token": i.idToken(map[string]any{
			"exp": now.Add(-30 * time.Second).Unix(), "iat": now.Add(30 * time.Second).Unix(),
			"aud": []string{"chatelaine", "zitadel-project"}, "azp": "chatelaine",
		})}))
	})
	if _, err := build(t, i.provider(), plantedEnv()).Redeem(t.Context(), redeemRequest()); err != nil {
		t.Fatal(fault.Detail(err))
	}
}

func TestOIDCSubjectClaim(t *testing.T) {
	t.Parallel()
	i := startIDP(t)
	i.handle("/token", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, i.grant(map[string]any{"id_token": i.idToken(map[string]any{"employee": json.Number("900719925474099312345")})}))
	})
	cfg := i.provider()
	cfg.OIDC.SubjectClaim = "employee"
	g, err := build(t, cfg, plantedEnv()).Redeem(t.Context(), redeemRequest())
	if err != nil {
		t.Fatal(fault.Detail(err))
	}
	if g.Identity.Subject != "900719925474099312345" {
		t.Errorf("subject %q lost digits", g.Identity.Subject)
	}
}

func TestOIDCUserInfo(t *testing.T) {
	t.Parallel()
	override := func(i *idp, c *config.Provider) {
		c.UserInfo = &config.UserInfoRequest{
			URL: i.url + "/me", Method: "POST", Headers: map[string]string{"X-Api": "1", "Authorization": "mine"},
			SubjectFields: []string{"sub"}, NameFields: []string{"nick"}, EmailFields: []string{"mail"},
		}
	}
	tests := []struct {
		name    string
		claims  map[string]any
		cfg     func(*idp, *config.Provider)
		path    string
		handler http.HandlerFunc
		want    string // name
		check   string // when it must fail
		refused bool
	}{
		{
			name: "completes a missing name", claims: map[string]any{"name": nil}, path: "/userinfo",
			handler: respond(200, "application/json", `{"sub":"alice-1","preferred_username":"alice"}`), want: "alice",
		},
		{
			name: "does not stop a login when it is down", claims: map[string]any{"name": nil}, path: "/userinfo",
			handler: respond(500, "text/plain", plantedBody), want: "",
		},
		{
			name: "about somebody else", claims: map[string]any{"name": nil}, path: "/userinfo",
			handler: respond(200, "application/json", `{"sub":"mallory","name":"Mallory"}`), check: "userinfo_subject",
		},
		{
			name: "override", cfg: override, path: "/me",
			handler: func(w http.ResponseWriter, r *http.Request) {
				if r.Method != "POST" || r.Header.Get("X-Api") != "1" || r.Header.Get("Authorization") != "Bearer "+plantedAccess {
					w.WriteHeader(418)
					return
				}
				answer(w, 200, map[string]any{"sub": "alice-1", "nick": "al\u202eice\n"})
			},
			want: "alice",
		},
		{
			name: "override about somebody else", cfg: override, path: "/me",
			handler: respond(200, "application/json", `{"sub":"mallory"}`), check: "userinfo_subject",
		},
		{
			name: "override about nobody", cfg: override, path: "/me",
			handler: respond(200, "application/json", `{"nick":"x"}`), check: "userinfo_subject",
		},
		{name: "override refuses", cfg: override, path: "/me", handler: respond(401, "text/html", plantedBody), refused: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			i := startIDP(t)
			i.handle("/token", func(w http.ResponseWriter, _ *http.Request) {
				answer(w, 200, i.grant(map[string]any{"id_token": i.idToken(tt.claims)}))
			})
			i.handle(tt.path, tt.handler)
			cfg := i.provider()
			if tt.cfg != nil {
				tt.cfg(i, &cfg)
			}
			g, err := build(t, cfg, plantedEnv()).Redeem(t.Context(), redeemRequest())
			switch {
			case tt.check != "":
				wantIdentityInvalid(t, err, tt.check)
			case tt.refused:
				wantRefused(t, err, "invalid_token")
			case err != nil:
				t.Fatal(fault.Detail(err))
			case g.Identity.Name != tt.want:
				t.Errorf("name %q, want %q", g.Identity.Name, tt.want)
			}
		})
	}
}

func TestOIDCRefresh(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change map[string]any
		check  string
		verify func(t *testing.T, g upstream.Grant)
	}{
		{
			name: "keeps the old refresh token", change: map[string]any{"refresh_token": nil, "id_token": nil},
			verify: func(t *testing.T, g upstream.Grant) {
				if g.RefreshToken.Reveal() != "old" || !g.IDToken.IsZero() || g.Identity.Subject != "alice-1" {
					t.Errorf("grant %+v", g)
				}
			},
		},
		{
			name: "reports other scopes", change: map[string]any{"scope": "profile"},
			verify: func(t *testing.T, g upstream.Grant) {
				if !slices.Equal(g.Scopes, []string{"profile"}) || g.RefreshToken.Reveal() == "old" {
					t.Errorf("grant %+v", g)
				}
			},
		},
		{
			name: "keeps scopes that are not repeated", change: map[string]any{"scope": nil, "expires_in": nil},
			verify: func(t *testing.T, g upstream.Grant) {
				if !slices.Equal(g.Scopes, []string{"openid", "profile"}) || g.HasExpiry {
					t.Errorf("grant %+v", g)
				}
			},
		},
		{name: "other subject", change: map[string]any{"sub": "mallory"}, check: "subject_changed"},
		{name: "other issuer", change: map[string]any{"iss": "https://evil.example"}, check: "issuer"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			i := startIDP(t)
			i.handle("/token", func(w http.ResponseWriter, _ *http.Request) {
				g := i.grant(map[string]any{"id_token": i.idToken(map[string]any{"nonce": nil})})
				if tt.check != "" {
					g["id_token"] = i.idToken(merge(map[string]any{"nonce": "another"}, tt.change))
				} else {
					merge(g, tt.change)
				}
				answer(w, 200, g)
			})
			g, err := build(t, i.provider(), plantedEnv()).Refresh(t.Context(), upstream.RefreshRequest{
				RefreshToken: secret.New("old"), Subject: "alice-1", Scopes: []string{"profile", "openid"},
			})
			if tt.check != "" {
				wantIdentityInvalid(t, err, tt.check)
				return
			}
			if err != nil {
				t.Fatal(fault.Detail(err))
			}
			tt.verify(t, g)
		})
	}
}

// A provider that rotates refresh tokens has spent the old one when it answers:
// dropping its answer locks the person out. Yet an answer about another person
// must never be kept.
func TestARefreshTokenIsNotLostWhileTheProvidersKeysCannotBeHad(t *testing.T) {
	t.Parallel()
	unavailable := respond(503, "text/plain", "down")
	states := map[string]struct {
		cached bool          // the keys were read when the provider had another one
		later  time.Duration // how long ago
		keys   http.HandlerFunc
	}{
		"never read":                   {keys: unavailable},
		"read a moment ago":            {cached: true},
		"a new key cannot be fetched":  {cached: true, later: time.Minute, keys: unavailable},
		"a key set in a cache lags":    {cached: true, later: time.Minute},
		"old keys, new cannot be read": {cached: true, later: 48 * time.Hour, keys: unavailable},
	}
	answers := map[string]struct {
		claims map[string]any
		check  string
	}{
		"good":          {},
		"other person":  {claims: map[string]any{"sub": "mallory"}, check: "subject_changed"},
		"other client":  {claims: map[string]any{"aud": "another"}, check: "audience"},
		"other issuer":  {claims: map[string]any{"iss": "https://evil.example"}, check: "issuer"},
		"nobody at all": {claims: map[string]any{"sub": nil}, check: "subject"},
	}
	for state, s := range states {
		for name, tt := range answers {
			t.Run(state+"/"+name, func(t *testing.T) {
				t.Parallel()
				i := startIDP(t)
				clock := &testClock{now: time.Now()}
				p := buildAt(t, i.provider(), clock)
				if s.cached {
					if _, err := p.Redeem(t.Context(), redeemRequest()); err != nil {
						t.Fatal(fault.Detail(err))
					}
					clock.advance(s.later)
				}
				if s.keys != nil {
					i.handle("/keys", s.keys)
				}
				key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
				if err != nil {
					t.Fatal(err)
				}
				claims := i.claims(map[string]any{"iat": clock.Now().Unix(), "exp": clock.Now().Add(time.Hour).Unix()})
				token := sign(t, newSigner(t, jose.ES256, key, "k2"), merge(claims, tt.claims))
				i.handle("/token", func(w http.ResponseWriter, _ *http.Request) {
					answer(w, 200, i.grant(map[string]any{"id_token": token}))
				})
				g, err := p.Refresh(t.Context(), upstream.RefreshRequest{
					RefreshToken: secret.New("old"), Subject: "alice-1", Scopes: []string{"openid", "profile"},
				})
				if tt.check != "" {
					wantIdentityInvalid(t, err, tt.check)
					return
				}
				if err != nil {
					t.Fatal(fault.Detail(err))
				}
				if g.RefreshToken.Reveal() != plantedRefresh || g.AccessToken.Reveal() != plantedAccess {
					t.Error("what the provider granted is lost")
				}
				if !g.IDToken.IsZero() {
					t.Error("an id token that nobody verified is kept")
				}
			})
		}
	}
}

// A wrong signature by a key that we have is no outage.
func TestARefreshedIDTokenWithAForgedSignatureIsRefused(t *testing.T) {
	t.Parallel()
	i := startIDP(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, token := range map[string]string{
		"another key": sign(t, newSigner(t, jose.ES256, key, "k1"), i.claims(nil)),
		"unsigned":    unsigned(t, i.claims(nil)),
	} {
		t.Run(name, func(t *testing.T) {
			i.handle("/token", func(w http.ResponseWriter, _ *http.Request) {
				answer(w, 200, i.grant(map[string]any{"id_token": token}))
			})
			_, err := build(t, i.provider(), plantedEnv()).Refresh(t.Context(), upstream.RefreshRequest{
				RefreshToken: secret.New("old"), Subject: "alice-1",
			})
			wantIdentityInvalid(t, err, "signature")
		})
	}
}

// Whether a token left decides if it counts as spent: a discovery that answers 503
// has not seen it, and an outage after the token endpoint's answer does not undo it.
func TestAnErrorSaysWhetherTheTokenLeft(t *testing.T) {
	t.Parallel()
	const discovery, keys = "/.well-known/openid-configuration", "/keys"
	calls := map[string]func(context.Context, *upstream.Provider) error{
		"redeem": func(ctx context.Context, p *upstream.Provider) error {
			_, err := p.Redeem(ctx, redeemRequest())
			return err
		},
		"refresh": func(ctx context.Context, p *upstream.Provider) error {
			_, err := p.Refresh(ctx, upstream.RefreshRequest{RefreshToken: secret.New("old"), Subject: "alice-1"})
			return err
		},
	}
	for name, tt := range map[string]struct {
		call, path, sent string
		tokens           int
	}{
		"redeem without discovery":  {"redeem", discovery, "false", 0},
		"refresh without discovery": {"refresh", discovery, "false", 0},
		"redeem without keys":       {"redeem", keys, "true", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := startIDP(t)
			i.handle(tt.path, respond(503, "text/plain", "down"))
			err := calls[tt.call](t.Context(), build(t, i.provider(), plantedEnv()))
			f := wantReason(t, err, reason.UpstreamUnavailable)
			if got := f.Metadata[upstream.MetadataSent]; got != tt.sent {
				t.Errorf("sent %q, want %q: %v", got, tt.sent, err)
			}
			if n := i.count("/token"); n != tt.tokens {
				t.Errorf("%d token requests", n)
			}
		})
	}
	t.Run("keys at an address where nobody listens", func(t *testing.T) {
		t.Parallel()
		i := startIDP(t)
		i.handle(discovery, func(w http.ResponseWriter, _ *http.Request) {
			answer(w, 200, merge(i.discovery(), map[string]any{"jwks_uri": closedURL(t)}))
		})
		err := calls["redeem"](t.Context(), build(t, i.provider(), plantedEnv()))
		f := wantReason(t, err, reason.UpstreamUnavailable)
		if f.Metadata[upstream.MetadataSent] != "true" {
			t.Errorf("metadata %v, although the code was redeemed", f.Metadata)
		}
	})
}

func TestOIDCDiscoveryIsChecked(t *testing.T) {
	t.Parallel()
	tests := map[string]map[string]any{
		"other issuer":             {"issuer": "https://evil.example"},
		"issuer with a slash":      nil, // filled in below
		"no token endpoint":        {"token_endpoint": nil},
		"no authorization":         {"authorization_endpoint": nil},
		"no keys":                  {"jwks_uri": nil},
		"token endpoint elsewhere": {"token_endpoint": "http://192.0.2.1/token"},
		"script":                   {"authorization_endpoint": "javascript:alert(1)"},
		"credentials in a URL":     {"token_endpoint": "https://user:pass@example.com/token"},
		"fragment":                 {"authorization_endpoint": "https://example.com/#x"},
		"token endpoint twice":     {"token_endpoint": []string{"https://a.example", "https://b.example"}},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := startIDP(t)
			if change == nil {
				change = map[string]any{"issuer": i.url + "/"}
			}
			i.handle("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
				answer(w, 200, merge(i.discovery(), change))
			})
			p := build(t, i.provider(), plantedEnv())
			_, err := p.Describe(t.Context())
			wantReason(t, err, reason.UpstreamUnavailable)
			_, err = p.Redeem(t.Context(), redeemRequest())
			f := wantReason(t, err, reason.UpstreamUnavailable)
			if i.count("/token") != 0 || f.Kind != fault.Unavailable {
				t.Error("the code was sent although discovery failed")
			}
		})
	}
}

// Many logins at once, or a provider that is down, must not become many requests.
func TestOIDCDiscoveryIsSharedAndNotHammered(t *testing.T) {
	t.Parallel()
	i := startIDP(t)
	const discovery = "/.well-known/openid-configuration"
	p := build(t, i.provider(), plantedEnv())
	done := make(chan error)
	for range 20 {
		go func() { _, err := p.Describe(t.Context()); done <- err }()
	}
	for range 20 {
		if err := <-done; err != nil {
			t.Error(fault.Detail(err))
		}
	}
	if n := i.count(discovery); n != 1 {
		t.Errorf("%d discovery requests for 20 callers", n)
	}

	down := startIDP(t)
	down.handle(discovery, respond(503, "text/plain", plantedBody))
	p = build(t, down.provider(), plantedEnv())
	for range 20 {
		_, err := p.Describe(t.Context())
		wantReason(t, err, reason.UpstreamUnavailable)
	}
	if n := down.count(discovery); n > 2 {
		t.Errorf("%d discovery requests to a provider that is down", n)
	}
}

func TestOIDCKeysRotate(t *testing.T) {
	t.Parallel()
	i := startIDP(t)
	clock := &testClock{now: time.Now()}
	p := buildAt(t, i.provider(), clock)
	if _, err := p.Redeem(t.Context(), redeemRequest()); err != nil {
		t.Fatal(fault.Detail(err))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i.handle("/token", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, i.grant(map[string]any{"id_token": sign(t, newSigner(t, jose.ES256, key, "k2"), i.claims(nil))}))
	})
	rotated := func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k2"}}})
	}
	i.handle("/keys", rotated)
	_, err = p.Redeem(t.Context(), redeemRequest())
	// The keys were read this very moment: nobody knows, and a new login will do.
	f := wantReason(t, err, reason.UpstreamUnavailable)
	if f.Kind != fault.Unavailable || f.RetryAfter <= 0 || f.Metadata[upstream.MetadataSent] != "true" {
		t.Errorf("kind %v, retry after %v, metadata %v", f.Kind, f.RetryAfter, f.Metadata)
	}
	clock.advance(10 * time.Second)
	i.handle("/keys", respond(503, "text/plain", "down"))
	_, err = p.Redeem(t.Context(), redeemRequest())
	wantReason(t, err, reason.UpstreamUnavailable) // no word against the person
	i.handle("/keys", rotated)
	clock.advance(10 * time.Second)
	if _, err := p.Redeem(t.Context(), redeemRequest()); err != nil {
		t.Fatalf("a new key of the provider is not accepted: %s", fault.Detail(err))
	}
	if n := i.count("/keys"); n != 3 {
		t.Errorf("%d key requests", n)
	}
}

func TestOIDCKeysThatCannotBeHadAreNoBadIdentity(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]http.HandlerFunc{
		"down":      respond(500, "text/plain", plantedBody),
		"garbage":   respond(200, "application/json", "garbage"),
		"empty":     respond(200, "application/json", `{"keys":[]}`),
		"symmetric": respond(200, "application/json", `{"keys":[{"kty":"oct","k":"AAAA","kid":"k1"}]}`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i := startIDP(t)
			i.handle("/keys", h)
			_, err := build(t, i.provider(), plantedEnv()).Redeem(t.Context(), redeemRequest())
			wantReason(t, err, reason.UpstreamUnavailable)
		})
	}
}

func TestRevokeWithoutAnEndpointIsNoError(t *testing.T) {
	t.Parallel()
	i := startIDP(t)
	i.handle("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, merge(i.discovery(), map[string]any{"revocation_endpoint": nil}))
	})
	if err := build(t, i.provider(), plantedEnv()).Revoke(t.Context(), secret.New("x"), upstream.HintRefreshToken); err != nil {
		t.Error(fault.Detail(err))
	}
	if i.count("/revoke") != 0 {
		t.Error("revoked at an endpoint that was not named")
	}
}

// A caller that goes away while discovery runs must not fail the others.
func TestOIDCDiscoveryOutlivesItsFirstCaller(t *testing.T) {
	t.Parallel()
	i := startIDP(t)
	release, arrived := make(chan struct{}), make(chan struct{})
	i.handle("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		close(arrived)
		<-release
		answer(w, 200, i.discovery())
	})
	p := build(t, i.provider(), plantedEnv())
	ctx, cancel := context.WithCancel(t.Context())
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { _, err := p.Describe(ctx); first <- err }()
	<-arrived
	go func() { _, err := p.Describe(t.Context()); second <- err }()
	cancel()
	f := wantReason(t, <-first, reason.UpstreamUnavailable)
	if f.Kind != fault.Canceled {
		t.Errorf("kind %v", f.Kind)
	}
	close(release)
	if err := <-second; err != nil {
		t.Error(fault.Detail(err))
	}
}

func TestPrivateAddressesNeedPermission(t *testing.T) {
	t.Parallel()
	i := startIDP(t)
	cfg := i.provider()
	_, port, err := net.SplitHostPort(strings.TrimPrefix(i.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	// A name that is public by its looks and private by its address.
	cfg.OIDC.Issuer = "http://10.0.0.1:" + port
	_, err = build(t, cfg, plantedEnv()).Describe(t.Context())
	f := wantReason(t, err, reason.UpstreamUnavailable)
	if f.Metadata[upstream.MetadataSent] != "false" || !strings.Contains(fault.Detail(err), "not allowed") {
		t.Errorf("error %s, %v", fault.Detail(err), f.Metadata)
	}
}
