package credentials

import (
	"context"
	"errors"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/metric"
	"google.golang.org/grpc"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/internal/telemetry"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/gateway/internal/caller"
)

// Defaults of Config.
const (
	DefaultMaxUnwatched = 3 * time.Second
	DefaultMaxAge       = 5 * time.Minute
	defaultSize         = 64 << 10 // entries
)

const (
	// expiryMargin is how long before its end a credential is no longer used: a
	// request that leaves with it must still arrive in time.
	expiryMargin = 5 * time.Second
	// confirmFor is how long an answer counts while nobody watches: as long as
	// an event would take at most while somebody does.
	confirmFor = time.Second
	// renewEvery is the least time between two renewals that a backend's 401s
	// cause for one entry, so that a backend that refuses everything does not
	// make us refresh for every request.
	renewEvery = 30 * time.Second
	// callTimeout bounds a call to the broker, which may have to refresh or
	// exchange a token upstream.
	callTimeout = 20 * time.Second
	// maxVoid is how many answers in a row may be void before we give up, and
	// voidPause the first pause after one; each is twice the last. A replica of
	// the broker may hear of an event half a second after another one told us.
	maxVoid   = 5
	voidPause = 50 * time.Millisecond
)

// Broker is what is used of the broker's CredentialService.
type Broker interface {
	GetCredential(ctx context.Context, in *brokerv1.GetCredentialRequest, opts ...grpc.CallOption) (*brokerv1.GetCredentialResponse, error)
	ReportRejected(ctx context.Context, in *brokerv1.ReportRejectedRequest, opts ...grpc.CallOption) (*brokerv1.ReportRejectedResponse, error)
	WatchSessions(ctx context.Context, in *brokerv1.WatchSessionsRequest, opts ...grpc.CallOption) (grpc.ServerStreamingClient[brokerv1.WatchSessionsResponse], error)
}

// Config makes a Manager.
type Config struct {
	// Broker is asked. Required.
	Broker Broker
	// ConfigDigest names the resources that we run with. Required.
	ConfigDigest string
	// Sessions is true where callers have sessions of ours, which can end: then
	// Run must run. With an external issuer, and in anonymous mode, there is
	// nothing to watch.
	Sessions bool
	// TokenLifetime is how long access tokens live; a session that ended is
	// refused for that long. Required with Sessions.
	TokenLifetime time.Duration
	// MaxUnwatched is how long the watch may be silent; zero means the default.
	MaxUnwatched time.Duration
	// MaxAge bounds the age of an entry that does not expire sooner.
	MaxAge time.Duration
	// Size bounds the number of entries.
	Size int
	// Telemetry is required; see telemetry.Discard.
	Telemetry *telemetry.Telemetry
}

// Manager gives out credentials. It is safe for concurrent use.
type Manager struct {
	cfg      Config
	cache    *cache
	events   eventLog
	sessions *sessions
	watch    watchState
	config   configState

	requests              metric.Int64Counter
	hit, missed, confirms metric.MeasurementOption
}

// New makes a manager. Run must run where Config.Sessions is set.
func New(cfg Config) (*Manager, error) {
	if cfg.Broker == nil || cfg.Telemetry == nil || cfg.ConfigDigest == "" || (cfg.Sessions && cfg.TokenLifetime <= 0) {
		return nil, fault.New(fault.Internal, "credentials: Broker, Telemetry, ConfigDigest and, with Sessions, TokenLifetime are required")
	}
	if cfg.MaxUnwatched <= 0 {
		cfg.MaxUnwatched = DefaultMaxUnwatched
	}
	if cfg.MaxAge <= 0 {
		cfg.MaxAge = DefaultMaxAge
	}
	if cfg.Size <= 0 {
		cfg.Size = defaultSize
	}
	m := &Manager{cfg: cfg, cache: newCache(cfg.Size), sessions: newSessions(cfg.TokenLifetime)}
	return m, m.instrument(m.meter())
}

// Get returns the credential of c for a backend. Errors are *fault.Error with
// one of this package's reasons.
func (m *Manager) Get(ctx context.Context, c *caller.Caller, backend string) (*Credential, error) {
	if m.Ended(c) {
		return nil, errSessionEnded()
	}
	now := time.Now()
	k := key{c.CacheKey, backend}
	e, ok := m.cache.get(k)
	switch {
	case !ok || m.expired(&e, now):
		m.requests.Add(ctx, 1, m.missed)
	case now.Sub(e.confirmedAt) < confirmFor || m.fresh(now):
		m.requests.Add(ctx, 1, m.hit)
		return e.cred, nil
	default:
		m.requests.Add(ctx, 1, m.confirms)
	}
	return m.fetch(ctx, c, k)
}

func (m *Manager) expired(e *entry, now time.Time) bool {
	if e.spent || now.Sub(e.confirmedAt) > m.cfg.MaxAge {
		return true
	}
	return !e.cred.ExpiresAt.IsZero() && now.Add(expiryMargin).After(e.cred.ExpiresAt)
}

// call is a call to the broker that is under way.
type call struct {
	done chan struct{}
	cred *Credential
	err  error
}

// fetch asks the broker, once for all who wait for the same.
func (m *Manager) fetch(ctx context.Context, c *caller.Caller, k key) (*Credential, error) {
	s := m.cache.shard(k.caller)
	s.mu.Lock()
	running, ok := s.calls[k]
	if !ok {
		running = &call{done: make(chan struct{})}
		s.calls[k] = running
		// The call belongs to all who wait: it does not end with its first caller.
		detached, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
		go func() {
			defer cancel()
			m.ask(detached, c, k, s, running)
		}()
	}
	s.mu.Unlock()
	select {
	case <-running.done:
		return running.cred, running.err
	case <-ctx.Done():
		return nil, m.gaveUp(context.Cause(ctx))
	}
}

// gaveUp says why a caller's wait is over. When its time is, and the broker has been
// silent on the watch too, that is the broker's doing, and not a provider's.
func (m *Manager) gaveUp(cause error) error {
	if errors.Is(cause, context.DeadlineExceeded) && !m.Fresh() {
		return errSilentBroker(cause)
	}
	return fault.From(cause)
}

func errSilentBroker(cause error) error {
	return fault.Wrap(fault.Unavailable, cause, "the token broker cannot answer").WithReason(ReasonBrokerUnavailable)
}

func (m *Manager) ask(ctx context.Context, c *caller.Caller, k key, s *shard, running *call) {
	defer close(running.done)
	for attempt := range maxVoid {
		s.mu.RLock()
		generation := s.generation
		s.mu.RUnlock()
		cred, err := m.getCredential(ctx, c, k.backend)
		now := time.Now()

		s.mu.Lock()
		void := err == nil && (s.generation != generation || m.events.void(cred))
		if void && s.calls[k] == running {
			s.mu.Unlock()
			select {
			case <-time.After(voidPause << attempt):
			case <-ctx.Done():
			}
			continue
		}
		running.cred, running.err = cred, err
		current := s.calls[k] == running // Rejected takes away what it has overtaken
		if current {
			delete(s.calls, k)
		}
		if current && err == nil {
			s.putLocked(k, entry{cred: cred, confirmedAt: now, renewedAt: s.entries[k].renewedAt}, m.cache.max, now)
		}
		s.mu.Unlock()
		return
	}
	running.err = fault.New(fault.Unavailable, "the connection keeps changing; try again").WithReason(ReasonBrokerUnavailable)
	s.mu.Lock()
	if s.calls[k] == running {
		delete(s.calls, k)
	}
	s.mu.Unlock()
}

func (m *Manager) getCredential(ctx context.Context, c *caller.Caller, backend string) (*Credential, error) {
	resp, err := m.cfg.Broker.GetCredential(ctx, &brokerv1.GetCredentialRequest{
		AccessToken: c.Token.Reveal(), Backend: backend, ConfigDigest: m.cfg.ConfigDigest,
	})
	if err != nil {
		return nil, m.brokerFault(ctx, err)
	}
	m.configKnown(ctx)
	cred := &Credential{
		Origin: resp.GetOrigin(), SessionID: resp.GetSessionId(), ConnectionID: resp.GetConnectionId(),
		Provider: resp.GetProvider(), Version: resp.GetCredentialVersion(), ObservedPosition: resp.GetObservedPosition(),
	}
	if resp.GetExpiresAt() != nil {
		cred.ExpiresAt = resp.GetExpiresAt().AsTime()
	}
	for _, h := range resp.GetHeaders() {
		cred.Headers = append(cred.Headers, Header{http.CanonicalHeaderKey(h.GetName()), secret.New(h.GetValue())})
	}
	return cred, nil
}

// brokerFault keeps what the broker said, and calls a broker that could not be
// asked, or could not say, by its name.
func (m *Manager) brokerFault(ctx context.Context, err error) error {
	f := fault.From(err)
	switch f.Reason {
	case ReasonConfigUnknown:
		return m.configUnknown(ctx, f)
	case ReasonUpstreamUnavailable:
		return f
	}
	switch f.Kind {
	case fault.Unavailable, fault.Timeout: // of the broker itself, or of its database: callers need not know which
		return errSilentBroker(err)
	}
	return f
}

// Rejected says that a backend answered 401 to a credential, and reports
// whether Get now returns another one. Within renewEvery of a renewal it is
// false without a question to the broker: the backend refuses fresh ones too.
func (m *Manager) Rejected(ctx context.Context, c *caller.Caller, backend string, rejected *Credential) (renewed bool, err error) {
	k := key{c.CacheKey, backend}
	e, ok := m.cache.get(k)
	now := time.Now()
	switch {
	case ok && (e.spent || e.cred.Version != rejected.Version):
		return true, nil // somebody else's report was faster
	case ok && now.Sub(e.renewedAt) < renewEvery:
		return false, nil
	}
	resp, err := m.cfg.Broker.ReportRejected(ctx, &brokerv1.ReportRejectedRequest{
		AccessToken: c.Token.Reveal(), Backend: backend, ConfigDigest: m.cfg.ConfigDigest,
		CredentialVersion: rejected.Version,
	})
	if err != nil {
		return false, m.brokerFault(ctx, err)
	}
	m.forget(k, rejected, now)
	return resp.GetRenewed(), nil
}

// forget makes sure that a later Get does not return the rejected credential,
// neither from the cache nor from a call that began before the report.
func (m *Manager) forget(k key, rejected *Credential, now time.Time) {
	s := m.cache.shard(k.caller)
	s.mu.Lock()
	defer s.mu.Unlock()
	if e, ok := s.entries[k]; ok && e.cred.Version != rejected.Version {
		return
	}
	delete(s.calls, k)
	s.putLocked(k, entry{cred: rejected, confirmedAt: now, renewedAt: now, spent: true}, m.cache.max, now)
}

func errSessionEnded() error {
	return fault.New(fault.Unauthenticated, "the session has ended").WithReason(ReasonSessionEnded)
}
