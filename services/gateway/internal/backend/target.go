package backend

import (
	"crypto/x509"
	"net/http"
	"net/url"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/outbound"
	"chatelaine.dev/internal/secret"
)

// target is a backend, ready to be called.
type target struct {
	name      string
	url       *url.URL
	origin    string
	transport http.RoundTripper
	timeout   time.Duration
	// static headers of the configuration.
	static []staticHeader
	// owned are the names that only the configuration or a credential may set.
	owned map[string]bool
	// measured are the metric's labels by outcome.
	measured map[string]metric.MeasurementOption
}

type staticHeader struct {
	name  string
	value []string
}

func newTarget(b *config.Backend, cfg *Config) (*target, error) {
	u, err := url.Parse(b.RemoteURL)
	if err != nil || u.Host == "" {
		return nil, fault.Newf(fault.Invalid, "backend %s: remoteUrl is not an absolute URL", b.Name)
	}
	roots, err := roots(b, cfg.Secrets)
	if err != nil {
		return nil, err
	}
	t := &target{
		name: b.Name, url: u, origin: b.Origin, timeout: cfg.timeout(b.Name),
		owned: ownedHeaders(b), measured: make(map[string]metric.MeasurementOption),
	}
	transport := outbound.NewTransport(outbound.Config{
		Policy: policyFor(b, u.Hostname()), Dials: cfg.Dials, RootCAs: roots,
	})
	transport.MaxIdleConns, transport.MaxIdleConnsPerHost = idleConns, idleConns
	transport.DisableCompression = true
	t.transport = transport
	for _, outcome := range outcomes() {
		t.measured[outcome] = metric.WithAttributeSet(attribute.NewSet(
			attribute.String("backend", b.Name), attribute.String("outcome", outcome)))
	}
	for name, value := range b.Headers.Plain {
		t.static = append(t.static, staticHeader{http.CanonicalHeaderKey(name), []string{value}})
	}
	for name, ref := range b.Headers.Secret {
		value, err := cfg.Secrets.Resolve(ref)
		if err != nil {
			return nil, fault.From(err).WithPrefix("backend " + b.Name + ": headerForward")
		}
		t.static = append(t.static, staticHeader{http.CanonicalHeaderKey(name), []string{value.Reveal()}})
	}
	return t, nil
}

// idleConns is how many connections to a backend wait for the next request.
// Fewer than there are concurrent calls means a dial for each that is too many.
const idleConns = 512

// policyFor allows public addresses; private ones where the entry says so; and
// loopback ones only when the URL names one, since that is then what was meant
// and no name server can make it so.
func policyFor(b *config.Backend, host string) outbound.Policy {
	return outbound.Policy{AllowPrivate: b.AllowPrivateEndpoint, AllowLoopback: outbound.IsLoopback(host)}
}

func roots(b *config.Backend, secrets *secret.Resolver) (*x509.CertPool, error) {
	if b.CABundle == nil {
		return nil, nil // the system's
	}
	pem, err := secrets.Resolve(*b.CABundle)
	if err != nil {
		return nil, fault.From(err).WithPrefix("backend " + b.Name + ": caBundleRef")
	}
	pool, err := outbound.WithSystemRoots(pem)
	if err != nil {
		return nil, fault.From(err).WithPrefix("backend " + b.Name + ": caBundleRef")
	}
	return pool, nil
}

// ownedHeaders are set by us alone, also when a credential happens to lack one.
func ownedHeaders(b *config.Backend) map[string]bool {
	owned := make(map[string]bool)
	for name := range b.Headers.Plain {
		owned[http.CanonicalHeaderKey(name)] = true
	}
	for name := range b.Headers.Secret {
		owned[http.CanonicalHeaderKey(name)] = true
	}
	if s := b.Strategy.HeaderInjection; s != nil {
		owned[http.CanonicalHeaderKey(s.HeaderName)] = true
	}
	if s := b.Strategy.TokenExchange; s != nil {
		owned[http.CanonicalHeaderKey(s.HeaderName)] = true
	}
	return owned
}

// private are headers of a client that no backend gets: its credentials, what
// concerns one connection only (RFC 9110, section 7.6.1), and what a backend
// could take for the word of a proxy that it trusts.
func private(name string) bool {
	switch name {
	case "Authorization", "Proxy-Authorization", "Proxy-Authenticate", "Cookie", "Cookie2",
		"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
		"Content-Length", "Host", "Accept-Encoding", "Expect",
		"Forwarded", "X-Real-Ip", "Via", "Origin", "Referer",
		"Traceparent", "Tracestate", "Baggage":
		return true
	}
	return strings.HasPrefix(name, "X-Forwarded-")
}

// identity asks for an answer as it is: a compressed stream could not be
// flushed event by event, and the transport would decompress on its own.
var identity = []string{"identity"}

// header builds the header of a request. Order matters: what is set later wins.
func (t *target) header(client http.Header) http.Header {
	h := make(http.Header, len(client)+len(t.static)+4)
	for name, values := range client {
		if private(name) || t.owned[name] {
			continue
		}
		h[name] = values
	}
	h["Accept-Encoding"] = identity
	if _, ok := h["User-Agent"]; !ok {
		h["User-Agent"] = nil // or net/http names itself
	}
	for _, s := range t.static {
		h[s.name] = s.value
	}
	return h
}
