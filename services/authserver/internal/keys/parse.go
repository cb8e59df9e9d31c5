package keys

import (
	"crypto"
	"encoding/pem"

	"github.com/go-jose/go-jose/v4"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/internal/signkey"
)

// Key is a private key that signs.
type Key struct {
	id        string
	algorithm jose.SignatureAlgorithm
	private   crypto.Signer
}

// ID returns the key id: the SHA-256 thumbprint of the public key (RFC 7638).
func (k *Key) ID() string { return k.id }

// Parse reads a private key in PEM, in PKCS#8, SEC 1 or PKCS#1: one on P-256, P-384
// or P-521, an RSA key of at least 2,048 bits, or an Ed25519 key. Errors are Invalid
// and show nothing of the text.
func Parse(text secret.String) (*Key, error) {
	block, rest := pem.Decode([]byte(text.Reveal()))
	if block == nil {
		return nil, fault.New(fault.Invalid, "is not a PEM private key")
	}
	if next, _ := pem.Decode(rest); next != nil {
		return nil, fault.New(fault.Invalid, "has more than one PEM block: give each key a secret of its own")
	}
	signer, err := signkey.FromBlock(block)
	if err != nil {
		return nil, err
	}
	algorithm, err := signkey.Algorithm(signer)
	if err != nil {
		return nil, err
	}
	id, err := signkey.ID(signer)
	if err != nil {
		return nil, err
	}
	return &Key{id: id, algorithm: algorithm, private: signer}, nil
}
