package login

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"chatelaine.dev/internal/fault"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/deployment"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/seal"
	"chatelaine.dev/services/tokenbroker/internal/store"
	"chatelaine.dev/services/tokenbroker/internal/upstream"
)

const (
	// chainLifetime is how long a chain may take, from its authorization request on.
	chainLifetime = 10 * time.Minute
	// maxCodeLifespan is the longest that authCodeLifespan may be, and its default.
	maxCodeLifespan = 10 * time.Minute
	// PendingLifetime is the longest that a leg waits for its session's activation.
	PendingLifetime = chainLifetime + maxCodeLifespan
	// SessionLifetime is the absolute end of an active session.
	SessionLifetime = 30 * 24 * time.Hour
	// defaultIdle is how long a session lives untouched where the configuration has
	// no authorization server to say.
	defaultIdle = 7 * 24 * time.Hour
	// DefaultPatience is less than the authorization server waits for an activation.
	DefaultPatience = 5 * time.Second
	// DefaultMaxPending is far more than people begin, and what a table is not the worse for.
	DefaultMaxPending = 100_000
)

// Sessions keeps sessions.
type Sessions interface {
	BeginSession(ctx context.Context, clientID, clientName string, lifetime time.Duration) (id string, expiresAt time.Time, err error)
	LoadSession(ctx context.Context, id string) (store.Session, error)
	TouchSession(ctx context.Context, id, clientID string, idle time.Duration) (endsAt time.Time, err error)
	EndSession(ctx context.Context, id, endReason string, rec audit.Record, failed ...audit.Record) (store.Ended, error)
	PendingSessions(ctx context.Context, limit int) (int, error)
}

// Legs keeps the legs of pending sessions and promotes them.
type Legs interface {
	StageLeg(ctx context.Context, leg store.NewLeg) (store.Staged, error)
	SkipProvider(ctx context.Context, sessionID, provider, why string, rec audit.Record) (store.SkippedLeg, error)
	PlanActivation(ctx context.Context, sessionID string, maxAge time.Duration) (store.Plan, error)
	Activate(ctx context.Context, a store.Activation) (store.Session, error)
	QueueRevocation(ctx context.Context, r store.Revocation) error
}

// Sealer seals and opens tokens.
type Sealer interface {
	SealTokens(ctx context.Context, t seal.Tokens, at seal.Place) (seal.Sealed, error)
	OpenTokens(ctx context.Context, sealed seal.Sealed, at seal.Place) (seal.Tokens, error)
}

// Config makes a Service. All fields but MaxPending and Patience are required.
type Config struct {
	Sessions Sessions
	Legs     Legs
	Sealer   Sealer
	// Current returns the configuration.
	Current func() *deployment.Snapshot
	Audit   *audit.Recorder
	Logger  *slog.Logger
	// MaxPending is how many sessions may be pending, of all replicas together; zero
	// means DefaultMaxPending.
	MaxPending int
	// Patience is how long a login waits for a renewal that is spending the refresh
	// token which it would keep; zero means DefaultPatience.
	Patience time.Duration
}

// Service implements broker.v1.LoginService.
type Service struct {
	brokerv1.UnimplementedLoginServiceServer
	cfg     Config
	pending pending
}

// New returns the service.
func New(cfg Config) *Service {
	if cfg.Patience == 0 {
		cfg.Patience = DefaultPatience
	}
	if cfg.MaxPending == 0 {
		cfg.MaxPending = DefaultMaxPending
	}
	return &Service{cfg: cfg}
}

// BeginSession implements LoginService.
func (s *Service) BeginSession(ctx context.Context, req *brokerv1.BeginSessionRequest) (*brokerv1.BeginSessionResponse, error) {
	if err := s.admit(ctx); err != nil {
		return nil, err
	}
	id, expiresAt, err := s.cfg.Sessions.BeginSession(ctx, req.GetClientId(), req.GetClientName(), pendingLifetime(s.cfg.Current()))
	if err != nil {
		return nil, err
	}
	return &brokerv1.BeginSessionResponse{SessionId: id, ExpiresAt: timestamppb.New(expiresAt)}, nil
}

// SkipProvider implements LoginService.
func (s *Service) SkipProvider(ctx context.Context, req *brokerv1.SkipProviderRequest) (*brokerv1.SkipProviderResponse, error) {
	snapshot := s.cfg.Current()
	provider, err := snapshot.Providers.Provider(req.GetProvider())
	if err != nil {
		return nil, err
	}
	if !provider.Optional() {
		return nil, required(provider.Name())
	}
	why := outcome(req.GetReason())
	skipped, err := s.cfg.Legs.SkipProvider(ctx, req.GetSessionId(), provider.Name(), why, audit.Record{
		Action: audit.LegSkipped, Outcome: why, SessionID: req.GetSessionId(), Provider: provider.Name(),
	}.Complete(ctx))
	if err != nil {
		return nil, err
	}
	s.cfg.Audit.Log(ctx, skipped.Record)
	return &brokerv1.SkipProviderResponse{Links: Links(snapshot.Providers, &skipped.Session)}, nil
}

// TouchSession implements LoginService.
func (s *Service) TouchSession(ctx context.Context, req *brokerv1.TouchSessionRequest) (*brokerv1.TouchSessionResponse, error) {
	endsAt, err := s.cfg.Sessions.TouchSession(ctx, req.GetSessionId(), req.GetClientId(), idle(s.cfg.Current()))
	if err != nil {
		return nil, err
	}
	return &brokerv1.TouchSessionResponse{ExpiresAt: timestamppb.New(endsAt)}, nil
}

// EndSession implements LoginService.
func (s *Service) EndSession(ctx context.Context, req *brokerv1.EndSessionRequest) (*brokerv1.EndSessionResponse, error) {
	why := strings.TrimPrefix(req.GetReason().String(), "SESSION_END_REASON_")
	var failed []audit.Record
	if leg := req.GetFailedLeg(); leg != nil {
		failed = append(failed, audit.Record{Action: audit.LegFailed, Outcome: outcome(leg.GetReason()), Provider: leg.GetProvider()}.Complete(ctx))
	}
	ended, err := s.cfg.Sessions.EndSession(ctx, req.GetSessionId(), why, audit.Record{
		Action: audit.SessionEnded, Outcome: why, SessionID: req.GetSessionId(),
	}.Complete(ctx), failed...)
	if err != nil {
		return nil, err
	}
	for _, rec := range ended.Failed {
		s.cfg.Audit.Log(ctx, rec)
	}
	if ended.Changed {
		s.cfg.Audit.Log(ctx, ended.Record)
	}
	return &brokerv1.EndSessionResponse{}, nil
}

// outcome is the outcome of the record of a leg that did not get through.
func outcome(why brokerv1.SkipReason) string {
	return strings.TrimPrefix(why.String(), "SKIP_REASON_")
}

// pendingLifetime is how long a session waits for its activation: the last moment of
// a code that the last moment of a chain has brought is soon enough.
func pendingLifetime(snapshot *deployment.Snapshot) time.Duration {
	as := snapshot.Deployment.AuthServer
	if as == nil {
		return PendingLifetime
	}
	return chainLifetime + as.AuthCodeLifespan
}

// idle is how long an untouched session lives: as long as the tokens that can touch it.
func idle(snapshot *deployment.Snapshot) time.Duration {
	as := snapshot.Deployment.AuthServer
	if as == nil {
		return defaultIdle
	}
	return max(as.RefreshTokenLifespan, as.AccessTokenLifespan)
}

// Links says what a session has of each configured provider, in the order of the chain.
func Links(providers *upstream.Registry, session *store.Session) []*brokerv1.SessionLink {
	byName := make(map[string]store.Link, len(session.Links))
	for _, l := range session.Links {
		byName[l.Provider] = l
	}
	links := make([]*brokerv1.SessionLink, 0, len(providers.Providers()))
	for _, p := range providers.Providers() {
		link := &brokerv1.SessionLink{Provider: p.Name(), State: brokerv1.SessionLinkState_SESSION_LINK_STATE_MISSING}
		switch has, ok := byName[p.Name()]; {
		case ok && (has.Staged || has.ConnectionID != ""):
			link.State, link.ConnectionId = brokerv1.SessionLinkState_SESSION_LINK_STATE_LINKED, has.ConnectionID
		case ok && has.Skipped:
			link.State = brokerv1.SessionLinkState_SESSION_LINK_STATE_SKIPPED
		}
		links = append(links, link)
	}
	return links
}

func required(provider string) error {
	return fault.Newf(fault.Precondition, "the provider %s is required", provider).
		WithReason(reason.ProviderRequired, reason.Provider, provider)
}
