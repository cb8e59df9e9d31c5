package bearer

import (
	"time"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/outbound"
	"chatelaine.dev/internal/secret"
)

// keysTimeout bounds one request for an issuer's keys or metadata.
const keysTimeout = 5 * time.Second

// IssuerConfig is what an issuer of a deployment is verified with.
type IssuerConfig struct {
	Issuer config.TokenIssuer
	// Ours says that the issuer is our own authorization server: it types its
	// access tokens (RFC 9068), and it is a neighbour, on whatever address.
	Ours bool
	// JWKSURL, when set, is where the keys are, whatever the issuer says: an
	// operator's flag, so any address may be in it.
	JWKSURL string

	Secrets *secret.Resolver
	Dials   outbound.Dials
	// Tracer and Propagator may be nil.
	Tracer     trace.TracerProvider
	Propagator propagation.TextMapPropagator
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// ForIssuer returns the verifier of an issuer of access tokens, the same in every
// service. The algorithms are those of the issuer's keys. Errors are Invalid, or
// Precondition (the secret with the CA bundle is missing).
func ForIssuer(cfg IssuerConfig) (*Verifier, error) {
	client := outbound.Config{
		Timeout: keysTimeout, Dials: cfg.Dials, Tracer: cfg.Tracer, Propagator: cfg.Propagator, Policy: outbound.Trusted(),
	}
	if !cfg.Ours && cfg.JWKSURL == "" {
		client.Policy = outbound.Policy{
			AllowPrivate:  cfg.Issuer.AllowPrivateIPs,
			AllowLoopback: outbound.Loopback(cfg.Issuer.URL) || outbound.Loopback(cfg.Issuer.JWKSURL),
		}
	}
	if ref := cfg.Issuer.CABundle; ref != nil {
		pem, err := cfg.Secrets.Resolve(*ref)
		if err == nil {
			client.RootCAs, err = outbound.WithSystemRoots(pem)
		}
		if err != nil {
			return nil, fault.From(err).WithPrefix("the issuer's CA bundle")
		}
	}
	v := Config{
		Issuer: cfg.Issuer.URL, JWKSURL: cfg.Issuer.JWKSURL, Client: outbound.New(client),
		Algorithms: asymmetricNames(), Now: cfg.Now,
	}
	if cfg.JWKSURL != "" {
		v.JWKSURL = cfg.JWKSURL
	}
	if cfg.Ours { // an issuer of somebody else's may predate RFC 9068
		v.Type = TypeAccessToken
	}
	return New(v)
}
