package exchange

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
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

const (
	grantType = "urn:ietf:params:oauth:grant-type:token-exchange"

	// defaultLifetime is that of a token whose service does not say (section
	// 2.2.1 only recommends it): short, because nobody knows.
	defaultLifetime = time.Minute
	maxLifetime     = 24 * time.Hour
	// maxMargin is how long before its end a token is no longer used. A short
	// lived one loses a tenth of its life instead.
	maxMargin = 30 * time.Second

	// flightTimeout bounds what callers share: a subject token, an exchange, a
	// renewal of the subject and another exchange.
	flightTimeout = 40 * time.Second
)

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

// Client exchanges tokens at one token service. It is safe for concurrent use.
type Client struct {
	strategy *config.TokenExchangeStrategy
	secret   secret.String
	digest   [32]byte
	cache    *Cache
	client   *endpoint.Client
	name     string
	observer *endpoint.Observer
	flight   singleflight.Group
	// post says that the service wants client_secret_post: it refused Basic.
	post atomic.Bool
}

// New prepares an exchange. It makes no request. Errors are those of the secret.
func New(strategy *config.TokenExchangeStrategy, cfg Config) (*Client, error) {
	c := &Client{
		strategy: strategy, cache: cfg.Cache, digest: digest(strategy), name: cfg.Name, observer: cfg.Observer,
	}
	if strategy.ClientSecret != nil {
		var err error
		if c.secret, err = cfg.Secrets.Resolve(*strategy.ClientSecret); err != nil {
			return nil, fault.From(err).WithPrefix("token exchange " + cfg.Name)
		}
	}
	timeout := cmp.Or(cfg.Timeout, endpoint.DefaultTimeout)
	c.client = endpoint.NewClient(endpoint.Config{
		Label: cfg.Name, Display: "the token service of " + cfg.Name, Provider: strategy.SubjectProvider,
		AddressRefused: "its address is not allowed: the name in tokenUrl leads to a loopback or link-local one",
		// The operator wrote the URL, so that a private address is meant.
		HTTP: outbound.New(outbound.Config{
			Timeout: timeout, Dials: cfg.Dials,
			Policy: outbound.Policy{AllowPrivate: true, AllowLoopback: outbound.Loopback(strategy.TokenURL)},
		}),
		Timeout: timeout, Observer: cfg.Observer, Now: cfg.Now,
	})
	return c, nil
}

// digest is what of an exchange's configuration makes its tokens differ.
func digest(s *config.TokenExchangeStrategy) [32]byte {
	scopes := slices.Sorted(slices.Values(s.Scopes))
	canonical, err := json.Marshal([]any{
		s.TokenURL, s.ClientID, s.Audience, scopes, s.SubjectTokenType, s.SubjectProvider, s.Parameters,
	})
	if err != nil {
		panic("exchange: a strategy is plain data: " + err.Error())
	}
	return sha256.Sum256(canonical)
}

// Token returns a token for the subject, from the cache or the token service.
// Errors: those of subject.Token and subject.Renew; Precondition with
// reason.UpstreamRefused; Unavailable with reason.UpstreamUnavailable.
func (c *Client) Token(ctx context.Context, s Subject) (Token, error) {
	k := key{s.Key, c.digest}
	token, err, cached := c.cache.get(k, s.Version)
	if !cached {
		token, err = c.fetch(ctx, k, s)
	}
	c.observer.Exchanged(ctx, c.name, cached, err)
	return token, err
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
	return Token{}, c.client.Unusable(nil, "was asked by others whose sessions end")
}

// join takes part in the exchange that is under way, or begins one: then it is mine.
func (c *Client) join(ctx context.Context, k key, s Subject) (token Token, mine bool, err error) {
	var begun atomic.Bool
	done := c.flight.DoChan(s.Key+"\x00"+strconv.FormatInt(s.Version, 10), func() (any, error) {
		begun.Store(true)
		// Callers come and go; the exchange belongs to none of them.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flightTimeout)
		defer cancel()
		return c.exchange(ctx, k, s)
	})
	select {
	case <-ctx.Done():
		e := c.client.Unusable(ctx.Err(), "was not waited for")
		e.Kind = fault.KindOf(ctx.Err())
		return Token{}, begun.Load(), e
	case result := <-done:
		token, _ := result.Val.(Token)
		return token, begun.Load(), result.Err
	}
}

// Reject notes that a backend rejected an exchanged token of this subject and
// version.
func (c *Client) Reject(subject string, version int64, g Generation) Rejection {
	return c.cache.reject(key{subject, c.digest}, version, g)
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
			c.cache.refuse(k, s.Version, err)
		}
		return Token{}, err
	}
	return c.cache.put(k, token), nil
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

// request makes the exchange (section 2.1). A service that does not take the
// client's secret by HTTP Basic is asked again by form, and from then on.
func (c *Client) request(ctx context.Context, s Subject) (Token, error) {
	subject, err := s.Token(ctx)
	if err != nil {
		return Token{}, err
	}
	post := c.post.Load()
	token, err := c.send(ctx, s, subject, post)
	if !post && !c.secret.IsZero() && fault.ReasonOf(err) == reason.UpstreamRefused &&
		fault.From(err).Metadata[reason.OAuthError] == "invalid_client" {
		second, secondErr := c.send(ctx, s, subject, true)
		if secondErr == nil {
			c.post.Store(true)
			return second, nil
		}
	}
	return token, err
}

func (c *Client) send(ctx context.Context, s Subject, subject secret.String, post bool) (token Token, err error) {
	auth := &endpoint.ClientAuth{Method: config.AuthMethodNone, ID: c.strategy.ClientID, Secret: c.secret}
	switch {
	case c.secret.IsZero():
	case post:
		auth.Method = config.AuthMethodPost
	default:
		auth.Method = config.AuthMethodBasic
	}
	err = c.client.Do(ctx, endpoint.Request{
		Operation: "exchange", Method: http.MethodPost, URL: c.strategy.TokenURL, Auth: auth, Form: c.form(subject),
	}, func(resp *endpoint.Response) error {
		token, err = c.read(resp, s)
		return err
	})
	return token, err
}

func (c *Client) form(subject secret.String) url.Values {
	form := url.Values{
		"grant_type":         {grantType},
		"subject_token":      {subject.Reveal()},
		"subject_token_type": {c.strategy.SubjectTokenType},
		// Services differ in what they return when it is left out.
		"requested_token_type": {config.TokenTypeAccessToken},
	}
	if c.strategy.Audience != "" {
		form.Set("audience", c.strategy.Audience)
	}
	if len(c.strategy.Scopes) > 0 {
		form.Set("scope", strings.Join(c.strategy.Scopes, " "))
	}
	for name, value := range c.strategy.Parameters {
		if !form.Has(name) { // they add, they do not replace
			form.Set(name, value)
		}
	}
	return form
}

// The errors of an answer name the field, never its value.
var (
	errAccessToken = errors.New("access_token is missing or not a token")
	errIssuedType  = errors.New("issued_token_type is missing or not that of an access token")
	errTokenType   = errors.New("token_type is missing or not Bearer")
	errExpiresIn   = errors.New("expires_in is not a number of seconds")
)

// read checks a successful answer (section 2.2.1).
func (c *Client) read(resp *endpoint.Response, s Subject) (Token, error) {
	doc, err := endpoint.ParseJSON(resp.Body)
	if err != nil {
		return Token{}, c.client.Malformed(err, "token exchange answer")
	}
	if err := c.client.ErrorIn(doc); err != nil {
		return Token{}, err
	}
	text, lifetime, err := readAnswer(doc)
	if err != nil {
		return Token{}, c.client.Malformed(err, "token exchange answer")
	}
	token := Token{
		AccessToken: text, Version: s.Version,
		ExpiresAt:  resp.SentAt.Add(lifetime - min(lifetime/10, maxMargin)),
		Generation: Generation{ID: rand.Text()[:12]},
	}
	if !s.NotAfter.IsZero() && s.NotAfter.Before(token.ExpiresAt) {
		token.ExpiresAt = s.NotAfter
	}
	return token, nil
}

// readAnswer reads the fields of an answer.
func readAnswer(doc endpoint.Document) (token secret.String, lifetime time.Duration, err error) {
	text, _ := doc.String(endpoint.Path{"access_token"})
	if !endpoint.TokenText(text) {
		return secret.String{}, 0, errAccessToken
	}
	switch issued, _ := doc.String(endpoint.Path{"issued_token_type"}); issued {
	case config.TokenTypeAccessToken, config.TokenTypeJWT: // a JWT may be an access token (section 3)
	default:
		return secret.String{}, 0, errIssuedType
	}
	if typ, _ := doc.String(endpoint.Path{"token_type"}); !strings.EqualFold(typ, "bearer") {
		return secret.String{}, 0, errTokenType // "N_A" is for what opens nothing
	}
	lifetime = defaultLifetime
	if v, ok := doc.Lookup(endpoint.Path{"expires_in"}); ok {
		n, isNumber := v.(json.Number)
		f, err := strconv.ParseFloat(n.String(), 64)
		if !isNumber || err != nil || f <= 0 {
			return secret.String{}, 0, errExpiresIn
		}
		lifetime = time.Duration(min(f, maxLifetime.Seconds()) * float64(time.Second))
	}
	return secret.New(text), lifetime, nil
}
