package endpoint

import (
	"crypto/x509"
	"net/netip"
	"net/url"
	"strings"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
)

// Loopback reports whether a URL names this machine, by literal or by name. Only
// where the operator wrote such a URL may a client connect to loopback addresses.
func Loopback(text string) bool {
	u, err := url.Parse(text)
	if err != nil {
		return false
	}
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// WithSystemRoots returns the system's certificate authorities and those of a
// PEM bundle. Errors are Invalid.
func WithSystemRoots(pem secret.String) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a container without any: the bundle alone counts
	}
	if !pool.AppendCertsFromPEM([]byte(pem.Reveal())) {
		return nil, fault.New(fault.Invalid, "the CA bundle holds no PEM certificate")
	}
	return pool, nil
}
