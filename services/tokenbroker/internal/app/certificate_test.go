package app_test

import (
	"crypto/tls"
	"testing"
)

// Certificates are renewed every few weeks, or hours: whoever connects after that must
// see the new one, on both addresses, without a restart.
func TestARenewedCertificateIsShownOnBothAddresses(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	shown := func(address string) string {
		conn, err := b.ca.TLS("operator").DialTLSContext("tokenbroker")(t.Context(), "tcp", address)
		must(t, err)
		defer conn.Close()
		return string(conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Raw)
	}
	before := map[string]string{b.grpc: shown(b.grpc), b.rest: shown(b.rest)}
	b.ca.Files("tokenbroker") // another certificate in the same files
	for address, old := range before {
		b.eventually("the new certificate", func() bool { return shown(address) != old })
	}
	if status, body := b.call("GET", "/v1/users", "", "operator"); status != 200 {
		t.Errorf("afterwards: %d %s", status, body)
	}
}
