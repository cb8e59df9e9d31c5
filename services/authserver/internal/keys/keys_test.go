package keys_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/authserver/internal/keys"
	"chatelaine.dev/services/authserver/internal/store"
)

func pemOf(t testing.TB, key any) secret.String {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return secret.New(string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
}

func ecKey(t testing.TB) *keys.Key {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, private)
}

func parse(t testing.TB, private any) *keys.Key {
	t.Helper()
	key, err := keys.Parse(pemOf(t, private))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// shared is the store of several replicas, with a clock of its own.
type shared struct {
	now       time.Time
	published map[string]time.Time
	keepUntil map[string]time.Time
	jwks      map[string]json.RawMessage
	macs      map[string][]byte
	down      bool
}

func newShared() *shared {
	return &shared{now: time.Unix(1e9, 0), published: map[string]time.Time{}, keepUntil: map[string]time.Time{}, jwks: map[string]json.RawMessage{}, macs: map[string][]byte{}}
}

func (s *shared) PublishKeys(_ context.Context, keys []store.SigningKey, keepFor time.Duration) ([]store.SigningKey, error) {
	if s.down {
		return nil, fault.New(fault.Unavailable, "")
	}
	for _, k := range keys {
		if _, ok := s.published[k.KID]; !ok {
			s.published[k.KID] = s.now
		}
		s.keepUntil[k.KID], s.jwks[k.KID], s.macs[k.KID] = s.now.Add(keepFor), k.JWK, k.MAC
	}
	var all []store.SigningKey
	for _, kid := range slices.Sorted(maps.Keys(s.published)) {
		if s.keepUntil[kid].After(s.now) {
			all = append(all, store.SigningKey{KID: kid, JWK: s.jwks[kid], MAC: s.macs[kid], Age: s.now.Sub(s.published[kid])})
		}
	}
	return all, nil
}

func newSet(t testing.TB, s *shared, list ...*keys.Key) *keys.Set {
	t.Helper()
	set, err := keys.New(keys.Config{
		Keys: list, MACKeys: []secret.Bytes{secret.NewBytes([]byte("newer")), secret.NewBytes([]byte("older"))}, TokenLifespan: time.Hour, PublishDelay: keys.DefaultPublishDelay, Store: s, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := set.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	return set
}

func signedBy(t testing.TB, set *keys.Set) string {
	t.Helper()
	token, err := set.Sign("at+jwt", map[string]string{"sub": "u"})
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.ES512, jose.RS256, jose.EdDSA})
	if err != nil {
		t.Fatal(err)
	}
	return parsed.Signatures[0].Protected.KeyID
}

func TestEachKindOfKeySignsWhatOthersCanVerify(t *testing.T) {
	t.Parallel()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, _ := ed25519.GenerateKey(rand.Reader)
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	p256, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	for algorithm, private := range map[string]crypto.Signer{"ES256": p256, "ES384": p384, "RS256": rsaKey, "EdDSA": edKey} {
		t.Run(algorithm, func(t *testing.T) {
			t.Parallel()
			set := newSet(t, newShared(), parse(t, private))
			if got := set.Algorithm(); got != algorithm {
				t.Errorf("algorithm %s", got)
			}
			token, err := set.Sign("at+jwt", map[string]string{"sub": "u"})
			if err != nil {
				t.Fatal(err)
			}
			document, err := set.JWKS()
			if err != nil {
				t.Fatal(err)
			}
			var jwks jose.JSONWebKeySet
			if err := json.Unmarshal(document, &jwks); err != nil || len(jwks.Keys) != 1 || jwks.Keys[0].Use != "sig" || !jwks.Keys[0].IsPublic() {
				t.Fatalf("JWKS %s: %v", document, err)
			}
			parsed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(algorithm)})
			if err != nil {
				t.Fatal(err)
			}
			if typ := parsed.Signatures[0].Protected.ExtraHeaders[jose.HeaderType]; typ != "at+jwt" {
				t.Errorf("typ %v", typ)
			}
			if _, err := parsed.Verify(jwks.Keys[0]); err != nil {
				t.Error(err)
			}
			if _, err := set.Verify(token, "at+jwt"); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWhatIsNoUsableKeyIsRefusedWithoutShowingIt(t *testing.T) {
	t.Parallel()
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p224, _ := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	p256, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	twice := pemOf(t, p256).Reveal() + pemOf(t, p256).Reveal()
	for name, text := range map[string]secret.String{
		"no PEM":           secret.New("MIGHAgEAMBMGByqGSM49"),
		"a certificate":    secret.New("-----BEGIN CERTIFICATE-----\nMIGH\n-----END CERTIFICATE-----\n"),
		"garbage in PEM":   secret.New("-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----\n"),
		"a small RSA key":  pemOf(t, small),
		"an unknown curve": pemOf(t, p224),
		"two keys":         secret.New(twice),
	} {
		_, err := keys.Parse(text)
		if err == nil || fault.KindOf(err) != fault.Invalid || strings.Contains(fault.Detail(err), "MIGH") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestANewKeyIsPublishedTenMinutesBeforeItSigns(t *testing.T) {
	t.Parallel()
	s := newShared()
	old, fresh := ecKey(t), ecKey(t)
	if kid := signedBy(t, newSet(t, s, old)); kid != old.ID() {
		t.Error("the only key of a new deployment does not sign")
	}
	s.now = s.now.Add(time.Minute)
	rotated := newSet(t, s, fresh, old)
	if kid := signedBy(t, rotated); kid != old.ID() {
		t.Error("a key signs that no verifier can know yet")
	}
	if document, _ := rotated.JWKS(); !strings.Contains(string(document), fresh.ID()) {
		t.Error("the new key is not published")
	}
	s.now = s.now.Add(10 * time.Minute)
	if err := rotated.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if kid := signedBy(t, rotated); kid != fresh.ID() {
		t.Error("the newest key does not sign after ten minutes")
	}
}

func TestAKeyThatLeftTheConfigurationVerifiesAsLongAsItsTokensLive(t *testing.T) {
	t.Parallel()
	s := newShared()
	old, fresh := ecKey(t), ecKey(t)
	token, err := newSet(t, s, old).Sign("at+jwt", map[string]string{"sub": "u"})
	if err != nil {
		t.Fatal(err)
	}
	set := newSet(t, s, fresh)
	if _, err := set.Verify(token, "at+jwt"); err != nil {
		t.Errorf("a token of a living hour is refused: %v", err)
	}
	s.now = s.now.Add(time.Hour + 11*time.Minute)
	if err := set.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if document, _ := set.JWKS(); strings.Contains(string(document), old.ID()) {
		t.Error("the old key is published for ever")
	}
}

func TestForeignTokensAreRefused(t *testing.T) {
	t.Parallel()
	set, other := newSet(t, newShared(), ecKey(t)), newSet(t, newShared(), ecKey(t))
	mine, err := set.Sign("at+jwt", map[string]string{"sub": "u"})
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := other.Sign("at+jwt", map[string]string{"sub": "u"})
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(mine, ".")
	for name, token := range map[string]string{
		"another issuer's": foreign,
		"tampered":         parts[0] + ".eyJzdWIiOiJ2In0." + parts[2],
		"unsigned":         "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ1In0.",
		"empty":            "",
		"oversize":         strings.Repeat("a", 1<<20),
	} {
		if _, err := set.Verify(token, "at+jwt"); fault.KindOf(err) != fault.Unauthenticated {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := set.Verify(mine, "JWT"); fault.KindOf(err) != fault.Unauthenticated {
		t.Error("an access token passes for a subject token")
	}
}

func TestNothingIsSignedBeforeTheKeysArePublished(t *testing.T) {
	t.Parallel()
	s := newShared()
	s.down = true
	set, err := keys.New(keys.Config{Keys: []*keys.Key{ecKey(t)}, MACKeys: []secret.Bytes{secret.NewBytes([]byte("m"))}, Store: s, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := set.Publish(t.Context()); err == nil {
		t.Fatal("the store is down")
	}
	if _, err := set.Sign("at+jwt", 1); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("signed: %v", err)
	}
	if set.Ready(t.Context()) == nil {
		t.Error("ready without keys")
	}
}

func TestAKeyIsNotGivenTwice(t *testing.T) {
	t.Parallel()
	k := ecKey(t)
	if _, err := keys.New(keys.Config{Keys: []*keys.Key{k, k}, MACKeys: []secret.Bytes{secret.NewBytes([]byte("m"))}}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("got %v", err)
	}
}

func TestAKeyThatSomebodyWroteIntoTheTableIsNotPublished(t *testing.T) {
	t.Parallel()
	s := newShared()
	planted := ecKey(t)
	publish := func(mac string) {
		t.Helper()
		set, err := keys.New(keys.Config{
			Keys: []*keys.Key{planted}, MACKeys: []secret.Bytes{secret.NewBytes([]byte(mac))}, TokenLifespan: time.Hour, Store: s, Logger: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := set.Publish(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for mac, want := range map[string]bool{"stranger's": false, "older": true} {
		publish(mac)
		if document, _ := newSet(t, s, ecKey(t)).JWKS(); strings.Contains(string(document), planted.ID()) != want {
			t.Errorf("written with the %s secret: published %v, want %v", mac, !want, want)
		}
	}
	// One row's MAC is no good for another, and what cannot be read is nobody's key.
	other := ecKey(t)
	newSet(t, s, other)
	s.macs[other.ID()] = s.macs[planted.ID()]
	s.published["x"], s.keepUntil["x"], s.jwks["x"] = s.now, s.now.Add(time.Hour), json.RawMessage(`{"kid":"x","kty":"new"}`)
	document, _ := newSet(t, s, ecKey(t)).JWKS()
	if strings.Contains(string(document), other.ID()) || strings.Contains(string(document), `"kid":"x"`) {
		t.Errorf("published %s", document)
	}
}
