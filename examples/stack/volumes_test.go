package stack

import (
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// tree returns the content of every file below dir, by its path.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		files[rel] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestEachContainerFindsItsOwnSecretsAndNobodyElses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := MakeVolumes(dir, "postgres:5432"); err != nil {
		t.Fatal(err)
	}
	files := tree(t, dir)
	want := []string{
		"operator/tls/ca.crt", "operator/tls/operator.crt", "operator/tls/operator.key",
		"authserver/database-url", "tokenbroker/database-url",
	}
	for _, peer := range []string{"authserver", "tokenbroker", "gateway"} {
		want = append(want, peer+"/tls/ca.crt", peer+"/tls/"+peer+".crt", peer+"/tls/"+peer+".key")
	}
	for owner, refs := range owners {
		for _, ref := range refs {
			want = append(want, owner+"/secrets/"+ref)
		}
	}
	for _, ref := range passwords {
		want = append(want, "postgres/secrets/"+ref)
	}
	for _, path := range want {
		if files[path] == "" {
			t.Errorf("%s is missing", path)
		}
	}
	if len(files) != len(want) {
		t.Errorf("%d files, want %d: %v", len(files), len(want), files)
	}
	for _, role := range []string{"authserver", "tokenbroker"} {
		u, err := url.Parse(strings.TrimSpace(files[role+"/database-url"]))
		if err != nil {
			t.Fatal(err)
		}
		if password, _ := u.User.Password(); u.User.Username() != role || password != strings.TrimSpace(files["postgres/secrets/"+role+"/password"]) || u.Host != "postgres:5432" {
			t.Errorf("%s connects as %s to %s, or with another password than Postgres has", role, u.User.Username(), u.Host)
		}
	}
	for path := range files {
		info, err := os.Stat(filepath.Join(dir, path))
		if err != nil {
			t.Fatal(err)
		}
		want := fs.FileMode(0o600)
		if strings.HasPrefix(path, "postgres/") {
			want = 0o640 // Postgres' user is in the files' group
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", path, info.Mode().Perm(), want)
		}
	}
}

func TestAnotherStartKeepsSecretsAndCertificates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := MakeVolumes(dir, "postgres:5432"); err != nil {
		t.Fatal(err)
	}
	before := tree(t, dir)
	if err := MakeVolumes(dir, "postgres:5432"); err != nil {
		t.Fatal(err)
	}
	for path, text := range tree(t, dir) {
		if before[path] != text {
			t.Errorf("%s changed", path)
		}
	}
	// One volume was lost: its secrets come back from those who share them, and all certificates are of one new authority.
	if err := os.RemoveAll(filepath.Join(dir, "corp")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "gateway", "tls")); err != nil {
		t.Fatal(err)
	}
	if err := MakeVolumes(dir, "postgres:5432"); err != nil {
		t.Fatal(err)
	}
	after := tree(t, dir)
	if path := "corp/secrets/corp-idp/client-secret"; after[path] != before[path] {
		t.Errorf("%s changed: the broker's does not match any more", path)
	}
	for _, peer := range peers {
		ca := after[peer+"/tls/ca.crt"]
		if ca == before[peer+"/tls/ca.crt"] || ca != after["gateway/tls/ca.crt"] {
			t.Errorf("%s trusts another authority than the gateway", peer)
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM([]byte(ca))
		block, _ := pem.Decode([]byte(after[peer+"/tls/"+peer+".crt"]))
		leaf, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: peer, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
			t.Errorf("%s: %v", peer, err)
		}
	}
}

func TestCertificatesAreRenewedBeforeTheyEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tls := func(peer string) string { return filepath.Join(dir, peer) }
	if err := issue(tls); err != nil {
		t.Fatal(err)
	}
	for after, want := range map[time.Duration]bool{0: true, 300 * 24 * time.Hour: true, 340 * 24 * time.Hour: false} {
		if got, err := certificatesGood(tls, time.Now().Add(after)); got != want || err != nil {
			t.Errorf("after %s: good = %t, %v", after, got, err)
		}
	}
}
