package bearer_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"chatelaine.dev/internal/bearer"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/outbound"
)

func TestNothingIsFetchedBeforeATokenNeedsIt(t *testing.T) {
	t.Parallel()
	i, c := newIssuer(t), newClock()
	v := verifier(t, i, c, nil)
	if _, err := v.Verify(t.Context(), "not a token", resource); err == nil || i.fetches.Load() != 0 {
		t.Errorf("%d fetches, %v", i.fetches.Load(), err)
	}
}

func TestManyCallersCauseOneFetch(t *testing.T) {
	t.Parallel()
	i, c := newIssuer(t), newClock()
	v, key := verifier(t, i, c, nil), i.newKey("k1", true)
	raw := accessToken(t, key, i.claims(c.Now(), nil))
	release := make(chan struct{})
	i.change(func(i *issuer) { i.block = release })
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := v.Verify(t.Context(), raw, resource); err != nil {
				t.Error(fault.Detail(err))
			}
		})
	}
	// One caller that gives up must not take the others' fetch with it.
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := v.Verify(impatient, raw, resource); fault.KindOf(err) != fault.Canceled {
		t.Errorf("a caller that left: %v", err)
	}
	close(release)
	wg.Wait()
	if n := i.fetches.Load(); n != 1 {
		t.Errorf("%d fetches", n)
	}
}

func TestANewKeyIsFoundAtItsFirstToken(t *testing.T) {
	t.Parallel()
	i, c := newIssuer(t), newClock()
	v, old := verifier(t, i, c, nil), i.newKey("k1", true)
	if _, err := v.Verify(t.Context(), accessToken(t, old, i.claims(c.Now(), nil)), resource); err != nil {
		t.Fatal(err)
	}
	c.advance(6 * time.Second)
	fresh := i.newKey("k2", true)
	for _, key := range []jose.JSONWebKey{fresh, old} {
		if _, err := v.Verify(t.Context(), accessToken(t, key, i.claims(c.Now(), nil)), resource); err != nil {
			t.Errorf("key %s: %s", key.KeyID, fault.Detail(err))
		}
	}
	if n := i.fetches.Load(); n != 2 {
		t.Errorf("%d fetches, want 2", n)
	}
}

func TestForgedKeyNamesCannotMakeUsHammerTheIssuer(t *testing.T) {
	t.Parallel()
	i, c := newIssuer(t), newClock()
	v := verifier(t, i, c, nil)
	i.newKey("k1", true)
	forge := func(kid, want string) {
		t.Helper()
		raw := accessToken(t, i.newKey(kid, false), i.claims(c.Now(), nil))
		if _, err := v.Verify(t.Context(), raw, resource); fault.ReasonOf(err) != want {
			t.Errorf("%s: %v, want %s", kid, fault.Detail(err), want)
		}
	}
	forge("forged-0", bearer.ReasonSignature)
	for n := range 50 { // nobody can tell without another fetch
		forge(fmt.Sprint("forged-", n+1), bearer.ReasonKeys)
	}
	if n := i.fetches.Load(); n != 1 {
		t.Errorf("%d fetches for names made up within a moment", n)
	}
	for range 10 { // the same name again, each time after the rate limit
		c.advance(6 * time.Second)
		forge("forged-0", bearer.ReasonSignature)
	}
	if n := i.fetches.Load(); n != 1 {
		t.Errorf("%d fetches for one name in a minute", n)
	}
	c.advance(6 * time.Second)
	forge("forged-0", bearer.ReasonSignature)
	if n := i.fetches.Load(); n != 2 {
		t.Errorf("%d fetches: a name is never looked for again", n)
	}
}

func TestAKeyThatIsPublishedRightAfterAFetchIsNotRefusedForAMinute(t *testing.T) {
	t.Parallel()
	i, c := newIssuer(t), newClock()
	v, old := verifier(t, i, c, nil), i.newKey("k1", true)
	if _, err := v.Verify(t.Context(), accessToken(t, old, i.claims(c.Now(), nil)), resource); err != nil {
		t.Fatal(err)
	}
	raw := accessToken(t, i.newKey("k2", true), i.claims(c.Now(), nil))
	_, err := v.Verify(t.Context(), raw, resource)
	if f := fault.From(err); err == nil || f.Kind != fault.Unavailable || f.Reason != bearer.ReasonKeys || f.RetryAfter <= 0 {
		t.Fatalf("within the rate limit: %s", fault.Detail(err))
	}
	c.advance(fault.From(err).RetryAfter)
	if _, err := v.Verify(t.Context(), raw, resource); err != nil {
		t.Errorf("when told to try again: %s", fault.Detail(err))
	}
}

func TestAWithdrawnKeyStopsCounting(t *testing.T) {
	t.Parallel()
	i, c := newIssuer(t), newClock()
	v, bad := verifier(t, i, c, nil), i.newKey("bad", true)
	i.newKey("good", true)
	raw := accessToken(t, bad, i.claims(c.Now(), nil))
	if _, err := v.Verify(t.Context(), raw, resource); err != nil {
		t.Fatal(err)
	}
	i.change(func(i *issuer) { i.keys = i.keys[1:] })
	c.advance(11 * time.Minute)
	if _, err := v.Verify(t.Context(), raw, resource); fault.ReasonOf(err) != bearer.ReasonSignature {
		t.Errorf("a token of a withdrawn key: %v", err)
	}
}

func TestAKeyWithAnotherUnderItsNameStopsCountingForRememberedTokens(t *testing.T) {
	t.Parallel()
	i, c := newIssuer(t), newClock()
	v, bad := verifier(t, i, c, nil), i.newKey("k1", true)
	remembered := accessToken(t, bad, i.claims(c.Now(), nil))
	if _, err := v.Verify(t.Context(), remembered, resource); err != nil {
		t.Fatal(err)
	}
	c.advance(6 * time.Second)
	i.change(func(i *issuer) { i.keys = nil })
	i.newKey("k1", true)
	// Anything that makes the keys be looked at: here a token of a new key.
	if _, err := v.Verify(t.Context(), accessToken(t, i.newKey("k2", true), i.claims(c.Now(), nil)), resource); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(t.Context(), remembered, resource); fault.ReasonOf(err) != bearer.ReasonSignature {
		t.Errorf("a remembered token of a replaced key: %v", err)
	}
}

func TestWhileTheIssuerIsDownKnownKeysWorkAndUnknownOnesAreNotBlamedOnTheCaller(t *testing.T) {
	t.Parallel()
	i, c := newIssuer(t), newClock()
	v, key := verifier(t, i, c, nil), i.newKey("k1", true)
	other := i.newKey("k2", false)
	token := func(k jose.JSONWebKey) string { return accessToken(t, k, i.claims(c.Now(), nil)) }
	if _, err := v.Verify(t.Context(), token(key), resource); err != nil {
		t.Fatal(err)
	}
	i.change(func(i *issuer) { i.status = http.StatusServiceUnavailable })
	c.advance(time.Hour)
	if _, err := v.Verify(t.Context(), token(key), resource); err != nil {
		t.Errorf("a known key: %s", fault.Detail(err))
	}
	_, err := v.Verify(t.Context(), token(other), resource)
	if fault.KindOf(err) != fault.Unavailable || fault.ReasonOf(err) != bearer.ReasonKeys {
		t.Errorf("an unknown key: %s", fault.Detail(err))
	}
	i.change(func(i *issuer) { i.status = 0; i.keys = append(i.keys, other) })
	c.advance(6 * time.Second)
	if _, err := v.Verify(t.Context(), token(other), resource); err != nil {
		t.Errorf("after it came back: %s", fault.Detail(err))
	}
}

func TestWithoutAnyKeysTheIssuerIsAskedOnceASecond(t *testing.T) {
	t.Parallel()
	i, c := newIssuer(t), newClock()
	v, key := verifier(t, i, c, nil), i.newKey("k1", true)
	i.change(func(i *issuer) { i.status = http.StatusBadGateway })
	raw := accessToken(t, key, i.claims(c.Now(), nil))
	for range 10 {
		if _, err := v.Verify(t.Context(), raw, resource); fault.ReasonOf(err) != bearer.ReasonKeys || !strings.Contains(fault.Detail(err), "502") {
			t.Errorf("error = %s", fault.Detail(err))
		}
	}
	if n := i.fetches.Load(); n != 1 {
		t.Errorf("%d fetches in a moment", n)
	}
	i.change(func(i *issuer) { i.status = 0 })
	c.advance(2 * time.Second)
	if _, err := v.Verify(t.Context(), raw, resource); err != nil {
		t.Errorf("after it came back: %s", fault.Detail(err))
	}
}

func TestKeySetsThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	marshal := func(keys ...jose.JSONWebKey) []byte {
		b, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	i, c := newIssuer(t), newClock()
	private := i.newKey("k1", true)
	encryption := i.newKey("k1", false)
	encryption.Use = "enc"
	raw := accessToken(t, private, i.claims(c.Now(), nil))
	for name, body := range map[string][]byte{
		"not JSON":        []byte("<html>"),
		"empty":           []byte(`{}`),
		"too large":       []byte(`{"keys":[],"x":"` + strings.Repeat("x", 300<<10) + `"}`),
		"too many":        []byte(`{"keys":[` + strings.TrimSuffix(strings.Repeat(`{},`, 101), ",") + `]}`),
		"symmetric":       []byte(`{"keys":[{"kty":"oct","k":"c2VjcmV0","kid":"k1"}]}`),
		"private":         marshal(private),
		"for encryption":  marshal(encryption.Public()),
		"weak":            marshal(jose.JSONWebKey{Key: &weak.PublicKey, KeyID: "k1"}),
		"point off curve": []byte(`{"keys":[{"kty":"EC","crv":"P-256","kid":"k1","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE","y":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE"}]}`),
	} {
		i.change(func(i *issuer) { i.body = body })
		if _, err := verifier(t, i, c, nil).Verify(t.Context(), raw, resource); fault.ReasonOf(err) != bearer.ReasonKeys {
			t.Errorf("%s: %s", name, fault.Detail(err))
		}
	}
	// One odd key does not spoil the others.
	good := marshal(private.Public())
	i.change(func(i *issuer) {
		i.body = []byte(strings.Replace(string(good), `"keys":[`, `"keys":[{"kty":"future"},{"kty":"oct","k":"eA"},`, 1))
	})
	if _, err := verifier(t, i, c, nil).Verify(t.Context(), raw, resource); err != nil {
		t.Errorf("a good key among odd ones: %s", fault.Detail(err))
	}
}

func TestKeysAreFoundByDiscovery(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		path    string // of the issuer
		publish string // where the metadata is
		issuer  string // said in it; "" means the right one
		jwks    string // "" means the right one
		wantOK  bool
	}{
		"OpenID Connect":             {"", "/.well-known/openid-configuration", "", "", true},
		"OpenID Connect with a path": {"/tenant/", "/tenant/.well-known/openid-configuration", "", "", true},
		"RFC 8414":                   {"", "/.well-known/oauth-authorization-server", "", "", true},
		"RFC 8414 with a path":       {"/tenant", "/.well-known/oauth-authorization-server/tenant", "", "", true},
		"nowhere":                    {"", "/elsewhere", "", "", false},
		"metadata of another issuer": {"", "/.well-known/openid-configuration", "https://evil.example", "", false},
		"keys at no URL":             {"", "/.well-known/openid-configuration", "", "jwks", false},
		"keys at a file":             {"", "/.well-known/openid-configuration", "", "file:///etc/passwd", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			i, c := newIssuer(t), newClock()
			mux := http.NewServeMux()
			mux.HandleFunc("GET /jwks", i.serveKeys)
			server := httptest.NewServer(mux)
			defer server.Close()
			issuerURL, jwks := server.URL+tt.path, server.URL+"/jwks"
			said := issuerURL
			if tt.issuer != "" {
				said = tt.issuer
			}
			if tt.jwks != "" {
				jwks = tt.jwks
			}
			mux.HandleFunc("GET "+tt.publish, func(w http.ResponseWriter, _ *http.Request) {
				_ = json.NewEncoder(w).Encode(map[string]string{"issuer": said, "jwks_uri": jwks})
			})
			v, err := bearer.New(bearer.Config{Issuer: issuerURL, Client: outbound.New(outbound.Config{Policy: outbound.Trusted()}), Now: c.Now})
			if err != nil {
				t.Fatal(err)
			}
			raw := accessToken(t, i.newKey("k1", true), i.claims(c.Now(), map[string]any{"iss": issuerURL}))
			_, err = v.Verify(t.Context(), raw, resource)
			if tt.wantOK && err != nil || !tt.wantOK && fault.ReasonOf(err) != bearer.ReasonKeys {
				t.Errorf("Verify = %s", fault.Detail(err))
			}
		})
	}
}

func TestTheMemoryForTokensIsBounded(t *testing.T) {
	t.Parallel()
	i, c := newIssuer(t), newClock()
	v, key := verifier(t, i, c, func(cfg *bearer.Config) { cfg.CacheSize = 2 }), i.newKey("k1", true)
	for n := range 10 {
		raw := accessToken(t, key, i.claims(c.Now(), map[string]any{"jti": fmt.Sprint(n)}))
		for range 2 {
			if got, err := v.Verify(t.Context(), raw, resource); err != nil || got.ID != fmt.Sprint(n) {
				t.Fatalf("token %d: %+v, %v", n, got, err)
			}
		}
	}
	if n := bearer.Remembered(v); n != 2 {
		t.Errorf("%d tokens are remembered, want 2", n)
	}
}
