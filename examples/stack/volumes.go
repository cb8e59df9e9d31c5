package stack

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// passwords are those of Postgres' roles, which its container sets.
var passwords = []string{"superuser/password", "authserver/password", "tokenbroker/password"}

// renewBefore is how long before its end a certificate is replaced.
const renewBefore = 30 * 24 * time.Hour

// MakeVolumes makes what the containers of docker-compose.yml find in their
// volumes, for each owner in a folder of its own below dir: secrets/NAME/KEY, the
// peers' tls/PEER.{crt,key} and tls/ca.crt, and database-url for those that have a
// database, at the given HOST:PORT. What exists stays, but certificates that end
// within a month: then every peer gets a new one, of a new authority.
func MakeVolumes(dir, postgres string) error {
	owned := maps.Clone(owners)
	owned["postgres"] = passwords
	secrets, err := makeSecrets(owned, func(owner, ref string) string { return filepath.Join(dir, owner, "secrets", ref) })
	if err != nil {
		return err
	}
	for _, role := range []string{"authserver", "tokenbroker"} {
		u := url.URL{
			Scheme: "postgres", Host: postgres, Path: database,
			User: url.UserPassword(role, string(bytes.TrimSpace(secrets[role+"/password"]))),
			// Between two containers of one machine, in a network of their own.
			RawQuery: "sslmode=disable",
		}
		if err := os.WriteFile(filepath.Join(dir, role, "database-url"), []byte(u.String()+"\n"), 0o600); err != nil {
			return err
		}
	}
	if err := shareWithGroup(filepath.Join(dir, "postgres")); err != nil {
		return err
	}
	tls := func(peer string) string { return filepath.Join(dir, peer, "tls") }
	if good, err := certificatesGood(tls, time.Now()); good || err != nil {
		return err
	}
	return issue(tls)
}

// shareWithGroup lets the group read: Postgres' container has a user of its own,
// whose number depends on the image, and is given the group of these files.
func shareWithGroup(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o640)
		if d.IsDir() {
			mode = 0o750
		}
		return os.Chmod(path, mode)
	})
}

// certificatesGood reports whether all peers have a certificate of one authority,
// good for some time yet.
func certificatesGood(dir func(peer string) string, now time.Time) (bool, error) {
	var first []byte
	for _, peer := range peers {
		cert, err := os.ReadFile(filepath.Join(dir(peer), peer+".crt"))
		ca, caErr := os.ReadFile(filepath.Join(dir(peer), "ca.crt"))
		_, keyErr := os.Stat(filepath.Join(dir(peer), peer+".key"))
		if err := errors.Join(err, caErr, keyErr); errors.Is(err, fs.ErrNotExist) {
			return false, nil
		} else if err != nil {
			return false, err
		}
		if first == nil {
			first = ca
		}
		block, _ := pem.Decode(cert)
		if block == nil {
			return false, fmt.Errorf("the certificate of %s is no PEM", peer)
		}
		leaf, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return false, fmt.Errorf("the certificate of %s: %w", peer, err)
		}
		if !bytes.Equal(ca, first) || now.Add(renewBefore).After(leaf.NotAfter) {
			return false, nil
		}
	}
	return true, nil
}
