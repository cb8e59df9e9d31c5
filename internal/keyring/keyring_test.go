package keyring_test

import (
	"bytes"
	"strings"
	"testing"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/keyring"
	"chatelaine.dev/internal/secret"
)

func key(b byte) secret.Bytes { return secret.NewBytes(bytes.Repeat([]byte{b}, keyring.KeySize)) }

func ring(t testing.TB, keys ...secret.Bytes) *keyring.Ring {
	t.Helper()
	r, err := keyring.New(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func seal(t testing.TB, r *keyring.Ring, plaintext, associated string) []byte {
	t.Helper()
	sealed, err := r.Seal(nil, []byte(plaintext), []byte(associated))
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func TestValuesSurviveTheRotationOfKeys(t *testing.T) {
	t.Parallel()
	old, both, last, next := ring(t, key(1)), ring(t, key(2), key(1)), ring(t, key(1), key(2)), ring(t, key(2))
	sealed := seal(t, old, "session", "user-1")
	if got, err := both.Open(sealed, []byte("user-1")); err != nil || string(got) != "session" {
		t.Errorf("after a key was put in front: %q, %v", got, err)
	}
	if _, err := next.Open(sealed, []byte("user-1")); fault.ReasonOf(err) != "seal_key_unknown" {
		t.Errorf("after the key was removed: %v", err)
	}
	if got, err := last.Open(seal(t, both, "new", "u"), []byte("u")); err != nil || string(got) != "new" {
		t.Errorf("a replica that has the new key last cannot open: %q, %v", got, err)
	}
	if both.Newest() != keyring.IDOf(key(2)) || last.Newest() != keyring.IDOf(key(1)) {
		t.Error("the first key does not seal")
	}
}

func TestAChangedValueNeverOpens(t *testing.T) {
	t.Parallel()
	r := ring(t, key(1), key(2))
	sealed := seal(t, r, "session", "user-1")
	for i := range sealed {
		for _, bit := range []byte{1, 0x80} {
			forged := bytes.Clone(sealed)
			forged[i] ^= bit
			if got, err := r.Open(forged, []byte("user-1")); err == nil {
				t.Fatalf("byte %d changed, still opens: %q", i, got)
			} else if fault.KindOf(err) != fault.Unauthenticated {
				t.Fatalf("byte %d changed: kind %s", i, fault.KindOf(err))
			}
		}
	}
	for n := range sealed {
		if _, err := r.Open(sealed[:n], []byte("user-1")); err == nil {
			t.Fatalf("the first %d bytes open", n)
		}
	}
	for _, other := range []string{"user-2", "user-", "user-11"} {
		if _, err := r.Open(sealed, []byte(other)); fault.ReasonOf(err) != "seal_invalid" {
			t.Errorf("opens for %s: %v", other, err)
		}
	}
}

// The id is in clear: naming another of our keys must not confuse the ring.
func TestAValueOpensOnlyWithTheKeyThatSealedIt(t *testing.T) {
	t.Parallel()
	r := ring(t, key(1), key(2))
	sealed, other := seal(t, r, "x", "a"), seal(t, ring(t, key(2)), "x", "a")
	copy(sealed[:9], other[:9])
	if _, err := r.Open(sealed, []byte("a")); fault.ReasonOf(err) != "seal_invalid" {
		t.Errorf("error = %v", err)
	}
}

func TestEqualValuesLookDifferent(t *testing.T) {
	t.Parallel()
	r := ring(t, key(1))
	a, b := seal(t, r, "same", "a"), seal(t, r, "same", "a")
	if bytes.Equal(a, b) || len(a) != len("same")+keyring.Overhead {
		t.Errorf("lengths %d and %d, overhead %d", len(a), len(b), keyring.Overhead)
	}
}

func TestSealAppends(t *testing.T) {
	t.Parallel()
	r := ring(t, key(1))
	out, err := r.Seal([]byte("v1."), nil, []byte("a"))
	if err != nil || !bytes.HasPrefix(out, []byte("v1.")) {
		t.Fatalf("%q, %v", out, err)
	}
	if got, err := r.Open(out[3:], []byte("a")); err != nil || len(got) != 0 {
		t.Errorf("an empty plaintext: %q, %v", got, err)
	}
}

func TestWhatARingRefuses(t *testing.T) {
	t.Parallel()
	many := make([]secret.Bytes, keyring.MaxKeys+1)
	for i := range many {
		many[i] = key(byte(i))
	}
	for want, keys := range map[string][]secret.Bytes{
		"1 to 16 keys":      nil,
		"got 17":            many,
		"key 2 has 3 bytes": {key(1), secret.NewBytes([]byte("abc"))},
		"in the ring twice": {key(1), key(2), key(1)},
	} {
		if _, err := keyring.New(keys...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error = %v, want %q", err, want)
		}
	}
	r := ring(t, key(1))
	if _, err := r.Seal(nil, []byte("x"), nil); fault.KindOf(err) != fault.Invalid {
		t.Errorf("Seal without associated data: %v", err)
	}
	if _, err := r.Open(make([]byte, 100), nil); fault.KindOf(err) != fault.Invalid {
		t.Errorf("Open without associated data: %v", err)
	}
	if _, err := r.Seal(nil, make([]byte, keyring.MaxPlaintext+1), []byte("a")); fault.KindOf(err) != fault.Invalid {
		t.Errorf("Seal of too much: %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	r := ring(f, key(1), key(2))
	good := seal(f, r, "session", "user-1")
	f.Add(good)
	f.Add(good[:9])
	f.Add([]byte{1})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, sealed []byte) {
		// Each fuzzing process seals a good value of its own, so compare what it says.
		if plaintext, err := r.Open(sealed, []byte("user-1")); err == nil && string(plaintext) != "session" {
			t.Errorf("a forged value opens: %q", plaintext)
		}
	})
}

func BenchmarkSealAndOpen(b *testing.B) {
	r := ring(b, key(1), key(2))
	plaintext, associated := make([]byte, 256), []byte("gateway session v1\x00user-1")
	b.ReportAllocs()
	for b.Loop() {
		sealed, err := r.Seal(nil, plaintext, associated)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := r.Open(sealed, associated); err != nil {
			b.Fatal(err)
		}
	}
}
