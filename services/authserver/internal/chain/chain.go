package chain

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/url"
	"time"

	"google.golang.org/grpc"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/keyring"
	"chatelaine.dev/internal/telemetry"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/authserver/internal/metrics"
	"chatelaine.dev/services/authserver/internal/store"
)

// DefaultLifetime is how long a chain may take.
const DefaultLifetime = 10 * time.Minute

// Reasons of the errors that are shown as a page.
const (
	// ReasonExpired: the request is over: finished, ended, or older than ten minutes.
	ReasonExpired = "request_expired"
	// ReasonOtherBrowser: the callback belongs to a login in another browser.
	ReasonOtherBrowser = "other_browser"
	// ReasonState: the callback's state is unknown, used or expired.
	ReasonState = "state_unknown"
	// ReasonBusy: the same request is still being worked on.
	ReasonBusy = "leg_in_progress"
)

// after is how long what a callback leads to may take beside the redemption, and what
// a consent that came too late has left.
const after = 5 * time.Second

// Broker is what the chain asks of the token broker's LoginService.
type Broker interface {
	ListProviders(ctx context.Context, in *brokerv1.ListProvidersRequest, opts ...grpc.CallOption) (*brokerv1.ListProvidersResponse, error)
	BeginSession(ctx context.Context, in *brokerv1.BeginSessionRequest, opts ...grpc.CallOption) (*brokerv1.BeginSessionResponse, error)
	RedeemCode(ctx context.Context, in *brokerv1.RedeemCodeRequest, opts ...grpc.CallOption) (*brokerv1.RedeemCodeResponse, error)
	SkipProvider(ctx context.Context, in *brokerv1.SkipProviderRequest, opts ...grpc.CallOption) (*brokerv1.SkipProviderResponse, error)
}

// Requests keeps authorization requests on their way.
type Requests interface {
	CreateRequest(ctx context.Context, r *store.AuthorizationRequest, lifetime time.Duration) error
	Request(ctx context.Context, id string, browserHash []byte) (*store.AuthorizationRequest, error)
	ApproveRequest(ctx context.Context, id string, browserHash []byte, sessionID string) (*store.AuthorizationRequest, error)
	SaveRequest(ctx context.Context, r *store.AuthorizationRequest) error
	TakeRequest(ctx context.Context, id string, browserHash []byte) (*store.AuthorizationRequest, error)
}

// Legs keeps the leg that is under way.
type Legs interface {
	StartLeg(ctx context.Context, state string, leg store.Leg) error
	TakeLeg(ctx context.Context, state string, providers []string, browserHash []byte, busy time.Duration) (*store.Leg, *store.AuthorizationRequest, error)
	ReleaseLeg(ctx context.Context, state string) error
	SpentLeg(ctx context.Context, state string, providers []string, browserHash []byte) (*store.AuthorizationRequest, store.SpentLeg, error)
	LegElsewhere(ctx context.Context, state string, browserHash []byte) (bool, error)
}

// Ends makes the end of a request and of its session one transaction.
type Ends interface {
	InTx(ctx context.Context, fn func(ctx context.Context) error) error
	QueueChainEnd(ctx context.Context, sessionID string, failed store.FailedLeg) error
	Client(ctx context.Context, id string) (*store.Client, error)
}

// CodeIssuer issues the code that ends a chain well. It works in the transaction
// that ctx carries.
type CodeIssuer interface {
	IssueCode(ctx context.Context, client *store.Client, req *store.AuthorizationRequest) (code string, err error)
}

// Config makes a Chain.
type Config struct {
	// Issuer is ours, for the iss parameter.
	Issuer   string
	Broker   Broker
	Requests Requests
	Legs     Legs
	Ends     Ends
	Codes    CodeIssuer
	// Ring seals verifiers and nonces.
	Ring *keyring.Ring
	// Wake tells the outbox that there is work.
	Wake func()
	// RedeemTimeout bounds the redemption of an upstream's code.
	RedeemTimeout time.Duration
	Lifetime      time.Duration
	// Metrics may be nil.
	Metrics *metrics.Recorder
	Logger  *slog.Logger
}

// Chain walks browsers through providers. It keeps no state of a login.
type Chain struct {
	cfg Config
	// known holds the list of providers; who has taken it out may renew it.
	known   chan providerList
	waiters waiters
}

// New returns a chain.
func New(cfg Config) *Chain {
	c := &Chain{cfg: cfg, known: make(chan providerList, 1)}
	c.known <- providerList{}
	return c
}

// Step is where the browser goes next: one of the fields is set.
type Step struct {
	// Redirect is a URL of a provider or of the client.
	Redirect string
	// Consent and Confirm are pages to show.
	Consent *store.AuthorizationRequest
	Confirm *store.AuthorizationRequest
	// Client is whose request it is, for the pages.
	Client *store.Client
}

// Start begins a chain for a request that was checked, in the browser whose
// cookie has this hash. What keeps the chain from starting is an OAuth error for
// the client, and so a redirect.
func (c *Chain) Start(ctx context.Context, client *store.Client, params store.Params, browserHash []byte) (Step, error) {
	c.cfg.Metrics.LoginStarted(ctx)
	req := &store.AuthorizationRequest{ID: rand.Text(), ClientID: client.ID, BrowserHash: browserHash, Params: params}
	providers, err := c.providers(ctx)
	if err != nil {
		c.cfg.Logger.WarnContext(ctx, "a chain could not begin: the providers are not known", fault.Attr(err))
		return c.refuse(ctx, req, unavailable("the token broker cannot be reached; try again in a moment"))
	}
	for _, p := range providers {
		if p.Unavailable && !p.Optional {
			return c.refuse(ctx, req, unavailable("the required provider "+p.Name+" is not available at the moment"))
		}
	}
	req.Progress.Providers = providers
	if err := c.cfg.Requests.CreateRequest(ctx, req, c.cfg.Lifetime); err != nil {
		return Step{}, expired(err)
	}
	return Step{Consent: req, Client: client}, nil
}

// Approve is the person's consent. A second one, from a reload or a double click,
// begins the missing leg again.
func (c *Chain) Approve(ctx context.Context, id string, browserHash []byte) (Step, error) {
	req, err := c.load(ctx, id, browserHash)
	if err != nil {
		return Step{}, err
	}
	if req.Phase == store.PhaseConsent {
		if req, err = c.begin(ctx, req); err != nil {
			return Step{}, err
		}
		c.audit(ctx, req, "consent", "", "approved")
	}
	return c.next(ctx, req)
}

// begin opens the broker's session and moves the request on. Without a broker the
// request stays as it is, and can be approved again.
func (c *Chain) begin(ctx context.Context, req *store.AuthorizationRequest) (*store.AuthorizationRequest, error) {
	client, err := c.client(ctx, req)
	if err != nil {
		return nil, err
	}
	session, err := c.cfg.Broker.BeginSession(ctx, &brokerv1.BeginSessionRequest{ClientId: client.ID, ClientName: client.Name})
	if err != nil {
		return nil, err
	}
	approved, err := c.cfg.Requests.ApproveRequest(ctx, req.ID, req.BrowserHash, session.GetSessionId())
	if err == nil {
		return approved, nil
	}
	// Another click was first, or the request has ended: this session is nobody's.
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), after)
	defer cancel()
	if qerr := c.endSession(ending, session.GetSessionId()); qerr != nil {
		c.cfg.Logger.WarnContext(ctx, "a session is left to expire", fault.Attr(qerr))
	}
	if fault.KindOf(err) != fault.NotFound {
		return nil, err
	}
	return c.load(ctx, req.ID, req.BrowserHash)
}

// Deny is the person's refusal of the client.
func (c *Chain) Deny(ctx context.Context, id string, browserHash []byte) (Step, error) {
	req, err := c.load(ctx, id, browserHash)
	if err != nil {
		return Step{}, err
	}
	c.audit(ctx, req, "consent", "", "denied")
	return c.fail(ctx, req, denied("the person denied the request"), store.FailedLeg{})
}

// Question returns the page that a request waits at.
func (c *Chain) Question(ctx context.Context, id string, browserHash []byte) (Step, error) {
	req, err := c.load(ctx, id, browserHash)
	if err != nil {
		return Step{}, err
	}
	if req.Phase == store.PhaseLegs { // its question is asked by a provider
		return Step{}, expired(fault.New(fault.NotFound, ""))
	}
	return c.next(ctx, req)
}

// Confirm is the person's word that the change of account is meant. version is that
// of the request that they were shown: a question that has changed is asked again.
func (c *Chain) Confirm(ctx context.Context, id string, browserHash []byte, version int64) (Step, error) {
	req, err := c.load(ctx, id, browserHash)
	if err != nil {
		return Step{}, err
	}
	if req.Phase != store.PhaseConfirm || req.Version != version {
		return c.next(ctx, req)
	}
	c.audit(ctx, req, "account_change", "", "confirmed")
	return c.finish(ctx, req)
}

// Cancel ends a chain at the confirmation of a change.
func (c *Chain) Cancel(ctx context.Context, id string, browserHash []byte) (Step, error) {
	req, err := c.load(ctx, id, browserHash)
	if err != nil {
		return Step{}, err
	}
	c.audit(ctx, req, "account_change", "", "cancelled")
	return c.fail(ctx, req, denied("the person cancelled the change of account"), store.FailedLeg{})
}

// next is the dispatcher: what is missing?
func (c *Chain) next(ctx context.Context, req *store.AuthorizationRequest) (Step, error) {
	if req.Phase == store.PhaseLegs {
		for i := range req.Progress.Providers {
			p := &req.Progress.Providers[i]
			switch {
			case p.State != store.LinkMissing:
				continue
			case !p.Unavailable:
				return c.startLeg(ctx, req, p)
			}
			gone := failure{skip: brokerv1.SkipReason_SKIP_REASON_UNAVAILABLE, client: unavailable("the required provider " + p.Name + " is not available at the moment")}
			return c.leave(ctx, req, p, gone) // and on to the next
		}
		if len(req.Progress.Changes) == 0 {
			return c.finish(ctx, req)
		}
		return c.proceed(ctx, req, func(req *store.AuthorizationRequest) { req.Phase = store.PhaseConfirm })
	}
	client, err := c.client(ctx, req)
	if err != nil {
		return Step{}, err
	}
	if req.Phase == store.PhaseConfirm {
		return Step{Confirm: req, Client: client}, nil
	}
	return Step{Consent: req, Client: client}, nil
}

// finish takes the request and issues the code, in one transaction. A request that
// has changed since it was read, as when another leg has come back, is not finished.
func (c *Chain) finish(ctx context.Context, req *store.AuthorizationRequest) (Step, error) {
	var code string
	err := c.cfg.Ends.InTx(ctx, func(ctx context.Context) error {
		taken, err := c.cfg.Requests.TakeRequest(ctx, req.ID, req.BrowserHash)
		if err != nil {
			return expired(err)
		}
		if taken.Version != req.Version {
			return fault.New(fault.Conflict, "the request was changed at the same time").WithReason(store.ReasonChanged)
		}
		client, err := c.client(ctx, taken)
		if err != nil {
			return err
		}
		code, err = c.cfg.Codes.IssueCode(ctx, client, taken)
		return err
	})
	if fault.ReasonOf(err) == store.ReasonChanged {
		if req, err = c.load(ctx, req.ID, req.BrowserHash); err == nil {
			return c.next(ctx, req)
		}
	}
	if err != nil {
		return Step{}, err
	}
	c.finished(ctx, req, metrics.Completed)
	return Step{Redirect: c.response(req, url.Values{"code": {code}})}, nil
}

func (c *Chain) load(ctx context.Context, id string, browserHash []byte) (*store.AuthorizationRequest, error) {
	req, err := c.cfg.Requests.Request(ctx, id, browserHash)
	return req, expired(err)
}

// change is what one step does to a request. It may be applied to a newer one than
// the step has seen.
type change func(req *store.AuthorizationRequest)

// maxSaves bounds how often a change is tried: a browser has few tabs.
const maxSaves = 5

// How long a change is tried to be stored while the database is away, and how often:
// a database that changes its primary is back in seconds, and what a leg has led to
// cannot be had again.
const (
	persistence = 3 * time.Second
	breath      = 200 * time.Millisecond
)

// proceed stores a change and goes on. When another tab was faster, the change is
// made to what that has stored: nobody writes over a question to the person.
func (c *Chain) proceed(ctx context.Context, req *store.AuthorizationRequest, apply change) (Step, error) {
	for range maxSaves {
		apply(req)
		err := c.save(ctx, req)
		if err == nil {
			return c.next(ctx, req)
		}
		if fault.ReasonOf(err) != store.ReasonChanged {
			return Step{}, expired(err)
		}
		if req, err = c.load(ctx, req.ID, req.BrowserHash); err != nil {
			return Step{}, err
		}
	}
	return Step{}, fault.New(fault.Unavailable, "the sign-in goes on in too many places at once")
}

// save stores a request. One that was stored although the answer was lost comes back
// as changed.
func (c *Chain) save(ctx context.Context, req *store.AuthorizationRequest) error {
	for deadline := time.Now().Add(persistence); ; {
		err := c.cfg.Requests.SaveRequest(ctx, req)
		if err == nil || !temporary(err) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(breath):
		}
	}
}

func (c *Chain) client(ctx context.Context, req *store.AuthorizationRequest) (*store.Client, error) {
	client, err := c.cfg.Ends.Client(ctx, req.ClientID)
	return client, expired(err)
}

// temporary reports whether an error may be gone in a moment.
func temporary(err error) bool {
	switch fault.KindOf(err) {
	case fault.Unavailable, fault.Timeout, fault.Canceled, fault.Exhausted:
		return true
	}
	return false
}

// expired says what it means that a request is not found.
func expired(err error) error {
	if err == nil || fault.KindOf(err) != fault.NotFound {
		return err
	}
	return fault.Wrap(fault.Precondition, err, "this sign-in has ended or expired").WithReason(ReasonExpired)
}

// finished notes the end of a login: completed, or the OAuth error of the answer.
func (c *Chain) finished(ctx context.Context, req *store.AuthorizationRequest, outcome string) {
	c.audit(ctx, req, "chain", "", outcome)
	c.cfg.Metrics.LoginFinished(ctx, outcome, 1)
}

// leg notes what happened in a leg.
func (c *Chain) leg(ctx context.Context, req *store.AuthorizationRequest, provider, outcome string) {
	c.audit(ctx, req, "leg", provider, outcome)
	c.cfg.Metrics.Leg(ctx, provider, outcome)
}

// audit writes what happened in a login: who asked, where, how it went. It names
// no person.
func (c *Chain) audit(ctx context.Context, req *store.AuthorizationRequest, step, provider, outcome string) {
	telemetry.Audit(ctx, c.cfg.Logger, "login."+step, outcome,
		slog.String("client_id", req.ClientID), slog.String("session_id", req.SessionID), slog.String("provider", provider))
}
