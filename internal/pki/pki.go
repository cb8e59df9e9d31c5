package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// CA is a private certificate authority.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	// CertPEM is the authority's certificate.
	CertPEM []byte
}

// Request says what a leaf is for.
type Request struct {
	// Names are the DNS SANs; the first is also the common name and the stem of
	// the file names. At least one is needed.
	Names []string
	// IPs are the IP SANs.
	IPs []net.IP
	// Lifetime from now; zero means one year. Negative makes an expired leaf.
	Lifetime time.Duration
}

// Leaf is a certificate with its key.
type Leaf struct {
	Name    string
	CertPEM []byte // the leaf only: the authority is the root
	KeyPEM  []byte // PKCS #8
	CAPEM   []byte
}

// Files are the paths that Write made.
type Files struct{ Cert, Key, CA string }

const (
	caLifetime   = 10 * 365 * 24 * time.Hour
	leafLifetime = 365 * 24 * time.Hour
	clockSkew    = 5 * time.Minute
)

// NewCA makes an authority with a fresh key, good for ten years.
func NewCA(commonName string) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: commonName},
		NotBefore:             time.Now().Add(-clockSkew),
		NotAfter:              time.Now().Add(caLifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &CA{cert: cert, key: key, CertPEM: pemBlock("CERTIFICATE", der)}, nil
}

// Issue makes a leaf with a fresh key.
func (ca *CA) Issue(req Request) (*Leaf, error) {
	if len(req.Names) == 0 || req.Names[0] == "" {
		return nil, errors.New("pki: a leaf needs a name")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	lifetime := req.Lifetime
	if lifetime == 0 {
		lifetime = leafLifetime
	}
	notAfter := time.Now().Add(lifetime)
	tmpl := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: req.Names[0]},
		NotBefore:    minTime(time.Now(), notAfter).Add(-clockSkew),
		NotAfter:     notAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		DNSNames:     req.Names,
		IPAddresses:  req.IPs,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, &key.PublicKey, ca.key)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return &Leaf{
		Name:    req.Names[0],
		CertPEM: pemBlock("CERTIFICATE", der),
		KeyPEM:  pemBlock("PRIVATE KEY", keyDER),
		CAPEM:   ca.CertPEM,
	}, nil
}

// Write puts the leaf into dir, which it makes when needed (mode 0700), as
// NAME.crt, NAME.key (0600) and ca.crt. Each file is replaced in one step, so
// that a reader sees the old or the new one whole.
func (l *Leaf) Write(dir string) (Files, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Files{}, err
	}
	files := Files{
		Cert: filepath.Join(dir, l.Name+".crt"),
		Key:  filepath.Join(dir, l.Name+".key"),
		CA:   filepath.Join(dir, "ca.crt"),
	}
	for _, f := range []struct {
		path string
		data []byte
	}{{files.CA, l.CAPEM}, {files.Key, l.KeyPEM}, {files.Cert, l.CertPEM}} {
		if err := replaceFile(f.path, f.data); err != nil {
			return Files{}, fmt.Errorf("pki: %w", err)
		}
	}
	return files, nil
}

// replaceFile makes a temporary file (mode 0600) and renames it.
func replaceFile(path string, data []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".pki-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}

func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
