package subject

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/telemetry"
	authserverv1 "chatelaine.dev/proto/authserver/v1"
	brokerv1 "chatelaine.dev/proto/broker/v1"
)

// Lifespan of a subject token.
const Lifespan = 2 * time.Minute

// tokenType is the typ: not an access token (RFC 9068, section 2.1).
const tokenType = "JWT"

// Grants knows which sessions are alive.
type Grants interface {
	GrantAlive(ctx context.Context, sessionID, userID string) (now time.Time, alive bool, err error)
	ActingClient(ctx context.Context, sessionID, userID string) (now time.Time, clientID string, err error)
}

// Signer signs.
type Signer interface {
	Sign(typ string, claims any) (string, error)
}

// Service implements authserver.v1.SubjectTokenService.
type Service struct {
	authserverv1.UnimplementedSubjectTokenServiceServer
	Issuer string
	// Ours are the URLs of this deployment: its authorization server and resources.
	Ours   []string
	Grants Grants
	Signer Signer
	Logger *slog.Logger
}

// claims of a subject token (RFC 7519).
type claims struct {
	Issuer    string   `json:"iss"`
	Subject   string   `json:"sub"`
	Audience  []string `json:"aud"`
	ExpiresAt int64    `json:"exp"`
	IssuedAt  int64    `json:"iat"`
	ID        string   `json:"jti"`
}

// MintSubjectToken implements the service.
func (s *Service) MintSubjectToken(ctx context.Context, in *authserverv1.MintSubjectTokenRequest) (*authserverv1.MintSubjectTokenResponse, error) {
	audience, err := s.foreign(in.GetAudience())
	if err != nil {
		return nil, err
	}
	now, alive, err := s.Grants.GrantAlive(ctx, in.GetSessionId(), in.GetUserId())
	if err != nil {
		return nil, err
	}
	if !alive {
		return nil, ended()
	}
	token, expires, err := s.mint(in.GetUserId(), in.GetAudience(), now)
	if err != nil {
		return nil, err
	}
	telemetry.Audit(ctx, s.Logger, "subject_token.issued", "success",
		slog.String("session_id", in.GetSessionId()), slog.String("audience", audience.Host))
	return &authserverv1.MintSubjectTokenResponse{Token: token, ExpiresAt: expires}, nil
}

// MintActorToken implements the service.
func (s *Service) MintActorToken(ctx context.Context, in *authserverv1.MintActorTokenRequest) (*authserverv1.MintActorTokenResponse, error) {
	audience, err := s.foreign(in.GetAudience())
	if err != nil {
		return nil, err
	}
	now, client, err := s.Grants.ActingClient(ctx, in.GetSessionId(), in.GetUserId())
	if err != nil {
		return nil, err
	}
	if client == "" {
		return nil, ended()
	}
	token, expires, err := s.mint(client, in.GetAudience(), now)
	if err != nil {
		return nil, err
	}
	telemetry.Audit(ctx, s.Logger, "actor_token.issued", "success", slog.String("session_id", in.GetSessionId()),
		slog.String("client_id", client), slog.String("audience", audience.Host))
	return &authserverv1.MintActorTokenResponse{Token: token, ExpiresAt: expires}, nil
}

// foreign checks that an audience is somebody else's token endpoint.
func (s *Service) foreign(text string) (*url.URL, error) {
	audience, err := url.Parse(text)
	if err != nil || (audience.Scheme != "https" && audience.Scheme != "http") || audience.Host == "" || audience.Fragment != "" {
		return nil, fault.New(fault.Invalid, "the audience must be the URL of a token endpoint").WithField("audience", "is not an http(s) URL")
	}
	if s.ours(audience) {
		return nil, fault.New(fault.Invalid, "a subject token is for somebody else's token endpoint").WithField("audience", "is of this deployment")
	}
	return audience, nil
}

func ended() error {
	return fault.New(fault.Precondition, "the session is not alive, or not this user's").WithReason(brokerv1.ReasonSessionEnded)
}

// mint signs a token about a person, or a client, for one audience.
func (s *Service) mint(subject, audience string, now time.Time) (token string, expires *timestamppb.Timestamp, err error) {
	end := now.Add(Lifespan)
	token, err = s.Signer.Sign(tokenType, claims{
		Issuer: s.Issuer, Subject: subject, Audience: []string{audience},
		ExpiresAt: end.Unix(), IssuedAt: now.Unix(), ID: rand.Text(),
	})
	return token, timestamppb.New(end), err
}

// ours reports whether an audience is where our own tokens are taken: anything on
// the origin of the authorization server, or a resource or what is below it.
func (s *Service) ours(audience *url.URL) bool {
	for i, text := range append([]string{s.Issuer}, s.Ours...) {
		u, err := url.Parse(text)
		if err != nil || origin(u) != origin(audience) {
			continue
		}
		path := strings.TrimSuffix(u.EscapedPath(), "/")
		if i == 0 || audience.EscapedPath() == path || strings.HasPrefix(audience.EscapedPath(), path+"/") {
			return true
		}
	}
	return false
}

// origin returns scheme, host and port (RFC 6454, section 4).
func origin(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Scheme + "://" + strings.TrimSuffix(strings.ToLower(u.Hostname()), ".") + ":" + port
}
