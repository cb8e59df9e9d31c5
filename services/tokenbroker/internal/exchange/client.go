package exchange

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/outbound"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/upstream/endpoint"
)

// flightTimeout bounds what callers share: a subject token, a grant, a renewal of
// the subject and another grant.
const flightTimeout = 40 * time.Second

// Config makes a Client. Cache, Secrets and Name are required.
type Config struct {
	// Name of the configuration (MCPExternalAuthConfig), for metrics and messages.
	Name string
	// Cache of tokens.
	Cache *Cache
	// Secrets finds the client's secret; it is read by New.
	Secrets *secret.Resolver
	// Dials overrides where some HOST:PORT are found.
	Dials outbound.Dials
	// Observer traces and counts; nil does neither.
	Observer *endpoint.Observer
	// Timeout of one request; zero means endpoint.DefaultTimeout.
	Timeout time.Duration
	// Now is time.Now, or a test's.
	Now func() time.Time
}

// Client serves the tokens of one configuration: from the cache, or by its grant,
// once for all callers. It is safe for concurrent use.
type Client struct {
	name     string
	grant    Grant
	digest   [32]byte
	cache    *Cache
	observer *endpoint.Observer
	flight   singleflight.Group
}

// New prepares an exchange (RFC 8693). It makes no request. Errors are those of
// the secret.
func New(strategy *config.TokenExchangeStrategy, cfg Config) (*Client, error) {
	grant, err := newTokenExchange(strategy, cfg)
	if err != nil {
		return nil, fault.From(err).WithPrefix("token exchange " + cfg.Name)
	}
	return newClient(grant, cfg), nil
}

func newClient(grant Grant, cfg Config) *Client {
	return &Client{name: cfg.Name, grant: grant, digest: grant.Digest(), cache: cfg.Cache, observer: cfg.Observer}
}

// Token returns a token for the subject, from the cache or the token service.
// Errors: those of subject.Token and subject.Renew; Precondition with
// reason.UpstreamRefused; Unavailable with reason.UpstreamUnavailable.
func (c *Client) Token(ctx context.Context, s Subject) (Token, error) {
	k := key{s.Key, c.digest}
	token, err, cached := c.cache.get(k, s.Version)
	switch {
	case !cached:
		token, err = c.fetch(ctx, k, s)
	case err == nil && c.cache.ahead(k, s.Version):
		c.fly(ctx, s, func(ctx context.Context) (Token, error) { return c.replace(ctx, k, s) })
	}
	c.observer.Exchanged(ctx, c.name, cached, err)
	return token, err
}

// Reject notes that a backend rejected an exchanged token of this subject and
// version.
func (c *Client) Reject(subject string, version int64, g Generation) Rejection {
	return c.cache.reject(key{subject, c.digest}, version, g)
}

// maxFlights bounds how often somebody waits for an exchange that fails for a reason
// of another caller's.
const maxFlights = 3

// fetch shares one exchange among all callers with the same subject and version.
func (c *Client) fetch(ctx context.Context, k key, s Subject) (Token, error) {
	for range maxFlights {
		token, mine, err := c.join(ctx, k, s)
		ofCaller, ok := errors.AsType[*callerError](err)
		switch {
		case !ok:
			return token, err
		case mine:
			return Token{}, ofCaller.error
		}
	}
	return Token{}, c.grant.Unusable(nil, "was asked by others whose sessions end")
}

// join takes part in the exchange that is under way, or begins one: then it is mine.
func (c *Client) join(ctx context.Context, k key, s Subject) (token Token, mine bool, err error) {
	var begun atomic.Bool
	done := c.fly(ctx, s, func(ctx context.Context) (Token, error) {
		begun.Store(true)
		return c.exchange(ctx, k, s)
	})
	select {
	case <-ctx.Done():
		e := c.grant.Unusable(ctx.Err(), "was not waited for")
		e.Kind = fault.KindOf(ctx.Err())
		return Token{}, begun.Load(), e
	case result := <-done:
		token, _ := result.Val.(Token)
		return token, begun.Load(), result.Err
	}
}

// fly begins what all callers with the same subject and version share, unless it is
// under way. They come and go; it belongs to none of them.
func (c *Client) fly(ctx context.Context, s Subject, f func(context.Context) (Token, error)) <-chan singleflight.Result {
	return c.flight.DoChan(s.Key+"\x00"+strconv.FormatInt(s.Version, 10), func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flightTimeout)
		defer cancel()
		return f(ctx)
	})
}

// replace makes a new token while the last one is still good. If that fails, the
// last one stays. For those who came after its end meanwhile it is asked again, as
// if there had been none.
func (c *Client) replace(ctx context.Context, k key, s Subject) (Token, error) {
	token, err := c.request(ctx, s)
	if err != nil {
		return c.exchange(ctx, k, s)
	}
	return c.cache.put(k, token, s.Position), nil
}

// exchange asks the token service, and once more with a renewed subject token
// when it does not accept the first.
func (c *Client) exchange(ctx context.Context, k key, s Subject) (Token, error) {
	if token, refusal, ok := c.cache.get(k, s.Version); ok {
		return token, refusal // somebody was done before this flight took off
	}
	token, err := c.request(ctx, s)
	if s.Renew != nil && subjectRefused(err) {
		renewed, ok, renewErr := s.Renew(ctx)
		switch {
		case renewErr != nil:
			return Token{}, renewErr
		case ok:
			s = renewed
			token, err = c.request(ctx, s)
		}
	}
	if err != nil {
		if fault.ReasonOf(err) == reason.UpstreamRefused {
			c.cache.refuse(k, s.Version, s.Position, err)
		}
		return Token{}, err
	}
	return c.cache.put(k, token, s.Position), nil
}

// request makes a token by the grant.
func (c *Client) request(ctx context.Context, s Subject) (Token, error) {
	issued, err := c.grant.Request(ctx, s)
	if err != nil {
		return Token{}, err
	}
	token := Token{
		AccessToken: issued.Token, ExpiresAt: issued.ExpiresAt, Version: s.Version,
		Generation: Generation{ID: rand.Text()[:12]},
	}
	if !s.NotAfter.IsZero() && s.NotAfter.Before(token.ExpiresAt) {
		token.ExpiresAt, token.Bounded = s.NotAfter, true
	}
	return token, nil
}

// subjectRefused reports whether a refusal may be about the subject token:
// invalid_request by RFC 8693, section 2.2.2, invalid_grant or invalid_token by
// the habit of services.
func subjectRefused(err error) bool {
	f, ok := fault.As(err)
	if !ok || f.Reason != reason.UpstreamRefused {
		return false
	}
	return slices.Contains([]string{"invalid_request", "invalid_grant", "invalid_token"}, f.Metadata[reason.OAuthError])
}
