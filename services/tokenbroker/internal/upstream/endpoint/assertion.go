package endpoint

import (
	"crypto"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // x5t is defined by it (RFC 7515, section 4.1.7); nothing is protected by it
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"time"

	"github.com/go-jose/go-jose/v4"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/internal/signkey"
)

const (
	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	// assertionLife is how long an assertion can be used. It is used at once.
	assertionLife = 2 * time.Minute
	// assertionSkew is how far a server's clock may be behind ours.
	assertionSkew = 30 * time.Second
)

// ClientKey is a client's private key, with which it authenticates (RFC 7523,
// section 2.2).
type ClientKey struct {
	signer jose.Signer
}

// ResolveClientKey reads a configured key. Its error names the secret.
func ResolveClientKey(secrets *secret.Resolver, k *config.ClientKey) (*ClientKey, error) {
	text, err := secrets.Resolve(k.Key)
	if err != nil {
		return nil, err
	}
	key, err := ParseClientKey(text, k.ID)
	if err != nil {
		return nil, fault.From(err).WithPrefix("secret " + k.Key.String())
	}
	return key, nil
}

// ParseClientKey reads a private key in PEM (PKCS#8, SEC 1 or PKCS#1): RSA of 2048
// bits or more, P-256, P-384, P-521 or Ed25519. id is the key's name at the
// server (kid); an empty one means the key's SHA-256 thumbprint (RFC 7638).
//
// Where a certificate of the key is in the PEM too, assertions name it by x5t and
// x5t#S256, and by its kid, and an RSA key signs by PS256: the form that Microsoft
// Entra wants. Errors are Invalid and show nothing of the text.
func ParseClientKey(text secret.String, id string) (*ClientKey, error) {
	private, certificate, err := parsePEM([]byte(text.Reveal()))
	if err != nil {
		return nil, err
	}
	algorithm, err := signkey.Algorithm(private)
	if err != nil {
		return nil, err
	}
	options := (&jose.SignerOptions{}).WithType("JWT")
	if certificate != nil {
		public, ok := private.Public().(interface{ Equal(crypto.PublicKey) bool })
		if !ok || !public.Equal(certificate.PublicKey) {
			return nil, fault.New(fault.Invalid, "has a certificate of another key")
		}
		sum1, sum256 := sha1.Sum(certificate.Raw), sha256.Sum256(certificate.Raw) //nolint:gosec // see the import
		x5t := base64.RawURLEncoding.EncodeToString(sum1[:])
		options = options.WithHeader("x5t", x5t).WithHeader("x5t#S256", base64.RawURLEncoding.EncodeToString(sum256[:]))
		if id == "" {
			id = x5t
		}
		if algorithm == jose.RS256 {
			algorithm = jose.PS256
		}
	}
	if id == "" {
		if id, err = signkey.ID(private); err != nil {
			return nil, err
		}
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: jose.JSONWebKey{Key: private, KeyID: id}}, options)
	if err != nil {
		return nil, fault.New(fault.Invalid, "is a key that cannot sign")
	}
	return &ClientKey{signer: signer}, nil
}

// parsePEM reads one private key, and the first certificate where there are any.
func parsePEM(text []byte) (private crypto.Signer, certificate *x509.Certificate, err error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			if certificate != nil {
				continue // of its issuers
			}
			if certificate, err = x509.ParseCertificate(block.Bytes); err != nil {
				return nil, nil, fault.New(fault.Invalid, "has a certificate that cannot be read")
			}
			continue
		}
		if private != nil {
			return nil, nil, fault.New(fault.Invalid, "has more than one private key")
		}
		if private, err = signkey.FromBlock(block); err != nil {
			return nil, nil, err
		}
	}
	if private == nil {
		return nil, nil, fault.New(fault.Invalid, "is not a PEM private key")
	}
	return private, certificate, nil
}

// assertion is the claims of RFC 7523, section 3.
type assertion struct {
	Issuer    string `json:"iss"`
	Subject   string `json:"sub"`
	Audience  string `json:"aud"`
	ID        string `json:"jti"`
	IssuedAt  int64  `json:"iat"`
	NotBefore int64  `json:"nbf"`
	ExpiresAt int64  `json:"exp"`
}

// assert signs an assertion that the client is who it says. Each is good once.
func (k *ClientKey) assert(clientID, audience string, now time.Time) (string, error) {
	since := now.Add(-assertionSkew).Unix()
	payload, err := json.Marshal(assertion{
		Issuer: clientID, Subject: clientID, Audience: audience, ID: rand.Text(),
		IssuedAt: since, NotBefore: since, ExpiresAt: now.Add(assertionLife).Unix(),
	})
	if err != nil {
		return "", fault.Wrap(fault.Internal, err, "")
	}
	jws, err := k.signer.Sign(payload)
	if err != nil {
		return "", fault.Wrap(fault.Internal, err, "a client assertion cannot be signed")
	}
	text, err := jws.CompactSerialize()
	if err != nil {
		return "", fault.Wrap(fault.Internal, err, "")
	}
	return text, nil
}
