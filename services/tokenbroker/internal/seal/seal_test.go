package seal_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/seal"
)

func newKey() secret.Bytes {
	key := make([]byte, seal.KeySize)
	rand.Read(key)
	return secret.NewBytes(key)
}

func sealer(t testing.TB, keys ...secret.Bytes) *seal.Sealer {
	t.Helper()
	wrapper, err := seal.NewFileKeys(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return seal.NewSealer(wrapper)
}

var place = seal.Place{Table: "connections", Row: "con_1", Column: "sealed_tokens", Version: 7}

func TestWhatIsSealedOpensInItsPlaceOnly(t *testing.T) {
	t.Parallel()
	s := sealer(t, newKey())
	plaintext := []byte("a token")
	sealed, err := s.Seal(t.Context(), plaintext, place)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Open(t.Context(), sealed, place); err != nil || !bytes.Equal(got, plaintext) {
		t.Fatalf("open = %q, %v", got, err)
	}
	for name, elsewhere := range map[string]seal.Place{
		"another row":            {Table: "connections", Row: "con_2", Column: "sealed_tokens", Version: 7},
		"another table":          {Table: "staged_legs", Row: "con_1", Column: "sealed_tokens", Version: 7},
		"another column":         {Table: "connections", Row: "con_1", Column: "other", Version: 7},
		"a newer version":        {Table: "connections", Row: "con_1", Column: "sealed_tokens", Version: 8},
		"an older version":       {Table: "connections", Row: "con_1", Column: "sealed_tokens", Version: 6},
		"parts that run along":   {Table: "connectionsc", Row: "on_1", Column: "sealed_tokens", Version: 7},
		"parts that run along 2": {Table: "connections", Row: "con_1s", Column: "ealed_tokens", Version: 7},
	} {
		if _, err := s.Open(t.Context(), sealed, elsewhere); fault.ReasonOf(err) != seal.ReasonInvalid {
			t.Errorf("moved to %s, it opened or failed otherwise: %v", name, err)
		}
	}
}

func TestEveryFlippedBitIsNoticed(t *testing.T) {
	t.Parallel()
	s := sealer(t, newKey())
	sealed, err := s.Seal(t.Context(), []byte("a token"), place)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []struct {
		name  string
		bytes []byte
	}{{"wrapped key", sealed.WrappedKey}, {"ciphertext", sealed.Ciphertext}} {
		for i := range part.bytes {
			for bit := range 8 {
				part.bytes[i] ^= 1 << bit
				if _, err := s.Open(t.Context(), sealed, place); fault.ReasonOf(err) != seal.ReasonInvalid {
					t.Fatalf("%s, byte %d, bit %d: %v", part.name, i, bit, err)
				}
				part.bytes[i] ^= 1 << bit
			}
		}
	}
}

func TestPartsOfTwoValuesDoNotMix(t *testing.T) {
	t.Parallel()
	s := sealer(t, newKey())
	a, err := s.Seal(t.Context(), []byte("a"), place)
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Seal(t.Context(), []byte("b"), place)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(a.WrappedKey, b.WrappedKey) {
		t.Error("two values share a wrapped key")
	}
	a.WrappedKey = b.WrappedKey
	if _, err := s.Open(t.Context(), a, place); err == nil {
		t.Error("a value opened with another one's data key")
	}
}

func TestAKeyThatIsMissingIsNamed(t *testing.T) {
	t.Parallel()
	old, young := newKey(), newKey()
	sealed, err := sealer(t, old).Seal(t.Context(), []byte("a token"), place)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sealer(t, young, old).Open(t.Context(), sealed, place); err != nil {
		t.Errorf("a key that is no longer the newest does not open: %v", err)
	}
	for what, err := range map[string]error{
		"open":  errOf(sealer(t, young).Open(t.Context(), sealed, place)),
		"check": sealer(t, young).CheckKey(t.Context(), sealed, place),
	} {
		if fault.ReasonOf(err) != seal.ReasonKeyUnknown || !strings.Contains(err.Error(), sealed.KeyID) {
			t.Errorf("%s: %v does not name key %s", what, err, sealed.KeyID)
		}
	}
}

func errOf(_ []byte, err error) error { return err }

func TestTheNewestKeySeals(t *testing.T) {
	t.Parallel()
	old, young := newKey(), newKey()
	before, err := sealer(t, old).Seal(t.Context(), []byte("x"), place)
	if err != nil {
		t.Fatal(err)
	}
	after, err := sealer(t, young, old).Seal(t.Context(), []byte("x"), place)
	if err != nil {
		t.Fatal(err)
	}
	if before.KeyID == after.KeyID {
		t.Error("a new key in front is not used")
	}
}

func TestTokensComeBackWholeAndAreNotLegibleAtRest(t *testing.T) {
	t.Parallel()
	s := sealer(t, newKey())
	tokens := seal.Tokens{
		AccessToken: secret.New("access-token-text"), RefreshToken: secret.New("refresh-token-text"), IDToken: secret.New("id-token-text"),
	}
	sealed, err := s.SealTokens(t.Context(), tokens, place)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed.Ciphertext, []byte("token-text")) {
		t.Error("the ciphertext shows a token")
	}
	if text := fmt.Sprintf("%+v %#v", tokens, tokens); strings.Contains(text, "token-text") {
		t.Errorf("printing tokens shows one: %s", text)
	}
	got, err := s.OpenTokens(t.Context(), sealed, place)
	if err != nil {
		t.Fatal(err)
	}
	if !got.AccessToken.Equal(tokens.AccessToken) || !got.RefreshToken.Equal(tokens.RefreshToken) || !got.IDToken.Equal(tokens.IDToken) {
		t.Error("tokens came back changed")
	}
	if _, err := s.OpenTokens(t.Context(), seal.Sealed{}, place); err == nil {
		t.Error("no value opened as tokens")
	}
}

func TestSizesAreBounded(t *testing.T) {
	t.Parallel()
	s := sealer(t, newKey())
	for _, size := range []int{0, seal.MaxPlaintext + 1} {
		if _, err := s.Seal(t.Context(), make([]byte, size), place); err == nil {
			t.Errorf("sealed %d bytes", size)
		}
	}
	if _, err := s.Seal(t.Context(), make([]byte, seal.MaxPlaintext), place); err != nil {
		t.Error(err)
	}
}

func FuzzOpen(f *testing.F) {
	key := secret.NewBytes(bytes.Repeat([]byte{1}, seal.KeySize))
	s := sealer(f, key)
	good, err := s.Seal(context.Background(), []byte("x"), place)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good.KeyID, good.WrappedKey, good.Ciphertext)
	f.Add("", []byte{}, []byte{1})
	f.Add(good.KeyID, good.WrappedKey[:20], good.Ciphertext[:30])
	f.Fuzz(func(t *testing.T, id string, wrapped, ciphertext []byte) {
		forged := seal.Sealed{KeyID: id, WrappedKey: wrapped, Ciphertext: ciphertext}
		got, err := s.Open(t.Context(), forged, place)
		if err == nil && string(got) != "x" { // all that this key ever sealed
			t.Fatalf("a forged value opened: %q", got)
		}
		if err != nil && fault.ReasonOf(err) == "" {
			t.Fatalf("an error without a reason: %v", err)
		}
	})
}

func BenchmarkOpenTokens(b *testing.B) {
	s := sealer(b, newKey())
	sealed, err := s.SealTokens(b.Context(), seal.Tokens{AccessToken: secret.New(strings.Repeat("a", 1500))}, place)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.OpenTokens(b.Context(), sealed, place); err != nil {
			b.Fatal(err)
		}
	}
}

// remote stands for a key management service: it is asked with a context, and may
// be away.
type remote struct {
	seal.AEAD
	away bool
}

func (r *remote) EncryptWithContext(ctx context.Context, plaintext, associated []byte) ([]byte, error) {
	if r.away || ctx.Err() != nil {
		return nil, errors.New("rpc error: no route")
	}
	return r.AEAD.EncryptWithContext(ctx, plaintext, associated)
}

func (r *remote) DecryptWithContext(ctx context.Context, ciphertext, associated []byte) ([]byte, error) {
	if r.away || ctx.Err() != nil {
		return nil, errors.New("rpc error: no route")
	}
	return r.AEAD.DecryptWithContext(ctx, ciphertext, associated)
}

func fileKey(t *testing.T) seal.Key {
	t.Helper()
	key, err := seal.FileKey(newKey())
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sealerOf(t *testing.T, keys ...seal.Key) *seal.Sealer {
	t.Helper()
	set, err := seal.NewKeys(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return seal.NewSealer(set)
}

func TestValuesMoveFromAKeyFileToAKeyServiceAndBackWithoutBeingOpened(t *testing.T) {
	t.Parallel()
	file, service := fileKey(t), &remote{AEAD: fileKey(t).AEAD}
	kms := seal.Key{ID: "kms://key/1", AEAD: service}
	sealed, err := sealerOf(t, file).Seal(t.Context(), []byte("a token"), place)
	if err != nil {
		t.Fatal(err)
	}
	later := place
	later.Version = 0 // what a rotation knows of the place
	for _, s := range []*seal.Sealer{sealerOf(t, kms, file), sealerOf(t, file, kms)} {
		moved, err := s.Rewrap(t.Context(), sealed, later)
		if err != nil || moved.KeyID != s.Keys().Newest() || !bytes.Equal(moved.Ciphertext, sealed.Ciphertext) {
			t.Fatalf("rewrapped under %s: %v", moved.KeyID, err)
		}
		if got, err := s.Open(t.Context(), moved, place); err != nil || string(got) != "a token" {
			t.Fatalf("%q, %v", got, err)
		}
		elsewhere := later
		elsewhere.Row = "con_2"
		if _, err := s.Rewrap(t.Context(), moved, elsewhere); fault.ReasonOf(err) != seal.ReasonInvalid {
			t.Errorf("a key was wrapped for another row: %v", err)
		}
		sealed = moved
	}
}

// An outage of a key service must not pass for stored values that are broken.
func TestAKeyServiceThatIsAwayIsNoBrokenValue(t *testing.T) {
	t.Parallel()
	service := &remote{AEAD: fileKey(t).AEAD}
	s := sealerOf(t, seal.Key{ID: "kms", AEAD: service})
	sealed, err := s.Seal(t.Context(), []byte("a token"), place)
	if err != nil {
		t.Fatal(err)
	}
	service.away = true
	_, failed := s.Seal(t.Context(), []byte("a token"), place)
	for what, err := range map[string]error{
		"seal": failed, "open": errOf(s.Open(t.Context(), sealed, place)), "check": s.CheckKey(t.Context(), sealed, place),
	} {
		if fault.KindOf(err) != fault.Unavailable || fault.ReasonOf(err) != "" || strings.Contains(err.Error(), "no route") {
			t.Errorf("%s: %v (%s)", what, err, fault.ReasonOf(err))
		}
	}
}

func TestKeysThatCannotBeToldApartAreRefused(t *testing.T) {
	t.Parallel()
	a := fileKey(t)
	for name, keys := range map[string][]seal.Key{
		"none": nil, "twice": {a, a}, "without an id": {{AEAD: a.AEAD}}, "too long": {{ID: strings.Repeat("x", 257), AEAD: a.AEAD}},
		"too many": make([]seal.Key, 17),
	} {
		if _, err := seal.NewKeys(keys...); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := seal.NewFileKeys(secret.NewBytes([]byte("short"))); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a short key: %v", err)
	}
}
