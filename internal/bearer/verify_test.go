package bearer_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"chatelaine.dev/internal/bearer"
	"chatelaine.dev/internal/fault"
)

func TestAGoodTokenSaysWhoIsCalling(t *testing.T) {
	t.Parallel()
	i, c := newIssuer(t), newClock()
	v, key := verifier(t, i, c, nil), i.newKey("k1", true)
	raw := accessToken(t, key, i.claims(c.Now(), map[string]any{"aud": []string{resource, "https://other.example"}}))
	want := &bearer.Claims{
		Issuer: i.url(), Subject: "user-1", Audience: []string{resource, "https://other.example"}, ClientID: "client-1",
		Scope: "mcp:read mcp:write", SessionID: "session-1", ID: "id-1",
		Expiry: c.Now().Add(time.Hour),
	}
	for range 2 { // fresh, then remembered
		got, err := v.Verify(t.Context(), raw, "https://first.example", resource)
		if err != nil {
			t.Fatal(fault.Detail(err))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("claims (-want +got):\n%s", diff)
		}
		if !got.HasScope("mcp:read") || got.HasScope("mcp") || got.HasScope("") {
			t.Error("HasScope does not compare whole scopes")
		}
	}
	if n := i.fetches.Load(); n != 1 {
		t.Errorf("keys were fetched %d times", n)
	}
}

func TestBadTokensAreRefusedWithTheirReason(t *testing.T) {
	t.Parallel()
	i, c := newIssuer(t), newClock()
	v, key, now := verifier(t, i, c, nil), i.newKey("k1", true), c.Now()
	foreign := i.newKey("k1", false) // the published name, another key
	unknown := i.newKey("k9", false)
	public, err := x509.MarshalPKIXPublicKey(&key.Key.(*ecdsa.PrivateKey).PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	good := accessToken(t, key, i.claims(now, nil))
	// The first token makes the keys be fetched: only that tells unknown from new.
	if _, err := v.Verify(t.Context(), accessToken(t, unknown, i.claims(now, nil)), resource); fault.ReasonOf(err) != bearer.ReasonSignature {
		t.Fatal(fault.Detail(err))
	}
	parts := strings.Split(good, ".")
	withClaims := func(changes map[string]any) string { return accessToken(t, key, i.claims(now, changes)) }
	withType := func(typ any) string {
		return sign(t, jose.ES256, key, map[jose.HeaderKey]any{jose.HeaderType: typ}, i.claims(now, nil))
	}
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"at+jwt"}`)) + "." + parts[1] + "."

	for name, tt := range map[string]struct{ raw, reason string }{
		"empty":                        {"", bearer.ReasonMalformed},
		"not a token":                  {"opaque", bearer.ReasonMalformed},
		"two parts":                    {parts[0] + "." + parts[1], bearer.ReasonMalformed},
		"too large":                    {good + strings.Repeat("A", bearer.MaxTokenSize), bearer.ReasonMalformed},
		"JSON serialization":           {`{"payload":"","signatures":[]}`, bearer.ReasonMalformed},
		"alg none":                     {none, bearer.ReasonMalformed},
		"HMAC with the public key":     {sign(t, jose.HS256, public, map[jose.HeaderKey]any{jose.HeaderType: "at+jwt", "kid": "k1"}, i.claims(now, nil)), bearer.ReasonMalformed},
		"another's signature":          {accessToken(t, foreign, i.claims(now, nil)), bearer.ReasonSignature},
		"an unknown key":               {accessToken(t, unknown, i.claims(now, nil)), bearer.ReasonSignature},
		"other claims, same signature": {strings.Join([]string{parts[0], base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"admin"}`)), parts[2]}, "."), bearer.ReasonSignature},
		"signature removed":            {parts[0] + "." + parts[1] + ".", bearer.ReasonSignature},
		"an ID token":                  {withType("JWT"), bearer.ReasonType},
		"a logout token":               {withType("logout+jwt"), bearer.ReasonType},
		"type is no text":              {withType(7), bearer.ReasonType},
		"no type":                      {sign(t, jose.ES256, key, nil, i.claims(now, nil)), bearer.ReasonType},
		"another issuer":               {withClaims(map[string]any{"iss": i.url() + "/"}), bearer.ReasonIssuer},
		"no issuer":                    {withClaims(map[string]any{"iss": nil}), bearer.ReasonIssuer},
		"another audience":             {withClaims(map[string]any{"aud": "https://other.example"}), bearer.ReasonAudience},
		"a longer audience":            {withClaims(map[string]any{"aud": resource + "/repos"}), bearer.ReasonAudience},
		"no audience":                  {withClaims(map[string]any{"aud": nil}), bearer.ReasonMalformed},
		"empty audience":               {withClaims(map[string]any{"aud": ""}), bearer.ReasonMalformed},
		"no subject":                   {withClaims(map[string]any{"sub": nil}), bearer.ReasonMalformed},
		"subject is a number":          {withClaims(map[string]any{"sub": 7}), bearer.ReasonMalformed},
		"expired":                      {withClaims(map[string]any{"exp": now.Add(-31 * time.Second).Unix()}), bearer.ReasonExpired},
		"no expiry":                    {withClaims(map[string]any{"exp": nil}), bearer.ReasonMalformed},
		"expiry is text":               {withClaims(map[string]any{"exp": "2099"}), bearer.ReasonMalformed},
		"expiry beyond all time":       {withClaims(map[string]any{"exp": 1e300}), bearer.ReasonMalformed},
		"not yet valid":                {withClaims(map[string]any{"nbf": now.Add(31 * time.Second).Unix()}), bearer.ReasonMalformed},
		"claims are a list":            {accessToken(t, key, []string{"x"}), bearer.ReasonMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			claims, err := v.Verify(t.Context(), tt.raw, resource)
			if claims != nil || fault.KindOf(err) != fault.Unauthenticated || fault.ReasonOf(err) != tt.reason {
				t.Errorf("%v, %s (%s), want %s", claims, fault.Detail(err), fault.ReasonOf(err), tt.reason)
			}
			if err != nil && tt.raw != "" && strings.Contains(fault.Detail(err), tt.raw) {
				t.Error("the token is in the error")
			}
		})
	}
}

func TestClocksMayDifferByTheLeeway(t *testing.T) {
	t.Parallel()
	i, c := newIssuer(t), newClock()
	v, key, now := verifier(t, i, c, nil), i.newKey("k1", true), c.Now()
	for name, changes := range map[string]map[string]any{
		"just expired":       {"exp": now.Add(-29 * time.Second).Unix()},
		"valid from soon":    {"nbf": now.Add(29 * time.Second).Unix()},
		"fraction of second": {"exp": float64(now.Unix()) + 0.5},
	} {
		if _, err := v.Verify(t.Context(), accessToken(t, key, i.claims(now, changes)), resource); err != nil {
			t.Errorf("%s: %s", name, fault.Detail(err))
		}
	}
}

// A gateway whose clock is off must not lock everybody out: a token of an hour is
// good on every clock that has not passed its end.
func TestFreshTokensAreGoodWhereTheClockIsOff(t *testing.T) {
	t.Parallel()
	const lifetime = time.Hour
	for _, off := range []time.Duration{-5 * time.Minute, -20 * time.Second, 20 * time.Second, 5 * time.Minute} {
		i, c := newIssuer(t), newClock()
		v, key, issued := verifier(t, i, c, nil), i.newKey("k1", true), c.Now()
		raw := accessToken(t, key, i.claims(issued, map[string]any{"exp": issued.Add(lifetime).Unix()}))
		c.advance(off)
		if _, err := v.Verify(t.Context(), raw, resource); err != nil {
			t.Errorf("a clock that is off by %s: %s", off, fault.Detail(err))
		}
		// The end is where that clock sees it, and the leeway.
		c.advance(lifetime - off + bearer.DefaultLeeway + time.Second)
		if _, err := v.Verify(t.Context(), raw, resource); fault.ReasonOf(err) != bearer.ReasonExpired {
			t.Errorf("a clock that is off by %s, after the end: %v", off, err)
		}
	}
}

// A token that is meant for later stays shut, however it says when it was made.
func TestATokenFromTheFutureThatSaysSoIsRefused(t *testing.T) {
	t.Parallel()
	i, c := newIssuer(t), newClock()
	v, key, later := verifier(t, i, c, nil), i.newKey("k1", true), c.Now().Add(5*time.Minute).Unix()
	raw := accessToken(t, key, i.claims(c.Now(), map[string]any{"iat": later, "nbf": later}))
	if _, err := v.Verify(t.Context(), raw, resource); fault.ReasonOf(err) != bearer.ReasonMalformed {
		t.Errorf("%v", err)
	}
}

func TestOtherIssuersHaveOtherHabits(t *testing.T) {
	t.Parallel()
	i, c := newIssuer(t), newClock()
	v := verifier(t, i, c, func(cfg *bearer.Config) { cfg.Type = "" })
	key := i.newKey("k1", true)
	raw := sign(t, jose.ES256, key, map[jose.HeaderKey]any{jose.HeaderType: "JWT"}, i.claims(c.Now(), map[string]any{
		"aud": resource, "client_id": nil, "azp": "app", "scope": nil, "scp": []string{"a", "b"}, "tsid": nil,
	}))
	got, err := v.Verify(t.Context(), raw, resource)
	if err != nil {
		t.Fatal(fault.Detail(err))
	}
	if got.ClientID != "app" || got.Scope != "a b" || !cmp.Equal(got.Audience, []string{resource}) {
		t.Errorf("claims %+v", got)
	}
	upper := sign(t, jose.ES256, key, map[jose.HeaderKey]any{jose.HeaderType: "application/AT+JWT"}, i.claims(c.Now(), nil))
	if _, err := verifier(t, i, c, nil).Verify(t.Context(), upper, resource); err != nil {
		t.Errorf("the long form of the type: %v", err)
	}
}

func TestEveryAllowedAlgorithmWorksAndNoOther(t *testing.T) {
	t.Parallel()
	i, c := newIssuer(t), newClock()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i.change(func(i *issuer) {
		i.keys = []jose.JSONWebKey{{Key: rsaKey, KeyID: "rsa"}, {Key: edKey, KeyID: "ed", Algorithm: "EdDSA"}}
	})
	v := verifier(t, i, c, func(cfg *bearer.Config) { cfg.Algorithms = []string{"RS256", "EdDSA"} })
	token := func(alg jose.SignatureAlgorithm, key any, kid string) string {
		return sign(t, alg, key, map[jose.HeaderKey]any{jose.HeaderType: "at+jwt", "kid": kid}, i.claims(c.Now(), nil))
	}
	for _, raw := range []string{token(jose.RS256, rsaKey, "rsa"), token(jose.EdDSA, edKey, "ed"), token(jose.RS256, rsaKey, "")} {
		if _, err := v.Verify(t.Context(), raw, resource); err != nil {
			t.Errorf("an allowed algorithm: %s", fault.Detail(err))
		}
	}
	if _, err := v.Verify(t.Context(), token(jose.PS256, rsaKey, "rsa"), resource); fault.ReasonOf(err) != bearer.ReasonMalformed {
		t.Errorf("an algorithm that is not allowed: %v", err)
	}
	for _, bad := range []string{"none", "HS256", "", "es256", "RSA1_5"} {
		if _, err := bearer.New(bearer.Config{Issuer: "x", Client: i.server.Client(), Algorithms: []string{bad}}); fault.KindOf(err) != fault.Invalid {
			t.Errorf("algorithm %q can be allowed: %v", bad, err)
		}
	}
}

func TestVerifyNeedsToKnowWhatFor(t *testing.T) {
	t.Parallel()
	i, c := newIssuer(t), newClock()
	v, key := verifier(t, i, c, nil), i.newKey("k1", true)
	if claims, err := v.Verify(t.Context(), accessToken(t, key, i.claims(c.Now(), nil))); err == nil {
		t.Errorf("without an audience: %v", claims)
	}
}

func TestARememberedTokenStillExpiresAndStillHasItsAudience(t *testing.T) {
	t.Parallel()
	i, c := newIssuer(t), newClock()
	v, key := verifier(t, i, c, nil), i.newKey("k1", true)
	raw := accessToken(t, key, i.claims(c.Now(), map[string]any{"exp": c.Now().Add(time.Minute).Unix()}))
	if _, err := v.Verify(t.Context(), raw, resource); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(t.Context(), raw, "https://other.example"); fault.ReasonOf(err) != bearer.ReasonAudience {
		t.Errorf("another audience: %v", err)
	}
	c.advance(89 * time.Second)
	if _, err := v.Verify(t.Context(), raw, resource); err != nil {
		t.Errorf("within the leeway: %v", err)
	}
	c.advance(2 * time.Second)
	if _, err := v.Verify(t.Context(), raw, resource); fault.ReasonOf(err) != bearer.ReasonExpired {
		t.Errorf("after it: %v", err)
	}
}

func FuzzVerify(f *testing.F) {
	i, c := newIssuer(f), newClock()
	key := i.newKey("k1", true)
	v := verifier(f, i, c, func(cfg *bearer.Config) { cfg.CacheSize = -1 })
	good := accessToken(f, key, i.claims(c.Now(), nil))
	f.Add(good)
	f.Add(good[:len(good)-4])
	f.Add("e30.e30.")
	f.Add("..")
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Fuzz(func(t *testing.T, raw string) {
		claims, err := v.Verify(t.Context(), raw, resource)
		if err != nil {
			if fault.KindOf(err) != fault.Unauthenticated {
				t.Errorf("kind %s: %s", fault.KindOf(err), fault.Detail(err))
			}
			return
		}
		if claims.Subject != "user-1" { // the only one that the key ever signed
			t.Errorf("forged: %+v", claims)
		}
	})
}

func FuzzClaims(f *testing.F) {
	i, c := newIssuer(f), newClock()
	key := i.newKey("k1", true)
	v := verifier(f, i, c, func(cfg *bearer.Config) { cfg.CacheSize = -1 })
	seed, err := json.Marshal(i.claims(c.Now(), nil))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"iss":1}`))
	f.Add([]byte(`{"exp":-1,"aud":[[]]}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, (&jose.SignerOptions{}).WithType("at+jwt"))
		if err != nil {
			t.Fatal(err)
		}
		jws, err := signer.Sign(payload)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := jws.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		claims, err := v.Verify(t.Context(), raw, resource)
		if err == nil && (claims.Issuer != i.url() || claims.Subject == "" || claims.Expiry.IsZero()) {
			t.Errorf("incomplete claims were accepted: %+v", claims)
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	i, c := newIssuer(b), newClock()
	key := i.newKey("k1", true)
	raw := accessToken(b, key, i.claims(c.Now(), nil))
	for name, size := range map[string]int{"warm": 0, "cold": -1} {
		b.Run(name, func(b *testing.B) {
			v := verifier(b, i, c, func(cfg *bearer.Config) { cfg.CacheSize = size })
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(b.Context(), raw, resource); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
