package credential

import (
	"errors"
	"strings"
	"sync"
	"time"

	"chatelaine.dev/internal/bearer"
	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/outbound"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/deployment"
	"chatelaine.dev/services/tokenbroker/internal/exchange"
	"chatelaine.dev/services/tokenbroker/internal/upstream/endpoint"
)

// maxPlans is how many sets of resources are kept prepared. The configuration
// decides which of them may still be asked for.
const maxPlans = 16

// PlansConfig makes Plans. Secrets is required.
type PlansConfig struct {
	// Secrets finds static credentials and the secrets of exchanges.
	Secrets *secret.Resolver
	// Dials overrides where some HOST:PORT are found.
	Dials outbound.Dials
	// JWKSURL is where the issuer's keys are, ours or another's; empty: as configured
	// or discovered.
	JWKSURL string
	// Minter mints subject tokens; nil without an authserver to ask: then a set that
	// needs them is refused.
	Minter Minter
	// Observer traces and counts requests to token services; nil does neither.
	Observer *endpoint.Observer
	// ExchangeCacheSize is how many exchanged tokens are remembered; zero means
	// exchange.DefaultCacheSize.
	ExchangeCacheSize int
	// Now is time.Now, or a test's.
	Now func() time.Time
}

// Plans is the prepared form of the sets of resources that gateways may run with.
type Plans struct {
	cfg       PlansConfig
	exchanged *exchange.Cache

	mu        sync.RWMutex
	plans     map[string]*plan // by digest
	digests   []string         // oldest first
	verifiers map[issuer]*bearer.Verifier
}

// plan is one set of resources, ready to serve.
type plan struct {
	deployment *config.Deployment
	verifier   *bearer.Verifier // nil in anonymous mode
	backends   map[string]*backend
}

// backend is one backend, ready to serve.
type backend struct {
	*config.Backend
	// audiences open the backend.
	audiences []string
	exchange  *exchange.Client // for tokenExchange
	static    *static          // for headerInjection and bearerToken
}

// issuer tells verifiers apart; they outlive sets, with the tokens they remember.
type issuer struct {
	config.TokenIssuer
	caBundle secret.Ref
	external bool
}

// NewPlans returns plans without any set.
func NewPlans(cfg PlansConfig) *Plans {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Plans{
		cfg: cfg, exchanged: exchange.NewCache(cfg.ExchangeCacheSize, cfg.Now),
		plans: map[string]*plan{}, verifiers: map[issuer]*bearer.Verifier{},
	}
}

// Prepare makes a set ready. It makes no request. Its error joins everything that
// is missing, each with the backend and the secret's name.
func (p *Plans) Prepare(s *deployment.Snapshot) error {
	prepared := &plan{deployment: s.Deployment, backends: make(map[string]*backend, len(s.Deployment.Backends))}
	var problems []error
	if s.Deployment.Issuer != nil {
		var err error
		if prepared.verifier, err = p.verifier(s.Deployment); err != nil {
			problems = append(problems, err)
		}
	}
	for i := range s.Deployment.Backends {
		b, err := p.backend(s.Deployment, &s.Deployment.Backends[i])
		if err != nil {
			f := fault.From(err)
			problems = append(problems, fault.Wrap(f.Kind, err,
				"backend "+s.Deployment.Backends[i].Name+": "+f.Error()).WithReason(f.Reason))
			continue
		}
		prepared.backends[b.Name] = b
	}
	if err := errors.Join(problems...); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, there := p.plans[s.Digest]; !there {
		p.digests = append(p.digests, s.Digest)
	}
	p.plans[s.Digest] = prepared
	for len(p.digests) > maxPlans {
		delete(p.plans, p.digests[0])
		p.digests = p.digests[1:]
	}
	return nil
}

func (p *Plans) find(digest string) (*plan, bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	found, ok := p.plans[digest]
	return found, ok
}

func (p *Plans) backend(d *config.Deployment, b *config.Backend) (*backend, error) {
	ready := &backend{Backend: b, audiences: d.ResourcesFor(b.Name)}
	var err error
	switch s := &b.Strategy; s.Type {
	case config.StrategyUpstreamInject, config.StrategyUnauthenticated:
	case config.StrategyTokenExchange:
		if p.cfg.Minter == nil && minted(d, s.TokenExchange) {
			return nil, fault.New(fault.Invalid, "its subject token is minted by the authorization server: "+
				"say where that is with --authserver-address, or name a subjectProviderName")
		}
		if p.cfg.Minter == nil && s.TokenExchange.MintActor {
			return nil, fault.New(fault.Invalid, "its actor token is minted by the authorization server: "+
				"say where that is with --authserver-address, or remove actorToken")
		}
		ready.exchange, err = exchange.New(s.TokenExchange, exchange.Config{
			Name: s.Config, Cache: p.exchanged, Secrets: p.cfg.Secrets, Dials: p.cfg.Dials,
			Observer: p.cfg.Observer, Now: p.cfg.Now,
		})
	case config.StrategyHeaderInjection:
		ready.static, err = newStatic(p.cfg, s.HeaderInjection.HeaderName, "", s.HeaderInjection.Value)
	case config.StrategyBearerToken:
		ready.static, err = newStatic(p.cfg, "Authorization", "Bearer ", s.BearerToken.Token)
	default:
		err = fault.Newf(fault.Invalid, "the strategy %q is not supported", s.Type)
	}
	return ready, err
}

// minted reports whether the subject token of an exchange is one that the authserver
// mints for it.
func minted(d *config.Deployment, s *config.TokenExchangeStrategy) bool {
	return s.SubjectProvider == "" && d.Mode == config.ModeAuthServer
}

// verifier returns the verifier of a deployment's issuer. Ours types its tokens
// (RFC 9068); an issuer of somebody else's may predate that, and its tokens are
// told from id tokens by their audience, which is our resource. Its keys decide
// about the algorithm, of ours as of others: operators choose the signing keys.
func (p *Plans) verifier(d *config.Deployment) (*bearer.Verifier, error) {
	id := issuer{TokenIssuer: *d.Issuer, external: d.Mode == config.ModeExternalIssuer}
	if id.CABundle != nil {
		id.caBundle = *id.CABundle
		id.CABundle = nil
	}
	p.mu.RLock()
	known := p.verifiers[id]
	p.mu.RUnlock()
	if known != nil {
		return known, nil
	}
	made, err := bearer.ForIssuer(bearer.IssuerConfig{
		Issuer: *d.Issuer, Ours: !id.external, JWKSURL: p.cfg.JWKSURL,
		Secrets: p.cfg.Secrets, Dials: p.cfg.Dials, Now: p.cfg.Now,
	})
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.verifiers[id] = made
	return made, nil
}

// headerValue reports whether a text can be put into a header as it is.
func headerValue(s string) bool {
	return s != "" && s == strings.TrimSpace(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return r < 0x20 && r != '\t' || r == 0x7f
	})
}
