package revoke

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/seal"
	"chatelaine.dev/services/tokenbroker/internal/store"
	"chatelaine.dev/services/tokenbroker/internal/upstream"
)

const (
	queueSize = 512
	workers   = 4
	// timeout bounds one revocation: a look at the database and one request.
	timeout = 12 * time.Second
	// drain bounds the work that is left when the process stops.
	drain = 5 * time.Second
)

// Request is a set of tokens that was erased from the store.
type Request struct {
	// UserID that the tokens belonged to; empty when that was never known.
	UserID string
	// Staged says that the tokens are of a login that came to nothing: then they
	// give way to whatever the person has in the realm. Of a connection that was
	// given up, only the same account's tokens are spared.
	Staged   bool
	Provider string
	Account  store.Account
	Sealed   seal.Sealed
	Place    seal.Place
}

// OfLeg is the request for an erased leg.
func OfLeg(userID string, l *store.StagedLeg) Request {
	return Request{UserID: userID, Staged: true, Provider: l.Provider, Account: l.Account, Sealed: l.Sealed, Place: l.Place()}
}

// OfConnection is the request for an erased or disconnected connection.
func OfConnection(c *store.Connection) Request {
	return Request{UserID: c.UserID, Provider: c.Provider, Account: c.Account, Sealed: c.Sealed, Place: c.Place()}
}

// Provider revokes tokens (RFC 7009).
type Provider interface {
	Revoke(ctx context.Context, token secret.String, hint upstream.TokenHint) error
}

// Connections tells whether something that lives may rest on the same grant; with
// a userID, whatever that user has in the realm may. See package store.
type Connections interface {
	RealmInUse(ctx context.Context, userID string, account store.Account) (bool, error)
}

// Opener opens sealed tokens.
type Opener interface {
	OpenTokens(ctx context.Context, sealed seal.Sealed, at seal.Place) (seal.Tokens, error)
}

// Config makes a Revoker. All fields are required.
type Config struct {
	// Find returns the configured provider of a realm.
	Find        func(name, realm string) (Provider, error)
	Connections Connections
	Opener      Opener
	Logger      *slog.Logger
}

// Revoker revokes what it is given. Add works before, during and after Run.
type Revoker struct {
	cfg   Config
	queue chan Request
}

// New returns a revoker; Run does its work.
func New(cfg Config) *Revoker {
	return &Revoker{cfg: cfg, queue: make(chan Request, queueSize)}
}

// Add queues a revocation and returns at once. With a full queue the tokens are
// left to expire.
func (r *Revoker) Add(req Request) {
	if req.Sealed.IsZero() {
		return
	}
	select {
	case r.queue <- req:
	default:
		r.cfg.Logger.Warn("too many revocations at once: leaving tokens to expire",
			slog.String("provider", req.Provider))
	}
}

// Queued returns how many revocations wait.
func (r *Revoker) Queued() int { return len(r.queue) }

// Run revokes until ctx ends, then what is queued for at most five seconds.
func (r *Revoker) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(drain, cancel) })
	defer stop()
	for range workers {
		wg.Go(func() { r.work(ctx, work) })
	}
	wg.Wait()
	return nil
}

// work takes requests until ctx ends and the queue is empty, or work is over.
func (r *Revoker) work(ctx, work context.Context) {
	for {
		select {
		case req := <-r.queue:
			r.revoke(work, req)
			continue
		default:
		}
		select {
		case req := <-r.queue:
			r.revoke(work, req)
		case <-ctx.Done():
			if len(r.queue) == 0 || work.Err() != nil {
				return
			}
		}
	}
}

func (r *Revoker) revoke(ctx context.Context, req Request) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if err := r.try(ctx, req); err != nil {
		r.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "tokens were not revoked at the provider",
			slog.String("provider", req.Provider), fault.Attr(err))
	}
}

func (r *Revoker) try(ctx context.Context, req Request) error {
	user := ""
	if req.Staged {
		user = req.UserID
	}
	inUse, err := r.cfg.Connections.RealmInUse(ctx, user, req.Account)
	if err != nil || inUse {
		return err
	}
	provider, err := r.cfg.Find(req.Provider, req.Account.Realm)
	if err != nil {
		return err
	}
	tokens, err := r.cfg.Opener.OpenTokens(ctx, req.Sealed, req.Place)
	if err != nil {
		return err
	}
	if !tokens.RefreshToken.IsZero() { // ends its access tokens too (RFC 7009, section 2.1)
		return provider.Revoke(ctx, tokens.RefreshToken, upstream.HintRefreshToken)
	}
	return provider.Revoke(ctx, tokens.AccessToken, upstream.HintAccessToken)
}
