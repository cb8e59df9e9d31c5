package authorize

import (
	"context"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/authserver/internal/clients"
	"chatelaine.dev/services/authserver/internal/resource"
	"chatelaine.dev/services/authserver/internal/store"
)

// Reasons of the errors that are shown as a page, because there is no redirect
// URI that can be trusted.
const (
	ReasonClient      = "client_unknown"
	ReasonRedirectURI = "redirect_uri_invalid"
	ReasonRequest     = "request_invalid"
)

// Codes of the errors that go to the client.
const (
	codeInvalidRequest          = "invalid_request"
	codeUnauthorizedClient      = "unauthorized_client"
	codeUnsupportedResponseType = "unsupported_response_type"
	codeRequestNotSupported     = "request_not_supported"
	codeRequestURINotSupported  = "request_uri_not_supported"
)

// maxStateBytes bounds what we keep for the client for ten minutes.
const maxStateBytes = 4096

// challengeS256 is the form of every S256 challenge: the base64url text of a
// SHA-256 (RFC 7636, section 4.2).
var challengeS256 = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)

// ClientError is an error that the client is to hear: it goes to its redirect URI.
type ClientError struct {
	// Code and Description are the parameters error and error_description.
	Code, Description string
	RedirectURI       string
	State             string
}

// Error implements error.
func (e *ClientError) Error() string { return e.Code + ": " + e.Description }

// Clients finds registrations.
type Clients interface {
	Client(ctx context.Context, id string) (*store.Client, error)
}

// Checker checks requests.
type Checker struct {
	Clients Clients
	Policy  *resource.Policy
}

// Check returns the client and the parameters of its request. Its error is a
// *ClientError where the client may hear of it, and a *fault.Error for a page
// where it may not.
func (c *Checker) Check(ctx context.Context, q url.Values) (*store.Client, store.Params, error) {
	client, err := c.client(ctx, q)
	if err != nil {
		return nil, store.Params{}, err
	}
	p := store.Params{RedirectURI: q.Get("redirect_uri"), RedirectURISent: q.Has("redirect_uri"), State: q.Get("state")}
	switch {
	case !p.RedirectURISent && len(client.RedirectURIs) == 1: // RFC 6749, section 3.1.2.3
		p.RedirectURI = client.RedirectURIs[0]
	case len(q["redirect_uri"]) > 1 || !clients.MatchRedirectURI(client.RedirectURIs, p.RedirectURI):
		return nil, store.Params{}, fault.New(fault.Invalid, "the redirect URI of the request is not one that this application has registered").
			WithReason(ReasonRedirectURI)
	}
	if problem := c.parameters(q, client, &p); problem != nil {
		problem.RedirectURI = p.RedirectURI
		if len(q["state"]) <= 1 && printable(p.State) && len(p.State) <= maxStateBytes {
			problem.State = p.State
		}
		return nil, store.Params{}, problem
	}
	return client, p, nil
}

func (c *Checker) client(ctx context.Context, q url.Values) (*store.Client, error) {
	ids := q["client_id"]
	if len(ids) != 1 || ids[0] == "" {
		return nil, fault.New(fault.Invalid, "the request does not say which application it is from").WithReason(ReasonRequest)
	}
	unknown := fault.New(fault.Invalid, "the application that sent you here is not registered").WithReason(ReasonClient)
	client, err := c.Clients.Client(ctx, ids[0])
	if err != nil && fault.KindOf(err) == fault.NotFound {
		return nil, unknown.WithCause(err)
	}
	return client, err
}

// parameters checks the rest, and fills it into p.
func (c *Checker) parameters(q url.Values, client *store.Client, p *store.Params) *ClientError {
	invalid := func(description string) *ClientError {
		return &ClientError{Code: codeInvalidRequest, Description: description}
	}
	for name, values := range q { // RFC 6749, section 3.1; RFC 8707, section 2, repeats resource
		if len(values) > 1 && name != "resource" {
			return invalid("a parameter is sent more than once")
		}
	}
	switch {
	case len(p.State) > maxStateBytes:
		return invalid("state is longer than 4096 bytes")
	case !printable(p.State): // RFC 6749, appendix A.5
		return invalid("state has a character that is not printable ASCII")
	case q.Has("request"):
		return &ClientError{Code: codeRequestNotSupported, Description: "request objects are not supported"}
	case q.Has("request_uri"):
		return &ClientError{Code: codeRequestURINotSupported, Description: "request_uri is not supported"}
	case q.Get("response_type") == "":
		return invalid("response_type is missing")
	case q.Get("response_type") != "code":
		return &ClientError{Code: codeUnsupportedResponseType, Description: "the only response_type is code"}
	case q.Get("response_mode") != "" && q.Get("response_mode") != "query":
		return invalid("the only response_mode is query")
	case !slices.Contains(client.GrantTypes, "authorization_code"):
		return &ClientError{Code: codeUnauthorizedClient, Description: "the client did not register the grant type authorization_code"}
	case q.Get("code_challenge") == "":
		return invalid("code_challenge is missing: PKCE is required (RFC 7636)")
	case q.Get("code_challenge_method") != "S256":
		return invalid("code_challenge_method must be S256")
	case !challengeS256.MatchString(q.Get("code_challenge")):
		return invalid("code_challenge is not the base64url text of a SHA-256, 43 characters")
	}
	resources, err := c.Policy.Resolve(q["resource"])
	if err != nil {
		return &ClientError{Code: resource.ReasonTarget, Description: err.Error()}
	}
	p.CodeChallenge, p.Resources = q.Get("code_challenge"), resources
	p.Scopes = c.Policy.Downscope(q.Get("scope"), client.Scopes)
	return nil
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}
