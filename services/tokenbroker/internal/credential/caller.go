package credential

import (
	"context"
	"time"

	"chatelaine.dev/internal/bearer"
	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/reason"
)

// caller is who a credential is for, proven by an access token.
type caller struct {
	// sessionID, userID and clientID are those of an active session; the session
	// is empty with an external issuer, everything in anonymous mode.
	sessionID, userID, clientID string
	// position up to which events about the session were taken into account.
	position int64
	// token and expiry are the access token's.
	token  secret.String
	expiry time.Time
}

// authenticate verifies the caller's own token. With an error, what the caller
// has has the ids that were proven so far.
func (s *Service) authenticate(ctx context.Context, p *plan, b *backend, token string) (caller, error) {
	if p.deployment.Mode == config.ModeAnonymous {
		if b.Strategy.PerUser() {
			return caller{}, userRequired() // the configuration's checks forbid it too
		}
		return caller{}, nil
	}
	if token == "" {
		return caller{}, userRequired()
	}
	claims, err := p.verifier.Verify(ctx, token, b.audiences...)
	if err != nil {
		return caller{}, tokenFault(err)
	}
	c := caller{clientID: claims.ClientID, token: secret.New(token), expiry: claims.Expiry}
	if p.deployment.Mode == config.ModeExternalIssuer {
		c.userID = claims.Subject
		return c, nil
	}
	if claims.SessionID == "" || claims.ClientID == "" {
		return caller{}, tokenInvalid(nil) // one of our keys signed it, but not as an access token
	}
	session, position, err := s.cfg.Memory.session(ctx, claims.SessionID)
	if err != nil {
		return caller{sessionID: claims.SessionID, userID: claims.Subject, clientID: claims.ClientID}, err
	}
	if session.UserID != claims.Subject || session.ClientID != claims.ClientID {
		return caller{}, tokenInvalid(nil)
	}
	c.sessionID, c.userID, c.position = session.ID, session.UserID, position
	if session.Locked {
		primary := p.deployment.AuthServer.Primary
		return c, fault.Newf(fault.Precondition, "%s asks for a new login", primary).
			WithReason(reason.ReauthenticationRequired, reason.Provider, primary)
	}
	return c, nil
}

// tokenFault tells a bad token from keys that cannot be had.
func tokenFault(err error) error {
	f := fault.From(err)
	switch f.Kind {
	case fault.Unauthenticated:
		return tokenInvalid(err)
	case fault.Canceled, fault.Timeout:
		return err
	}
	e := fault.Wrap(fault.Unavailable, err, "access tokens cannot be verified at the moment").
		WithReason(reason.UpstreamUnavailable)
	if f.Reason == bearer.ReasonKeys && f.RetryAfter > 0 {
		e = e.WithRetryAfter(f.RetryAfter)
	}
	return e
}

func tokenInvalid(cause error) error {
	return fault.Wrap(fault.Unauthenticated, cause, "the access token does not open this backend").
		WithReason(reason.TokenInvalid)
}

func userRequired() error {
	return fault.New(fault.Unauthenticated, "the backend needs a person and the call has none").
		WithReason(reason.UserRequired)
}
