package grants

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"net/http"
	"net/url"

	"github.com/ory/fosite"

	"chatelaine.dev/internal/fault"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/authserver/internal/resource"
	"chatelaine.dev/services/authserver/internal/store"
)

// codeGrant is what our handlers of the code grant have in common.
type codeGrant struct{}

// CanSkipClientAuth implements fosite.TokenEndpointHandler.
func (codeGrant) CanSkipClientAuth(context.Context, fosite.AccessRequester) bool { return false }

// CanHandleTokenEndpointRequest implements fosite.TokenEndpointHandler.
func (codeGrant) CanHandleTokenEndpointRequest(_ context.Context, r fosite.AccessRequester) bool {
	return r.GetGrantTypes().ExactOne("authorization_code")
}

// PopulateTokenEndpointResponse implements fosite.TokenEndpointHandler: the answer
// is fosite's own handler's.
func (codeGrant) PopulateTokenEndpointResponse(context.Context, fosite.AccessRequester, fosite.AccessResponder) error {
	return nil
}

// replayGuard stands before fosite's code handler, which would end a grant on a
// replay without asking whose the code was.
type replayGuard struct {
	*Service
	codeGrant
}

// HandleTokenEndpointRequest implements fosite.TokenEndpointHandler.
func (h *replayGuard) HandleTokenEndpointRequest(ctx context.Context, r fosite.AccessRequester) error {
	code := r.GetRequestForm().Get("code")
	signature := h.hmac.AuthorizeCodeSignature(ctx, code)
	// Whether the code is ours at all.
	if err := h.hmac.Enigma.Validate(ctx, code); err != nil {
		return fosite.ErrInvalidGrant.WithHint("The authorization code is not one of ours.").WithWrap(err)
	}
	c, g, err := h.cfg.Store.Code(ctx, signature)
	switch {
	case err != nil && fault.KindOf(err) == fault.NotFound:
		return fosite.ErrInvalidGrant.WithHint("The authorization code is unknown or too old.").WithWrap(err)
	case err != nil:
		return err
	case g.ClientID != r.GetClient().GetID():
		return fosite.ErrInvalidGrant.WithHint("The authorization code was issued to another client.")
	case c.Used:
		return h.replayed(ctx, c, g, r.GetRequestForm())
	case g.Status == store.GrantEnded:
		return fosite.ErrInvalidGrant.WithHint("The session has ended.")
	case !g.ReadAt.Before(c.ExpiresAt): // fosite finds it late, and has another code for it
		return fosite.ErrInvalidGrant.WithHint("The authorization code has expired.")
	}
	return nil
}

// replayed ends the session of a code that came twice (RFC 6749, section 4.1.2). A
// code alone is no proof of anything: it was in a URL. Who cannot verify it ends
// nothing, as if it were the first time.
func (s *Service) replayed(ctx context.Context, c *store.Code, g *store.Grant, form url.Values) error {
	if !verifies(form.Get("code_verifier"), c.CodeChallenge) {
		return fosite.ErrInvalidGrant.WithHint("The PKCE code verifier does not match the code challenge.")
	}
	if err := s.endSession(ctx, g, brokerv1.SessionEndReason_SESSION_END_REASON_CODE_REPLAYED); err != nil {
		return err
	}
	return fosite.ErrInvalidGrant.WithHint("The authorization code was used already. The session has ended.")
}

// verifies compares as RFC 7636, section 4.6, has it for S256.
func verifies(verifier, challenge string) bool {
	sum := sha256.Sum256([]byte(verifier))
	return subtle.ConstantTimeCompare([]byte(base64.RawURLEncoding.EncodeToString(sum[:])), []byte(challenge)) == 1
}

// activation runs after client, code and PKCE have been checked, and before the
// code is consumed: the resource, then the broker.
type activation struct {
	*Service
	codeGrant
}

// HandleTokenEndpointRequest implements fosite.TokenEndpointHandler.
func (h *activation) HandleTokenEndpointRequest(ctx context.Context, r fosite.AccessRequester) error {
	sess, ok := r.GetSession().(*session)
	if !ok {
		return fault.New(fault.Internal, "a foreign session")
	}
	if err := h.narrow(sess, r); err != nil {
		return err
	}
	active, err := h.cfg.Broker.ActivateSession(ctx, &brokerv1.ActivateSessionRequest{
		SessionId: sess.grant.SessionID, ClientId: sess.grant.ClientID, LegIds: sess.legs,
	})
	if err != nil {
		return h.brokerError(ctx, &sess.grant, err)
	}
	if active.GetUserId() != sess.grant.UserID {
		return fault.New(fault.Internal, "the broker names another user than the chain")
	}
	sess.issue(h.cfg.AccessLifespan, h.cfg.RefreshLifespan, active.GetExpiresAt().AsTime())
	return nil
}

// PopulateTokenEndpointResponse implements fosite.TokenEndpointHandler: fosite has
// counted with the clock of this replica.
func (h *activation) PopulateTokenEndpointResponse(ctx context.Context, r fosite.AccessRequester, w fosite.AccessResponder) error {
	sess, ok := r.GetSession().(*session)
	if !ok || !h.CanHandleTokenEndpointRequest(ctx, r) {
		return fosite.ErrUnknownRequest
	}
	w.SetExpiresIn(sess.left(sess.expires[fosite.AccessToken]))
	return nil
}

// narrow sets what the access token is for (RFC 8707, section 2.2).
func (s *Service) narrow(sess *session, r fosite.AccessRequester) error {
	audience, err := s.cfg.Policy.Narrow(sess.grant.Resources, r.GetRequestForm()["resource"])
	if err != nil {
		return &fosite.RFC6749Error{ErrorField: resource.ReasonTarget, DescriptionField: err.Error(), CodeField: http.StatusBadRequest}
	}
	sess.audience = audience
	return nil
}

// brokerError says what it means for a grant that the broker did not confirm its
// session. Only a certain no is one, and those are named here: anything else, such as
// one replica of the broker without the key that another has sealed with, may be gone
// at the next try, so that nothing is spent and the client may make it.
func (s *Service) brokerError(ctx context.Context, g *store.Grant, err error) error {
	refused := fosite.ErrInvalidGrant.WithHint("The session has ended; a new login is needed.").WithWrap(causeOf(err))
	switch reason := fault.ReasonOf(err); {
	case reason == brokerv1.ReasonSessionLocked: // until the person's next login at the primary provider; the grant outlives it
		return fosite.ErrInvalidGrant.WithHint("The session is locked until the person logs in again.").WithWrap(causeOf(err))
	case reason == brokerv1.ReasonSessionEnded, reason == brokerv1.ReasonSessionNotFound, reason == brokerv1.ReasonClientMismatch:
		// The broker is told all the same: what dies here must not live on there.
		if endErr := s.endSession(ctx, g, brokerv1.SessionEndReason_SESSION_END_REASON_EXPIRED); endErr != nil {
			return endErr
		}
		return refused
	case reason == brokerv1.ReasonProviderRequired, reason == brokerv1.ReasonPrimaryRequired: // it can never become active
		if endErr := s.endSession(ctx, g, brokerv1.SessionEndReason_SESSION_END_REASON_CHAIN_FAILED); endErr != nil {
			return endErr
		}
		return refused
	}
	return fosite.ErrTemporarilyUnavailable.WithHint("Nothing was used up; send the same request again in a moment.").WithWrap(causeOf(err))
}

// causeOf keeps a broker's error for the logs without its kind deciding the answer.
func causeOf(err error) error { return &cause{fault.Detail(err)} }

type cause struct{ text string }

func (c *cause) Error() string { return c.text }
