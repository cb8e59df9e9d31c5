package stack

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"chatelaine.dev/internal/pki"
)

// owners are the processes that hold secrets, each with those that it may hold.
var owners = map[string][]string{
	"authserver":  {"authserver-signing/key.pem", "authserver-hmac/secret"},
	"tokenbroker": {"corp-idp/client-secret", "octohub/client-secret", "corp-sts/client-secret", "tokenbroker-kek/key"},
	"gateway":     {"gateway-session/key"},
	"corp":        {"corp-idp/client-secret", "corp-sts/client-secret"},
	"octohub":     {"octohub/client-secret"},
}

// peers have a certificate each.
var peers = []string{"operator", "gateway", "tokenbroker", "authserver"}

// makeMaterial makes the secrets and certificates that do not exist yet under
// dir: secrets/OWNER/NAME/KEY and tls/PEER.{crt,key}. What exists is kept.
func makeMaterial(dir string) error {
	if _, err := makeSecrets(owners, func(owner, ref string) string { return filepath.Join(dir, "secrets", owner, ref) }); err != nil {
		return err
	}
	return makeCertificates(filepath.Join(dir, "tls"))
}

// makeSecrets gives each owner its secrets, at path, and returns them by their
// references. What some owner has already is kept.
func makeSecrets(owners map[string][]string, path func(owner, ref string) string) (map[string][]byte, error) {
	values := map[string][]byte{}
	for _, refs := range owners {
		for _, ref := range refs {
			if values[ref] != nil {
				continue
			}
			value, err := findSecret(owners, ref, path)
			if err != nil {
				return nil, err
			}
			if value == nil {
				if value, err = newSecret(ref); err != nil {
					return nil, err
				}
			}
			values[ref] = value
		}
	}
	for owner, refs := range owners {
		for _, ref := range refs {
			file := path(owner, ref)
			if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
				return nil, err
			}
			if err := os.WriteFile(file, values[ref], 0o600); err != nil {
				return nil, err
			}
		}
	}
	return values, nil
}

// findSecret returns a secret that some owner has already, or nil.
func findSecret(owners map[string][]string, ref string, path func(owner, ref string) string) ([]byte, error) {
	for owner := range owners {
		value, err := os.ReadFile(path(owner, ref))
		if err == nil && len(value) > 0 {
			return value, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return nil, nil
}

// newSecret makes a secret: a signing key for *.pem, 32 random bytes otherwise.
func newSecret(ref string) ([]byte, error) {
	if filepath.Ext(ref) != ".pem" {
		raw := make([]byte, 32)
		_, _ = rand.Read(raw) // never fails
		return []byte(base64.StdEncoding.EncodeToString(raw) + "\n"), nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// makeCertificates issues one certificate for each peer, all by one authority
// whose key is forgotten afterwards: a new peer means a new authority.
func makeCertificates(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	fresh := dir + ".new" // renamed when complete
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	if err := issue(func(string) string { return fresh }); err != nil {
		return err
	}
	return os.Rename(fresh, dir)
}

// issue makes an authority and writes a certificate of it for each peer.
func issue(dir func(peer string) string) error {
	ca, err := pki.NewCA("Chatelaine local stack")
	if err != nil {
		return err
	}
	for _, peer := range peers {
		leaf, err := ca.Issue(pki.Request{
			// localhost lets grpcurl and curl check the server without a flag.
			Names: []string{peer, "localhost"},
			IPs:   []net.IP{net.IPv4(127, 0, 0, 1)},
		})
		if err != nil {
			return err
		}
		if _, err := leaf.Write(dir(peer)); err != nil {
			return err
		}
	}
	return nil
}
