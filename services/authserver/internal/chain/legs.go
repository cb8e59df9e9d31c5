package chain

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"slices"
	"strings"

	"chatelaine.dev/internal/fault"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/authserver/internal/store"
)

// Bounds of what a browser may bring back.
const (
	maxStateBytes = 128
	maxCodeBytes  = 4096
)

// secrets are what a leg needs to know when its browser comes back.
type secrets struct {
	Verifier string `json:"v"`
	Nonce    string `json:"n,omitempty"`
}

// token returns 256 random bits as text of 43 characters, which is also the
// shortest PKCE verifier (RFC 7636, section 4.1).
func token() string {
	b := make([]byte, 32)
	rand.Read(b) // never fails: crypto/rand ends the process instead
	return base64.RawURLEncoding.EncodeToString(b)
}

// startLeg sends the browser to a provider.
func (c *Chain) startLeg(ctx context.Context, req *store.AuthorizationRequest, p *store.Provider) (Step, error) {
	state, s := token(), secrets{Verifier: token()}
	if p.OIDC {
		s.Nonce = token()
	}
	plain, err := json.Marshal(s)
	if err != nil {
		return Step{}, fault.Wrap(fault.Internal, err, "")
	}
	sealed, err := c.cfg.Ring.Seal(nil, plain, sealContext(req.ID, p.Name))
	if err != nil {
		return Step{}, err
	}
	target, err := legURL(p, state, s)
	if err != nil {
		c.cfg.Logger.ErrorContext(ctx, "the provider's authorization endpoint is not a URL", fault.Attr(err))
		return c.leave(ctx, req, p, failure{skip: brokerv1.SkipReason_SKIP_REASON_FAILED, client: broken("the provider " + p.Name + " is misconfigured")})
	}
	leg := store.Leg{RequestID: req.ID, Provider: p.Name, RedirectURI: p.RedirectURI, Sealed: sealed}
	if err := c.cfg.Legs.StartLeg(ctx, state, leg); err != nil {
		return Step{}, expired(err)
	}
	c.leg(ctx, req, p.Name, "started")
	return Step{Redirect: target}, nil
}

// sealContext binds the sealed secrets to their leg.
func sealContext(requestID, provider string) []byte {
	return []byte("leg\x00" + requestID + "\x00" + provider)
}

// legURL returns the provider's authorization request (RFC 6749, section 4.1.1).
// Parameters of the configuration cannot replace ours.
func legURL(p *store.Provider, state string, s secrets) (string, error) {
	u, err := url.Parse(p.AuthorizationEndpoint)
	if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.Host == "" {
		return "", fault.Wrap(fault.Internal, err, "no http(s) URL")
	}
	challenge := sha256.Sum256([]byte(s.Verifier))
	q := u.Query()
	for name, value := range p.Parameters {
		q.Set(name, value)
	}
	q.Set("response_type", "code")
	q.Set("client_id", p.ClientID)
	q.Set("redirect_uri", p.RedirectURI)
	q.Set("state", state)
	q.Set("code_challenge", base64.RawURLEncoding.EncodeToString(challenge[:]))
	q.Set("code_challenge_method", "S256")
	if len(p.Scopes) > 0 {
		q.Set("scope", strings.Join(p.Scopes, " "))
	}
	if s.Nonce != "" {
		q.Set("nonce", s.Nonce)
	}
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// Callback is what a browser brings back from a provider.
type Callback struct {
	// Providers are those whose redirect URI was called: one, unless the
	// deployment gave several the same.
	Providers []string
	State     string
	Code      string
	// Error is the provider's (RFC 6749, section 4.1.2.1).
	Error string
	// Iss says who answers (RFC 9207); IssSent tells an empty one from none.
	Iss     string
	IssSent bool
}

// Return takes the browser back from a provider and on to the next step. When that
// needs something that cannot be reached, the browser may come again with the same
// answer: it walks the leg anew, since nobody knows whether its code was spent, and
// a code that comes twice can cost the tokens of the first time (RFC 6749, section
// 4.1.2).
func (c *Chain) Return(ctx context.Context, cb Callback, browserHash []byte) (Step, error) {
	if cb.State == "" || len(cb.State) > maxStateBytes {
		return Step{}, unknownState(nil)
	}
	leg, req, err := c.cfg.Legs.TakeLeg(ctx, cb.State, cb.Providers, browserHash, c.cfg.RedeemTimeout+after)
	switch {
	case err != nil && fault.KindOf(err) == fault.NotFound:
		return c.again(ctx, cb, browserHash, err)
	case err != nil:
		return Step{}, err
	}
	// The state is spent: a browser that loses its patience must not spend the code as
	// well and have nothing for it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.RedeemTimeout+after)
	defer cancel()
	step, err := c.come(ctx, req, leg, cb)
	if err != nil && temporary(err) {
		if releaseErr := c.cfg.Legs.ReleaseLeg(ctx, cb.State); releaseErr != nil { // then it takes until the leg is busy no more
			c.cfg.Logger.WarnContext(ctx, "a leg cannot be walked anew at once", fault.Attr(releaseErr))
		}
		c.leg(ctx, req, leg.Provider, "interrupted")
	}
	return step, err
}

// come goes on with what the browser brings back from a leg.
func (c *Chain) come(ctx context.Context, req *store.AuthorizationRequest, leg *store.Leg, cb Callback) (Step, error) {
	i := slices.IndexFunc(req.Progress.Providers, func(p store.Provider) bool { return p.Name == leg.Provider })
	if i < 0 {
		return Step{}, fault.New(fault.Internal, "the leg's provider is not in its chain")
	}
	p := &req.Progress.Providers[i]
	linked, f, err := c.redeem(ctx, req, p, leg, cb)
	switch {
	case err != nil:
		return Step{}, err
	case f != nil:
		return c.leave(ctx, req, p, *f)
	}
	c.leg(ctx, req, p.Name, "linked")
	return c.proceed(ctx, req, linked)
}

func unknownState(cause error) error {
	return fault.Wrap(fault.Invalid, cause, "the answer of the provider does not belong to a sign-in that is under way").WithReason(ReasonState)
}

// redeem checks an answer, has the broker redeem its code and returns what that
// changes. A failure is the leg's; an error is ours.
func (c *Chain) redeem(ctx context.Context, req *store.AuthorizationRequest, p *store.Provider, leg *store.Leg, cb Callback) (change, *failure, error) {
	if f := checkAnswer(p, cb); f != nil {
		return nil, f, nil
	}
	plain, err := c.cfg.Ring.Open(leg.Sealed, sealContext(req.ID, p.Name))
	if err != nil {
		return nil, nil, fault.Wrap(fault.Internal, err, "the secrets of the leg cannot be opened")
	}
	var s secrets
	if err := json.Unmarshal(plain, &s); err != nil {
		return nil, nil, fault.Wrap(fault.Internal, err, "the secrets of the leg cannot be read")
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.RedeemTimeout)
	defer cancel()
	answer, err := c.cfg.Broker.RedeemCode(ctx, &brokerv1.RedeemCodeRequest{
		SessionId: req.SessionID, Provider: p.Name, Code: cb.Code,
		CodeVerifier: s.Verifier, Nonce: s.Nonce, RedirectUri: leg.RedirectURI,
	})
	if err != nil {
		f, err := brokerFailure(p, err)
		if f != nil {
			c.cfg.Logger.WarnContext(ctx, "a leg's code could not be redeemed", fault.Attr(err))
			f.recorded = true
			return nil, f, nil
		}
		return nil, nil, err
	}
	return linked(p.Name, answer), nil, nil
}

// linked is what a redeemed code changes.
func linked(provider string, answer *brokerv1.RedeemCodeResponse) change {
	return func(req *store.AuthorizationRequest) {
		setLinks(req, provider, store.LinkLinked, answer.GetLegId(), answer.GetLinks())
		if id := answer.GetUserId(); id != "" {
			req.UserID = id
		}
		if account := answer.GetAccountChange(); account != nil {
			req.Progress.Changes = slices.DeleteFunc(req.Progress.Changes, func(a store.AccountChange) bool { return a.Provider == provider })
			req.Progress.Changes = append(req.Progress.Changes, store.AccountChange{
				Provider: provider, Previous: account.GetPreviousName(), New: account.GetNewName(),
			})
		}
	}
}

// leave gives the provider up: the walk goes on without it, or ends.
func (c *Chain) leave(ctx context.Context, req *store.AuthorizationRequest, p *store.Provider, f failure) (Step, error) {
	skipped, failed, err := c.giveUp(ctx, req, p, f)
	switch {
	case err != nil:
		return Step{}, err
	case failed != nil:
		return c.fail(ctx, req, *failed, f.leg(p))
	}
	return c.proceed(ctx, req, skipped)
}

// giveUp skips an optional provider and returns what that changes; for a required
// one, or when it cannot be skipped, it returns what to tell the client. Its error
// is that of a broker that cannot be reached.
func (c *Chain) giveUp(ctx context.Context, req *store.AuthorizationRequest, p *store.Provider, f failure) (change, *problem, error) {
	if !p.Optional || f.fatal {
		c.leg(ctx, req, p.Name, f.outcome())
		return nil, &f.client, nil
	}
	answer, err := c.cfg.Broker.SkipProvider(ctx, &brokerv1.SkipProviderRequest{SessionId: req.SessionID, Provider: p.Name, Reason: f.skip})
	if err != nil {
		failed, err := brokerFailure(p, err)
		if failed == nil {
			return nil, nil, err
		}
		c.cfg.Logger.WarnContext(ctx, "an optional provider could not be skipped", fault.Attr(err))
		return nil, &failed.client, nil
	}
	c.leg(ctx, req, p.Name, "skipped_"+f.outcome())
	name := p.Name
	return func(req *store.AuthorizationRequest) { setLinks(req, name, store.LinkSkipped, "", answer.GetLinks()) }, nil, nil
}

// setLinks notes how one provider ended and takes over what the broker says the
// session has. What it says is missing may have been linked since: that is left. A leg
// of which it says so, but whose redemption nobody here has seen, is walked anew: whose
// account it is, the person was not asked.
func setLinks(req *store.AuthorizationRequest, provider string, state store.LinkState, legID string, links []*brokerv1.SessionLink) {
	known := false // brokers of the version before name no legs
	for i := range req.Progress.Providers {
		p := &req.Progress.Providers[i]
		if p.Name == provider {
			p.State, p.LegID = state, legID
		}
		known = known || p.LegID != ""
	}
	for _, link := range links {
		for i := range req.Progress.Providers {
			p := &req.Progress.Providers[i]
			if p.Name != link.GetProvider() {
				continue
			}
			switch link.GetState() {
			case brokerv1.SessionLinkState_SESSION_LINK_STATE_LINKED:
				if p.LegID != "" || !known {
					p.State = store.LinkLinked
				}
			case brokerv1.SessionLinkState_SESSION_LINK_STATE_SKIPPED:
				p.State, p.LegID = store.LinkSkipped, ""
			}
		}
	}
}
