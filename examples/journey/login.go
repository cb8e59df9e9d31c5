package journey

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"chatelaine.dev/examples/browse"
)

// Request is one authorization request, with what belongs to it.
type Request struct {
	URL      string
	State    string
	Verifier string
	Resource string
}

// Login is what a client has after the person has logged in.
type Login struct {
	Client *Client
	Token  *oauth2.Token
	// Steps are what the person's browser did.
	Steps []browse.Step
	// Claims are those of the access token, unverified: for people to read.
	Claims Claims
}

// Claims are the claims of our access tokens (RFC 9068).
type Claims struct {
	Issuer    string   `json:"iss"`
	Subject   string   `json:"sub"`
	Audience  []string `json:"aud"`
	ClientID  string   `json:"client_id"`
	Scope     string   `json:"scope"`
	SessionID string   `json:"tsid"`
	Expiry    int64    `json:"exp"`
	IssuedAt  int64    `json:"iat"`
	ID        string   `json:"jti"`
}

// OAuth2 is the client's configuration for golang.org/x/oauth2.
func (c *Client) OAuth2() *oauth2.Config {
	return &oauth2.Config{
		ClientID:    c.ID,
		RedirectURL: c.RedirectURI,
		Scopes:      c.Discovery.Resource.ScopesSupported,
		Endpoint: oauth2.Endpoint{
			AuthURL:   c.Discovery.Server.AuthorizationEndpoint,
			TokenURL:  c.Discovery.Server.TokenEndpoint,
			AuthStyle: oauth2.AuthStyleInParams,
		},
	}
}

// Authorize makes an authorization request for the discovered resource.
func (c *Client) Authorize() Request {
	r := Request{State: rand.Text(), Verifier: oauth2.GenerateVerifier(), Resource: c.Discovery.Resource.Resource}
	r.URL = c.OAuth2().AuthCodeURL(r.State, oauth2.S256ChallengeOption(r.Verifier), oauth2.SetAuthURLParam("resource", r.Resource))
	return r
}

// Callback checks an authorization response and returns its code. An error
// response is an *oauth2.RetrieveError.
func (c *Client) Callback(r Request, callback *url.URL) (string, error) {
	q := callback.Query()
	if q.Get("state") != r.State {
		return "", errors.New("the answer has another state than the request")
	}
	if q.Get("iss") != c.Discovery.Server.Issuer { // RFC 9207, section 2.4
		return "", fmt.Errorf("the answer's iss is %q, not the issuer", q.Get("iss"))
	}
	if code := q.Get("error"); code != "" {
		return "", &oauth2.RetrieveError{ErrorCode: code, ErrorDescription: q.Get("error_description")}
	}
	if q.Get("code") == "" {
		return "", errors.New("the answer has no code")
	}
	return q.Get("code"), nil
}

// Redeem redeems a code at the token endpoint.
func (c *Client) Redeem(ctx context.Context, r Request, code string) (*oauth2.Token, error) {
	ctx = context.WithValue(ctx, oauth2.HTTPClient, c.HTTP)
	return c.OAuth2().Exchange(ctx, code, oauth2.VerifierOption(r.Verifier), oauth2.SetAuthURLParam("resource", r.Resource))
}

// Refresh spends a refresh token.
func (c *Client) Refresh(ctx context.Context, refreshToken string) (*oauth2.Token, error) {
	ctx = context.WithValue(ctx, oauth2.HTTPClient, c.HTTP)
	stale := &oauth2.Token{RefreshToken: refreshToken, Expiry: time.Unix(1, 0)}
	return c.OAuth2().TokenSource(ctx, stale).Token()
}

// Login walks the person's browser through one login and redeems its code.
func (c *Client) Login(ctx context.Context, person *browse.Browser) (*Login, error) {
	r := c.Authorize()
	walk, err := person.Walk(ctx, r.URL, c.RedirectURI)
	if err != nil {
		return nil, fmt.Errorf("login: %w", err)
	}
	code, err := c.Callback(r, walk.URL)
	if err != nil {
		return nil, fmt.Errorf("login: %w", err)
	}
	token, err := c.Redeem(ctx, r, code)
	if err != nil {
		return nil, fmt.Errorf("redeem the code: %w", err)
	}
	claims, err := ParseClaims(token.AccessToken)
	if err != nil {
		return nil, err
	}
	return &Login{Client: c, Token: token, Steps: walk.Steps, Claims: claims}, nil
}

// ParseClaims reads an access token's claims without verifying it.
func ParseClaims(token string) (Claims, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return Claims{}, errors.New("the access token is no JWT")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return Claims{}, fmt.Errorf("the access token's payload: %w", err)
	}
	var claims Claims
	if err := json.Unmarshal(payload, &claims); err != nil {
		return Claims{}, fmt.Errorf("the access token's claims: %w", err)
	}
	return claims, nil
}

// bearer adds a token, and a trace to each request when its context has one.
type bearer struct {
	token string
	next  http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (b bearer) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", "Bearer "+b.token)
	if trace, ok := req.Context().Value(traceKey{}).(string); ok {
		req.Header.Set("Traceparent", trace)
	}
	return b.next.RoundTrip(req)
}
