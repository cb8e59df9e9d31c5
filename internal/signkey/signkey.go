package signkey

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
)

// FromBlock reads a private key in PKCS#8, SEC 1 or PKCS#1. Errors are Invalid and
// show nothing of it.
func FromBlock(block *pem.Block) (crypto.Signer, error) {
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
		return nil, fault.New(fault.Invalid, "is not a PEM private key (PKCS#8, \"PRIVATE KEY\", without a passphrase)")
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "is a PEM block that holds no private key we can read")
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return nil, fault.New(fault.Invalid, "is a key that cannot sign")
	}
	return signer, nil
}

// Algorithm is the one by which a key signs: P-256, P-384 and P-521, RSA of at least
// 2,048 bits, and Ed25519. The error is Invalid.
func Algorithm(signer crypto.Signer) (jose.SignatureAlgorithm, error) {
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

// ID is the SHA-256 thumbprint of the public key (RFC 7638). The error is Invalid.
func ID(signer crypto.Signer) (string, error) {
	thumbprint, err := (&jose.JSONWebKey{Key: signer.Public()}).Thumbprint(crypto.SHA256)
	if err != nil {
		return "", fault.New(fault.Invalid, "is a key without a thumbprint")
	}
	return base64.RawURLEncoding.EncodeToString(thumbprint), nil
}
