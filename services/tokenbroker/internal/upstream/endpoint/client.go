package endpoint

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/outbound"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/reason"
)

const (
	// DefaultTimeout is the hard deadline of one request, from dial to last byte.
	DefaultTimeout = 10 * time.Second
	// MaxBody bounds an answer, in bytes.
	MaxBody = 1 << 20
	// maxRetryAfter bounds how long a server may tell us to stay away.
	maxRetryAfter = time.Minute
)

// MetadataSent is the key of error metadata that says "false" when a failed
// request certainly did not reach the server, so that nothing can be spent.
const MetadataSent = "sent"

// MetadataDenied is the key of error metadata that says "true" when the server
// answered a request that failed so, with an error: by its own account it has done
// nothing, and may be asked again. A server that only passes on that another one
// did not answer it (504) does not say that.
const MetadataDenied = "denied"

// Config makes a Client.
type Config struct {
	// Label names the server in spans and metrics: a configured name.
	Label string
	// Display names the server in messages, such as "provider corp".
	Display string
	// Provider is what errors carry in metadata["provider"]; empty leaves it out.
	Provider string
	// AddressRefused is the cause where the policy of HTTP refuses the server's address:
	// it names the field that permits it, or the one to correct.
	AddressRefused string
	// HTTP is made by package outbound.
	HTTP *http.Client
	// Timeout is the hard deadline of one request; zero means DefaultTimeout.
	Timeout time.Duration
	// Observer traces and counts; nil does neither.
	Observer *Observer
	// Now is time.Now, or a test's.
	Now func() time.Time
}

// Client makes requests to the endpoints of one server. It is safe for
// concurrent use.
type Client struct {
	cfg     Config
	breaker *Breaker
	apart   *Breaker // of requests that say so
}

// NewClient returns a client with breakers of its own.
func NewClient(cfg Config) *Client {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	return &Client{cfg: cfg, breaker: NewBreaker(cfg.Now), apart: NewBreaker(cfg.Now)}
}

// Request is one request.
type Request struct {
	// Operation names it in spans and metrics: redeem, refresh, userinfo …
	Operation string
	// Method is POST where Form is set.
	Method string
	URL    string
	// Form becomes the body; Auth may add to it.
	Form url.Values
	// Auth authenticates us as a client; nil where the endpoint wants none.
	Auth *ClientAuth
	// Bearer authenticates a person's request (RFC 6750, section 2.1); 401 and
	// 403 are then a certain no, whatever the body.
	Bearer secret.String
	// Header is added to what the client itself sets. It cannot replace Authorization.
	Header http.Header
	// Apart says that a stranger can have the request made, and say what is in it. How
	// the server takes it must not stop what others need of that server, so that it has
	// a breaker apart, which an answer never opens, be it a 5xx.
	Apart bool
}

// Response is an answer that was read whole.
type Response struct {
	Status      int
	ContentType string
	Body        []byte
	// SentAt is when the request was begun, from which lifetimes count.
	SentAt time.Time

	retryAfter string
}

// Do sends the request once and hands a 2xx answer to read, whose error is the
// outcome. All other outcomes are *fault.Error as the package comment says.
func (c *Client) Do(ctx context.Context, req Request, read func(*Response) error) (err error) {
	ctx, done := c.cfg.Observer.start(ctx, c.cfg.Label, req.Operation)
	defer func() { done(err) }()

	breaker := c.breaker
	if req.Apart {
		breaker = c.apart
	}
	ok, wait := breaker.allow()
	if !ok {
		return c.unavailable(nil, "is left alone for a moment after repeated failures", false).
			WithRetryAfter(max(wait, time.Second))
	}
	parent := ctx
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	resp, err := c.send(ctx, req)
	switch {
	case err != nil && parent.Err() != nil:
		breaker.report(healthUnknown)
		return err
	case err != nil:
		breaker.report(healthDown)
		return err
	case resp.Status >= 500 && !req.Apart:
		breaker.report(healthDown)
	default:
		breaker.report(healthUp)
	}
	if resp.Status/100 == 2 {
		return read(resp)
	}
	return c.failure(resp, !req.Bearer.IsZero())
}

func (c *Client) send(ctx context.Context, req Request) (*Response, error) {
	hr, err := c.build(ctx, req)
	if err != nil {
		return nil, err
	}
	moment := newMoment(ctx)
	hr = moment.guard(hr)
	c.cfg.Observer.inject(ctx, hr.Header)
	sentAt := c.cfg.Now()
	if moment.late() {
		return nil, c.network(context.DeadlineExceeded, false)
	}
	resp, err := outbound.Do(c.cfg.HTTP, hr)
	if err != nil {
		return nil, c.network(err, moment.close())
	}
	defer resp.Body.Close()
	body, err := outbound.ReadAll(resp, MaxBody)
	if err != nil {
		return nil, c.network(err, true)
	}
	return &Response{
		Status: resp.StatusCode, ContentType: resp.Header.Get("Content-Type"), Body: body, SentAt: sentAt,
		retryAfter: resp.Header.Get("Retry-After"),
	}, nil
}

func (c *Client) build(ctx context.Context, req Request) (*http.Request, error) {
	header := http.Header{"Accept": {"application/json"}, "User-Agent": {"chatelaine"}}
	maps.Copy(header, req.Header)
	header.Del("Authorization")
	if !req.Bearer.IsZero() {
		header.Set("Authorization", "Bearer "+req.Bearer.Reveal())
	}
	var body io.Reader
	if req.Form != nil {
		form := maps.Clone(req.Form)
		if err := req.Auth.apply(header, form, c.cfg.Now()); err != nil {
			return nil, err
		}
		header.Set("Content-Type", "application/x-www-form-urlencoded")
		body = strings.NewReader(form.Encode())
	}
	hr, err := http.NewRequestWithContext(ctx, req.Method, req.URL, body)
	if err != nil {
		return nil, c.unavailable(nil, "has an endpoint that is no URL", false)
	}
	hr.Header = header
	return hr, nil
}

// failure turns an answer other than 2xx into an error.
func (c *Client) failure(resp *Response, bearer bool) error {
	if resp.Status == http.StatusTooManyRequests { // it is well, and says when it wants more
		return c.denied("asks for fewer requests").WithRetryAfter(retryAfter(resp.retryAfter))
	}
	status := "answered with HTTP status " + strconv.Itoa(resp.Status)
	switch {
	case resp.Status < 400 || resp.Status == http.StatusGatewayTimeout:
		return c.unavailable(nil, status, true) // redirects are not followed
	case resp.Status >= 500 || resp.Status == http.StatusRequestTimeout:
		return c.denied(status)
	}
	if bearer && resp.Status == http.StatusUnauthorized {
		return c.Refused("invalid_token") // RFC 6750, section 3.1
	}
	if bearer && resp.Status == http.StatusForbidden {
		return c.Refused("insufficient_scope")
	}
	doc, err := Parse(resp.ContentType, resp.Body)
	if err != nil {
		return c.unavailable(fmt.Errorf("error answer: %w", err), status, true)
	}
	if err := c.ErrorIn(doc); err != nil {
		return err
	}
	return c.unavailable(nil, status+" and no OAuth error", true)
}

// ErrorIn returns what an error document says, or nil when doc is none. Some
// servers send one with HTTP 200.
func (c *Client) ErrorIn(doc Document) error {
	code, present, transient := oauthError(doc)
	switch {
	case !present:
		return nil
	case transient:
		return c.denied("is unavailable by its own account (" + code + ")")
	}
	return c.Refused(code)
}

// Refused is a certain no. code is a registered OAuth error code or empty.
func (c *Client) Refused(code string) *fault.Error {
	msg, kv := c.cfg.Display+" refused the request", c.metadata()
	if code != "" {
		msg += " (" + code + ")"
		kv = append(kv, reason.OAuthError, code)
	}
	return fault.New(fault.Precondition, msg).WithReason(reason.UpstreamRefused, kv...)
}

// Malformed is for an answer that is not one of the protocol: nobody can tell
// what it means. why must not hold anything that the server sent.
func (c *Client) Malformed(why error, what string) *fault.Error {
	return c.unavailable(why, "sent a malformed "+what, true)
}

// Unusable is for what cannot be asked at all; nothing was sent.
func (c *Client) Unusable(why error, what string) *fault.Error {
	return c.unavailable(why, what, false)
}

func (c *Client) denied(what string) *fault.Error {
	e := c.unavailable(nil, what, true)
	return e.WithReason(e.Reason, MetadataDenied, "true")
}

func (c *Client) unavailable(cause error, what string, sent bool) *fault.Error {
	kv := append(c.metadata(), MetadataSent, strconv.FormatBool(sent))
	return fault.Wrap(fault.Unavailable, cause, c.cfg.Display+" "+what).WithReason(reason.UpstreamUnavailable, kv...)
}

func (c *Client) metadata() []string {
	if c.cfg.Provider == "" {
		return nil
	}
	return []string{reason.Provider, c.cfg.Provider}
}

// network turns a failed exchange into an error.
func (c *Client) network(err error, connected bool) *fault.Error {
	switch f := fault.From(err); {
	case f.Kind == fault.Canceled:
		e := c.unavailable(context.Canceled, "was not waited for", connected)
		e.Kind = fault.Canceled
		return e
	case f.Kind == fault.Timeout:
		return c.unavailable(context.DeadlineExceeded, "did not answer in time", connected)
	case f.Reason == "response_too_large":
		return c.unavailable(nil, "sent an answer of more than 1 MiB", connected)
	}
	return c.unavailable(c.safeCause(err), "cannot be reached", connected)
}

// safeCause returns the part of a network error that the other side cannot have
// written. net/http quotes malformed answers in its errors, and an answer may
// echo a secret.
func (c *Client) safeCause(err error) error {
	if outbound.IsRefused(err) {
		return errors.New(c.cfg.AddressRefused)
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		return e
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return e
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return e
	}
	for _, e := range []error{io.ErrUnexpectedEOF, io.EOF, syscall.ECONNRESET, syscall.ECONNREFUSED} {
		if errors.Is(err, e) {
			return e
		}
	}
	return errors.New("the exchange broke off, or the answer was not HTTP")
}

func retryAfter(text string) time.Duration {
	seconds, err := strconv.Atoi(text)
	if err != nil || seconds < 1 {
		return time.Second
	}
	return min(time.Duration(seconds)*time.Second, maxRetryAfter)
}
