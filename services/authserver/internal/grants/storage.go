package grants

import (
	"context"
	"net/url"
	"time"

	"github.com/ory/fosite"
	"github.com/ory/fosite/handler/oauth2"
	"github.com/ory/fosite/handler/pkce"
	fositestorage "github.com/ory/fosite/storage"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/authserver/internal/store"
)

// storage is the store as fosite's code and PKCE handlers see it. fosite reads,
// then invalidates: the invalidation fails when somebody else was faster.
type storage struct {
	store        *store.Store
	codeLifespan time.Duration
}

var (
	_ fosite.Storage                = (*storage)(nil)
	_ oauth2.CoreStorage            = (*storage)(nil)
	_ oauth2.TokenRevocationStorage = (*storage)(nil)
	_ pkce.PKCERequestStorage       = (*storage)(nil)
	_ fositestorage.Transactional   = (*storage)(nil)
)

// GetClient implements fosite.ClientManager.
func (s *storage) GetClient(ctx context.Context, id string) (fosite.Client, error) {
	c, err := s.store.Client(ctx, id)
	if err != nil {
		return nil, notFound(err)
	}
	return asFositeClient(c), nil
}

// ClientAssertionJWTValid implements fosite.ClientManager: no client has keys.
func (s *storage) ClientAssertionJWTValid(context.Context, string) error { return fosite.ErrJTIKnown }

// SetClientAssertionJWT implements fosite.ClientManager.
func (s *storage) SetClientAssertionJWT(context.Context, string, time.Time) error {
	return fosite.ErrJTIKnown
}

// BeginTX implements fosite's Transactional.
func (s *storage) BeginTX(ctx context.Context) (context.Context, error) { return s.store.Begin(ctx) }

// Commit implements fosite's Transactional.
func (s *storage) Commit(ctx context.Context) error { return s.store.Commit(ctx) }

// Rollback implements fosite's Transactional.
func (s *storage) Rollback(ctx context.Context) error { return s.store.Rollback(ctx) }

// CreateAuthorizeCodeSession stores the pending grant with its code.
func (s *storage) CreateAuthorizeCodeSession(ctx context.Context, signature string, r fosite.Requester) error {
	sess, ok := r.GetSession().(*session)
	if !ok {
		return fault.New(fault.Internal, "a foreign session")
	}
	form := r.GetRequestForm()
	return s.store.CreateCode(ctx, signature, sess.grant, store.Code{
		RedirectURI: form.Get("redirect_uri"), CodeChallenge: form.Get("code_challenge"),
		RequestedAt: r.GetRequestedAt(), Legs: sess.legs,
	}, s.codeLifespan)
}

// GetAuthorizeCodeSession returns the request behind a code, with a session of its
// own: the one that is passed is left alone.
func (s *storage) GetAuthorizeCodeSession(ctx context.Context, signature string, _ fosite.Session) (fosite.Requester, error) {
	c, g, err := s.store.Code(ctx, signature)
	if err != nil {
		return nil, notFound(err)
	}
	client, err := s.GetClient(ctx, g.ClientID)
	if err != nil {
		return nil, err
	}
	sess := newSession(*g)
	sess.legs = c.Legs
	// fosite compares it with the clock of this replica.
	sess.expires[fosite.AuthorizeCode] = time.Now().Add(c.ExpiresAt.Sub(g.ReadAt))
	r := &fosite.Request{
		ID: g.ID, RequestedAt: c.RequestedAt, Client: client, Session: sess,
		RequestedScope: g.Scopes, GrantedScope: g.Scopes, GrantedAudience: g.Resources,
		Form: url.Values{"code_challenge": {c.CodeChallenge}, "code_challenge_method": {"S256"}},
	}
	if c.RedirectURI != "" {
		r.Form.Set("redirect_uri", c.RedirectURI)
	}
	if c.Used {
		// Not fosite's error for it: fosite would end the grant before it has looked at
		// the verifier. Service.raced does that.
		return nil, fault.New(fault.Conflict, "the authorization code was redeemed already").WithReason(store.ReasonCodeUsed)
	}
	return r, nil
}

// InvalidateAuthorizeCodeSession spends a code, once.
func (s *storage) InvalidateAuthorizeCodeSession(ctx context.Context, signature string) error {
	return s.store.ConsumeCode(ctx, signature)
}

// CreatePKCERequestSession has nothing to do: the challenge is stored with the code.
func (s *storage) CreatePKCERequestSession(context.Context, string, fosite.Requester) error {
	return nil
}

// GetPKCERequestSession returns the request behind a code, for its challenge.
func (s *storage) GetPKCERequestSession(ctx context.Context, signature string, sess fosite.Session) (fosite.Requester, error) {
	return s.GetAuthorizeCodeSession(ctx, signature, sess)
}

// DeletePKCERequestSession keeps the challenge: fosite calls it before it looks at
// the verifier, and a code that was not redeemed can still be.
func (s *storage) DeletePKCERequestSession(context.Context, string) error { return nil }

// CreateAccessTokenSession activates the grant that an access token was issued
// from. The token itself is not stored.
func (s *storage) CreateAccessTokenSession(ctx context.Context, _ string, r fosite.Requester) error {
	sess, ok := r.GetSession().(*session)
	if !ok {
		return fault.New(fault.Internal, "a foreign session")
	}
	return s.store.ActivateGrant(ctx, sess.grant.ID, sess.grant.ExpiresAt, sess.expires[fosite.AccessToken])
}

// GetAccessTokenSession knows none: access tokens are verified, not looked up.
func (s *storage) GetAccessTokenSession(context.Context, string, fosite.Session) (fosite.Requester, error) {
	return nil, fosite.ErrNotFound
}

// DeleteAccessTokenSession has nothing to delete.
func (s *storage) DeleteAccessTokenSession(context.Context, string) error { return nil }

// CreateRefreshTokenSession stores the first refresh token of a grant.
func (s *storage) CreateRefreshTokenSession(ctx context.Context, signature, _ string, r fosite.Requester) error {
	return s.store.CreateRefreshToken(ctx, signature, r.GetID(), r.GetSession().GetExpiresAt(fosite.RefreshToken))
}

// GetRefreshTokenSession knows none: refreshing is a handler of our own.
func (s *storage) GetRefreshTokenSession(context.Context, string, fosite.Session) (fosite.Requester, error) {
	return nil, fosite.ErrNotFound
}

// DeleteRefreshTokenSession has nothing to do, as GetRefreshTokenSession.
func (s *storage) DeleteRefreshTokenSession(context.Context, string) error { return nil }

// RotateRefreshToken has nothing to do, as GetRefreshTokenSession.
func (s *storage) RotateRefreshToken(context.Context, string, string) error { return nil }

// RevokeRefreshToken has nothing to do: a replay is Service.raced's to judge.
func (s *storage) RevokeRefreshToken(context.Context, string) error { return nil }

// RevokeAccessToken has nothing to do, as RevokeRefreshToken.
func (s *storage) RevokeAccessToken(context.Context, string) error { return nil }

func notFound(err error) error {
	if fault.KindOf(err) == fault.NotFound {
		return fosite.ErrNotFound.WithWrap(err)
	}
	return err
}
