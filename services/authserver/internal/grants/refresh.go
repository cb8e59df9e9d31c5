package grants

import (
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/ory/fosite"
	"github.com/ory/fosite/handler/oauth2"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/keyring"
	"chatelaine.dev/internal/secret"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/authserver/internal/store"
)

// refresh is the refresh token grant (RFC 6749, section 6) with rotation, reuse
// detection and a grace window (RFC 9700, section 4.14.2).
type refresh struct {
	*Service
	access oauth2.AccessTokenStrategy
}

// How often the tokens of a login may be refreshed: this often at once, and in the
// long run so many times in the life of an access token. Who does that has a fault,
// and every used token is kept until it expires.
const (
	rotationBurst    = 200
	rotationsPerLife = 60
)

// answer is a token response that may be asked for again.
type answer struct {
	AccessToken  string    `json:"access_token"`
	RefreshToken string    `json:"refresh_token"`
	Audience     []string  `json:"audience"`
	Scopes       []string  `json:"scopes"`
	ExpiresAt    time.Time `json:"expires_at"`
}

// CanSkipClientAuth implements fosite.TokenEndpointHandler.
func (h *refresh) CanSkipClientAuth(context.Context, fosite.AccessRequester) bool { return false }

// CanHandleTokenEndpointRequest implements fosite.TokenEndpointHandler.
func (h *refresh) CanHandleTokenEndpointRequest(_ context.Context, r fosite.AccessRequester) bool {
	return r.GetGrantTypes().ExactOne("refresh_token")
}

// HandleTokenEndpointRequest implements fosite.TokenEndpointHandler: it checks
// everything and spends nothing.
func (h *refresh) HandleTokenEndpointRequest(ctx context.Context, r fosite.AccessRequester) error {
	if !r.GetClient().GetGrantTypes().Has("refresh_token") {
		return fosite.ErrUnauthorizedClient.WithHint("The client did not register the grant type refresh_token.")
	}
	token := r.GetRequestForm().Get("refresh_token")
	t, g, err := h.lookup(ctx, token)
	if err != nil {
		return err
	}
	switch {
	case g.ClientID != r.GetClient().GetID():
		return fosite.ErrInvalidGrant.WithHint("The refresh token was issued to another client.")
	case g.Status != store.GrantActive:
		return fosite.ErrInvalidGrant.WithHint("The session has ended.")
	case t.Used && !t.Replaceable:
		return h.reused(ctx, g)
	case t.Expired:
		return errExpired()
	}
	sess := newSession(*g)
	if err := h.narrow(sess, r); err != nil {
		return err
	}
	sess.scopes = h.cfg.Policy.Downscope(r.GetRequestForm().Get("scope"), g.Scopes)
	touched, err := h.cfg.Broker.TouchSession(ctx, &brokerv1.TouchSessionRequest{SessionId: g.SessionID, ClientId: g.ClientID})
	if err != nil {
		return h.brokerError(ctx, g, err)
	}
	sess.issue(h.cfg.AccessLifespan, h.cfg.RefreshLifespan, touched.GetExpiresAt().AsTime())
	if t.Used {
		if sess.again, err = openAnswer(token, g.ID, t.SealedAnswer); err != nil {
			return err
		}
	}
	r.SetID(g.ID)
	r.SetSession(sess)
	return nil
}

// lookup finds a refresh token of ours.
func (s *Service) lookup(ctx context.Context, token string) (*store.RefreshToken, *store.Grant, error) {
	if err := s.hmac.Enigma.Validate(ctx, token); err != nil {
		return nil, nil, fosite.ErrInvalidGrant.WithHint("The refresh token is not one of ours.").WithWrap(err)
	}
	t, g, err := s.cfg.Store.RefreshToken(ctx, s.hmac.RefreshTokenSignature(ctx, token), s.cfg.Grace)
	if err != nil && fault.KindOf(err) == fault.NotFound {
		return nil, nil, fosite.ErrInvalidGrant.WithHint("The refresh token is unknown or too old.").WithWrap(err)
	}
	return t, g, err
}

// reused ends the session of a refresh token that came again too late, or after
// its successor was used: somebody has a copy.
func (s *Service) reused(ctx context.Context, g *store.Grant) error {
	if err := s.endSession(ctx, g, brokerv1.SessionEndReason_SESSION_END_REASON_REFRESH_TOKEN_REUSED); err != nil {
		return err
	}
	return fosite.ErrInvalidGrant.WithHint("The refresh token was used already. The session has ended.")
}

// PopulateTokenEndpointResponse implements fosite.TokenEndpointHandler: it rotates
// the token and answers.
func (h *refresh) PopulateTokenEndpointResponse(ctx context.Context, r fosite.AccessRequester, w fosite.AccessResponder) error {
	if !h.CanHandleTokenEndpointRequest(ctx, r) {
		return fosite.ErrUnknownRequest
	}
	sess, ok := r.GetSession().(*session)
	if !ok {
		return fault.New(fault.Internal, "a foreign session")
	}
	a := sess.again
	if a == nil {
		var err error
		if a, err = h.rotate(ctx, r, sess); err != nil {
			return err
		}
	}
	if err := h.fit(ctx, r, sess, a); err != nil {
		return err
	}
	w.SetAccessToken(a.AccessToken)
	w.SetTokenType("bearer")
	w.SetExpiresIn(sess.left(a.ExpiresAt))
	w.SetScopes(a.Scopes)
	w.SetExtra("refresh_token", a.RefreshToken)
	return nil
}

// fit replaces the access token of an earlier answer when this request asks for
// another one: other resources or other scopes. The refresh token is the same.
func (h *refresh) fit(ctx context.Context, r fosite.AccessRequester, sess *session, a *answer) error {
	if slices.Equal(a.Audience, sess.audience) && slices.Equal(a.Scopes, sess.scopes) {
		return nil
	}
	if a.ExpiresAt.Before(sess.expires[fosite.AccessToken]) { // the grant lives for what was issued then
		sess.SetExpiresAt(fosite.AccessToken, a.ExpiresAt)
	}
	access, _, err := h.access.GenerateAccessToken(ctx, r)
	if err != nil {
		return err
	}
	a.AccessToken, a.Audience, a.Scopes, a.ExpiresAt = access, sess.audience, sess.scopes, sess.expires[fosite.AccessToken]
	return nil
}

func (h *refresh) rotate(ctx context.Context, r fosite.AccessRequester, sess *session) (*answer, error) {
	old := r.GetRequestForm().Get("refresh_token")
	access, _, err := h.access.GenerateAccessToken(ctx, r)
	if err != nil {
		return nil, err
	}
	next, signature, err := h.hmac.GenerateRefreshToken(ctx, r)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "no refresh token could be made")
	}
	a := &answer{AccessToken: access, RefreshToken: next, Audience: sess.audience, Scopes: sess.scopes, ExpiresAt: sess.expires[fosite.AccessToken]}
	sealed, err := sealAnswer(old, sess.grant.ID, a)
	if err != nil {
		return nil, err
	}
	expiresAt := sess.expires[fosite.RefreshToken]
	err = h.cfg.Store.RotateRefreshToken(ctx, sess.grant.ID, store.Rotation{
		Old: h.hmac.RefreshTokenSignature(ctx, old), New: signature,
		ExpiresAt: expiresAt, TokensUntil: later(expiresAt, a.ExpiresAt), SealedAnswer: sealed,
		Burst: rotationBurst, Every: max(h.cfg.AccessLifespan/rotationsPerLife, time.Second),
	})
	switch {
	case err == nil:
		return a, nil
	case fault.ReasonOf(err) == store.ReasonNotRotated:
		return h.lost(ctx, old)
	}
	return nil, err // other conflicts are the database's: no sign of a thief
}

// lost is when the token could not be rotated. Mostly another request with the same
// token was faster: its answer is this one's as well.
func (h *refresh) lost(ctx context.Context, token string) (*answer, error) {
	t, g, err := h.lookup(ctx, token)
	switch {
	case err != nil:
		return nil, err
	case g.Status != store.GrantActive:
		return nil, fosite.ErrInvalidGrant.WithHint("The session has ended.")
	case !t.Used && t.Expired:
		return nil, errExpired()
	case !t.Used:
		return nil, fault.New(fault.Unavailable, "the refresh token could not be rotated")
	case !t.Replaceable:
		return nil, h.reused(ctx, g)
	}
	return openAnswer(token, g.ID, t.SealedAnswer)
}

func errExpired() error { return fosite.ErrInvalidGrant.WithHint("The refresh token has expired.") }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// answerRing derives the key of a sealed answer from the token that was presented:
// the store keeps only the token's hash, so what is in it opens nothing.
func answerRing(token string) (*keyring.Ring, error) {
	key, err := hkdf.Key(sha256.New, []byte(token), nil, "chatelaine.dev/authserver/v1 refresh answer", keyring.KeySize)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "")
	}
	return keyring.New(secret.NewBytes(key))
}

func sealAnswer(token, grantID string, a *answer) ([]byte, error) {
	ring, err := answerRing(token)
	if err != nil {
		return nil, err
	}
	plain, err := json.Marshal(a)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "")
	}
	return ring.Seal(nil, plain, []byte("refresh answer\x00"+grantID))
}

func openAnswer(token, grantID string, sealed []byte) (*answer, error) {
	ring, err := answerRing(token)
	if err != nil {
		return nil, err
	}
	plain, err := ring.Open(sealed, []byte("refresh answer\x00"+grantID))
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "the earlier answer cannot be opened")
	}
	var a answer
	if err := json.Unmarshal(plain, &a); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "the earlier answer cannot be read")
	}
	return &a, nil
}

// scopeText is how scopes are written in answers (RFC 6749, section 3.3).
func scopeText(scopes []string) string { return strings.Join(scopes, " ") }
