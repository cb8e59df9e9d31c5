package bearer

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"slices"

	"github.com/go-jose/go-jose/v4"
)

// What is said here of keys and signatures holds for everybody's tokens: access
// tokens, id tokens of providers, and what we sign ourselves.
const (
	// MaxKeys bounds a key set.
	MaxKeys = 100
	// MinRSABits is the least size of an RSA key (RFC 7518, section 3.3).
	MinRSABits = 2048
	// MaxDate is the year 9999 in seconds since 1970; beyond it time.Time stops making
	// sense.
	MaxDate = 253402300799
)

// SignatureAlgorithms are the algorithms that a token may be signed with: a symmetric
// one would make the public keys secret, "none" would make them useless.
func SignatureAlgorithms() []jose.SignatureAlgorithm { return slices.Clone(asymmetric) }

// ParseJWK reads a public key that may verify signatures (RFC 7517, section 4). ok is
// false for a key of a kind that we do not use, which is no error of the set.
func ParseJWK(raw json.RawMessage) (key jose.JSONWebKey, ok bool) {
	if key.UnmarshalJSON(raw) != nil || !key.IsPublic() || !key.Valid() || (key.Use != "" && key.Use != "sig") {
		return jose.JSONWebKey{}, false
	}
	switch k := key.Key.(type) {
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return key, true
	case *rsa.PublicKey:
		return key, k.N.BitLen() >= MinRSABits
	}
	return jose.JSONWebKey{}, false
}
