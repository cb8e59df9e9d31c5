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
	audience, err := url.Parse(in.GetAudience())
	if err != nil || (audience.Scheme != "https" && audience.Scheme != "http") || audience.Host == "" || audience.Fragment != "" {
		return nil, fault.New(fault.Invalid, "the audience must be the URL of a token endpoint").WithField("audience", "is not an http(s) URL")
	}
	if s.ours(audience) {
		return nil, fault.New(fault.Invalid, "a subject token is for somebody else's token endpoint").WithField("audience", "is of this deployment")
	}
	now, alive, err := s.Grants.GrantAlive(ctx, in.GetSessionId(), in.GetUserId())
	if err != nil {
		return nil, err
	}
	if !alive {
		return nil, fault.New(fault.Precondition, "the session is not alive, or not this user's").WithReason(brokerv1.ReasonSessionEnded)
	}
	expires := now.Add(Lifespan)
	token, err := s.Signer.Sign(tokenType, claims{
		Issuer: s.Issuer, Subject: in.GetUserId(), Audience: []string{in.GetAudience()},
		ExpiresAt: expires.Unix(), IssuedAt: now.Unix(), ID: rand.Text(),
	})
	if err != nil {
		return nil, err
	}
	telemetry.Audit(ctx, s.Logger, "subject_token.issued", "success",
		slog.String("session_id", in.GetSessionId()), slog.String("audience", audience.Host))
	return &authserverv1.MintSubjectTokenResponse{Token: token, ExpiresAt: timestamppb.New(expires)}, nil
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
