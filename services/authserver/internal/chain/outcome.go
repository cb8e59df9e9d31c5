package chain

import (
	"context"
	"net/url"
	"strings"

	"chatelaine.dev/internal/fault"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/authserver/internal/store"
)

// problem is an OAuth error for the client (RFC 6749, section 4.1.2.1). The
// description is ours: no text of an upstream is in it.
type problem struct{ code, description string }

func denied(description string) problem      { return problem{"access_denied", description} }
func broken(description string) problem      { return problem{"server_error", description} }
func unavailable(description string) problem { return problem{"temporarily_unavailable", description} }

// failure is how a leg went wrong: what the broker records when the provider is
// skipped, and what the client is told when it cannot be.
type failure struct {
	skip   brokerv1.SkipReason
	client problem
	// fatal ends the chain even for an optional provider: the session is gone.
	fatal bool
	// recorded says that the broker has a record of it.
	recorded bool
}

// leg is what the broker must still keep a record of when the failure ends the chain.
func (f failure) leg(p *store.Provider) store.FailedLeg {
	if f.recorded {
		return store.FailedLeg{}
	}
	return store.FailedLeg{Provider: p.Name, Reason: f.skip}
}

func (f failure) outcome() string {
	switch {
	case f.fatal:
		return "session_lost"
	case f.skip == brokerv1.SkipReason_SKIP_REASON_DECLINED:
		return "declined"
	case f.skip == brokerv1.SkipReason_SKIP_REASON_UNAVAILABLE:
		return "unavailable"
	}
	return "failed"
}

// checkAnswer returns what is wrong with an answer before its code is redeemed.
func checkAnswer(p *store.Provider, cb Callback) *failure {
	// RFC 9207, section 2.4: before anything else of the answer is believed.
	if (cb.IssSent && p.Issuer != "" && cb.Iss != p.Issuer) || (p.IssRequired && !cb.IssSent) {
		return &failure{
			skip:   brokerv1.SkipReason_SKIP_REASON_FAILED,
			client: denied("the answer for " + p.Name + " came from another issuer than expected"),
		}
	}
	switch cb.Error {
	case "":
	case "access_denied", "consent_required", "interaction_required", "login_required":
		return &failure{
			skip:   brokerv1.SkipReason_SKIP_REASON_DECLINED,
			client: denied("the sign-in at " + p.Name + " was refused or cancelled"),
		}
	case "temporarily_unavailable", "server_error":
		return &failure{
			skip:   brokerv1.SkipReason_SKIP_REASON_UNAVAILABLE,
			client: unavailable("the provider " + p.Name + " is not available at the moment"),
		}
	default:
		return &failure{
			skip:   brokerv1.SkipReason_SKIP_REASON_FAILED,
			client: broken("the provider " + p.Name + " answered with an error"),
		}
	}
	if cb.Code == "" || len(cb.Code) > maxCodeBytes {
		return &failure{
			skip:   brokerv1.SkipReason_SKIP_REASON_FAILED,
			client: broken("the provider " + p.Name + " answered with something that is no answer"),
		}
	}
	return nil
}

// brokerFailure tells from the reasons of LoginService how a leg went wrong. It is
// nil when it did not: the broker could not be asked, or could not answer. The error
// is err.
func brokerFailure(p *store.Provider, err error) (*failure, error) {
	switch fault.ReasonOf(err) {
	case brokerv1.ReasonSessionEnded, brokerv1.ReasonSessionNotFound, brokerv1.ReasonProviderUnknown:
		return &failure{fatal: true, client: broken("the login can no longer be finished; start again")}, err
	case brokerv1.ReasonUpstreamUnavailable:
		return &failure{
			skip:   brokerv1.SkipReason_SKIP_REASON_UNAVAILABLE,
			client: unavailable("the provider " + p.Name + " did not answer; try again in a moment"),
		}, err
	case brokerv1.ReasonUpstreamRefused:
		return &failure{
			skip:   brokerv1.SkipReason_SKIP_REASON_FAILED,
			client: broken("the provider " + p.Name + " refused the sign-in it had just granted"),
		}, err
	case brokerv1.ReasonIdentityInvalid:
		return &failure{
			skip:   brokerv1.SkipReason_SKIP_REASON_FAILED,
			client: denied("what " + p.Name + " says about who signed in did not pass the checks"),
		}, err
	}
	if temporary(err) {
		return nil, err
	}
	return &failure{
		skip:   brokerv1.SkipReason_SKIP_REASON_FAILED,
		client: broken("the sign-in at " + p.Name + " could not be finished"),
	}, err
}

// fail ends a chain: the request is taken, its session's end queued, in one
// transaction, with the leg that the broker is to record; then the browser carries the error to the client.
func (c *Chain) fail(ctx context.Context, req *store.AuthorizationRequest, p problem, leg store.FailedLeg) (Step, error) {
	err := c.cfg.Ends.InTx(ctx, func(ctx context.Context) error {
		taken, err := c.cfg.Requests.TakeRequest(ctx, req.ID, req.BrowserHash)
		if err != nil {
			return expired(err)
		}
		if taken.SessionID == "" {
			return nil
		}
		return c.cfg.Ends.QueueChainEnd(ctx, taken.SessionID, leg)
	})
	if err != nil {
		return Step{}, err
	}
	c.cfg.Wake()
	return c.refuse(ctx, req, p)
}

// refuse answers the client with an error; there is nothing to undo.
func (c *Chain) refuse(ctx context.Context, req *store.AuthorizationRequest, p problem) (Step, error) {
	c.finished(ctx, req, p.code)
	return Step{Redirect: c.response(req, url.Values{"error": {p.code}, "error_description": {p.description}})}, nil
}

func (c *Chain) endSession(ctx context.Context, sessionID string) error {
	defer c.cfg.Wake()
	return c.cfg.Ends.QueueChainEnd(ctx, sessionID, store.FailedLeg{})
}

// response returns the client's redirect URI with the parameters of an
// authorization response, state and iss (RFC 9207) among them.
func (c *Chain) response(req *store.AuthorizationRequest, values url.Values) string {
	return Response(req.Params.RedirectURI, c.cfg.Issuer, req.Params.State, values)
}

// Response adds an authorization response (RFC 6749, section 4.1.2; RFC 9207) to
// a redirect URI. What its query has already stays as it is.
func Response(redirectURI, issuer, state string, values url.Values) string {
	values.Set("iss", issuer)
	if state != "" {
		values.Set("state", state)
	}
	separator := "?"
	if strings.Contains(redirectURI, "?") {
		separator = "&"
	}
	return redirectURI + separator + values.Encode()
}
