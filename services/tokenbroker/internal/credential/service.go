package credential

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"chatelaine.dev/internal/fault"
	authserverv1 "chatelaine.dev/proto/authserver/v1"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/deployment"
	"chatelaine.dev/services/tokenbroker/internal/reason"
)

// Configs is the sets of resources that gateways may run with.
type Configs interface {
	Current() *deployment.Snapshot
	Find(digest string) (*deployment.Snapshot, bool)
}

// Minter mints subject tokens: the authserver's SubjectTokenService.
type Minter interface {
	MintSubjectToken(ctx context.Context, in *authserverv1.MintSubjectTokenRequest, opts ...grpc.CallOption) (*authserverv1.MintSubjectTokenResponse, error)
	MintActorToken(ctx context.Context, in *authserverv1.MintActorTokenRequest, opts ...grpc.CallOption) (*authserverv1.MintActorTokenResponse, error)
}

// Auditor keeps audit records. What cannot be recorded is not handed out.
type Auditor interface {
	Record(ctx context.Context, rec audit.Record) error
}

// Config makes a Service. All fields are required, but for Now.
type Config struct {
	Configs Configs
	Plans   *Plans
	Memory  *Memory
	Tokens  Tokens
	Audit   Auditor
	Logger  *slog.Logger
	// Now is time.Now, or a test's.
	Now func() time.Time
}

// Service is the part of CredentialService that hands out credentials.
type Service struct {
	cfg    Config
	forced *forcedRenewals
}

// New returns a service.
func New(cfg Config) *Service {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Service{cfg: cfg, forced: newForcedRenewals(cfg.Now)}
}

// request is what the two calls have in common, resolved and allowed.
type request struct {
	digest  string
	plan    *plan
	backend *backend
	caller  caller
}

// credential is what a strategy came to.
type credential struct {
	header, value string // without a header: none
	expiresAt     time.Time
	connectionID  string
	provider      string
	version       version
	position      int64
}

// GetCredential implements broker.v1.CredentialService.
func (s *Service) GetCredential(ctx context.Context, in *brokerv1.GetCredentialRequest) (*brokerv1.GetCredentialResponse, error) {
	rec := audit.Record{Backend: in.GetBackend()}
	out, err := s.issue(ctx, in, &rec)
	if err != nil {
		s.recordRefusal(ctx, rec, err)
		return nil, err
	}
	rec.Action, rec.Outcome = audit.CredentialIssued, audit.Outcome(nil)
	if err := s.cfg.Audit.Record(ctx, rec); err != nil {
		return nil, err
	}
	return out, nil
}

// recordRefusal keeps a record of what a caller was refused. The caller is told the
// reason of the refusal, whether or not the record could be kept.
func (s *Service) recordRefusal(ctx context.Context, rec audit.Record, refused error) {
	rec.Action, rec.Outcome = audit.CredentialRefused, audit.Outcome(refused)
	if f, ok := fault.As(refused); ok && rec.Provider == "" {
		rec.Provider = f.Metadata[reason.Provider]
	}
	err := s.cfg.Audit.Record(ctx, rec)
	if err == nil {
		return
	}
	if fault.ReasonOf(err) == "" || fault.ReasonOf(err) != fault.ReasonOf(refused) { // else the line of the call says it
		s.cfg.Logger.LogAttrs(ctx, slog.LevelError, "a refusal could not be recorded", fault.Attr(err))
	}
}

func (s *Service) issue(ctx context.Context, in *brokerv1.GetCredentialRequest, rec *audit.Record) (*brokerv1.GetCredentialResponse, error) {
	r, err := s.resolve(ctx, in.GetConfigDigest(), in.GetBackend(), in.GetAccessToken(), rec)
	if err != nil {
		return nil, err
	}
	c, err := s.open(ctx, r)
	if err != nil {
		return nil, err
	}
	rec.ConnectionID, rec.Provider = c.connectionID, c.provider
	out := &brokerv1.GetCredentialResponse{
		Origin: r.backend.Origin, SessionId: r.caller.sessionID,
		ConnectionId: c.connectionID, Provider: c.provider,
		CredentialVersion: c.version.String(), ObservedPosition: c.position,
	}
	if c.header != "" {
		out.Headers = []*brokerv1.Header{{Name: c.header, Value: c.value}}
	}
	if !c.expiresAt.IsZero() {
		out.ExpiresAt = timestamppb.New(c.expiresAt)
	}
	return out, nil
}

// resolve finds the backend as the gateway knows it and makes sure that the
// caller may use it. rec learns of the caller as soon as it is known.
func (s *Service) resolve(ctx context.Context, digest, name, token string, rec *audit.Record) (*request, error) {
	_, known := s.cfg.Configs.Find(digest)
	p, prepared := s.cfg.Plans.find(digest)
	if !known || !prepared {
		return nil, configUnknown()
	}
	b, ok := p.backends[name]
	if !ok {
		return nil, fault.New(fault.NotFound, "there is no such backend").WithReason(reason.BackendUnknown)
	}
	rec.Strategy = string(b.Strategy.Type)
	c, err := s.authenticate(ctx, p, b, token)
	rec.SessionID, rec.UserID, rec.ClientID = c.sessionID, c.userID, c.clientID
	if err != nil {
		return nil, err
	}
	return &request{digest: digest, plan: p, backend: b, caller: c}, nil
}

func configUnknown() error {
	return fault.New(fault.Precondition, "the configuration that the digest names is not in use here").
		WithReason(reason.ConfigUnknown)
}
