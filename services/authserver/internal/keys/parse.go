package keys

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"

	"github.com/go-jose/go-jose/v4"

	"chatelaine.dev/internal/bearer"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
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
	var private any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		private, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		private, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		private, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		return nil, fault.New(fault.Invalid, "is not a PEM private key (PKCS#8, \"PRIVATE KEY\")")
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "is a PEM block that holds no private key we can read")
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return nil, fault.New(fault.Invalid, "is a key that cannot sign")
	}
	algorithm, err := algorithmOf(signer)
	if err != nil {
		return nil, err
	}
	thumbprint, err := (&jose.JSONWebKey{Key: signer.Public()}).Thumbprint(crypto.SHA256)
	if err != nil {
		return nil, fault.New(fault.Invalid, "is a key without a thumbprint")
	}
	return &Key{id: base64.RawURLEncoding.EncodeToString(thumbprint), algorithm: algorithm, private: signer}, nil
}

func algorithmOf(signer crypto.Signer) (jose.SignatureAlgorithm, error) {
	switch key := signer.(type) {
	case *ecdsa.PrivateKey:
		switch key.Curve {
		case elliptic.P256():
			return jose.ES256, nil
		case elliptic.P384():
			return jose.ES384, nil
		case elliptic.P521():
			return jose.ES512, nil
		}
		return "", fault.New(fault.Invalid, "is an EC key on a curve that JOSE does not sign with (want P-256)")
	case *rsa.PrivateKey:
		if key.N.BitLen() < bearer.MinRSABits {
			return "", fault.Newf(fault.Invalid, "is an RSA key of %d bits, want %d or more", key.N.BitLen(), bearer.MinRSABits)
		}
		return jose.RS256, nil
	case ed25519.PrivateKey:
		return jose.EdDSA, nil
	}
	return "", fault.New(fault.Invalid, "is a key of an unknown kind")
}
