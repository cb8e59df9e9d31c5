package corp

import (
	_ "embed"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"

	"chatelaine.dev/examples/internal/rules"
	"chatelaine.dev/examples/people"
)

//go:embed default.yaml
var defaultRules []byte

// Config is what a Provider is made of.
type Config struct {
	// Issuer is the provider's own URL, without a trailing slash.
	Issuer string
	Rules  Rules
	People *people.Directory
	// StateFile keeps keys and tokens over a restart; empty: memory only.
	StateFile string
	Lifetimes Lifetimes
	// Client fetches the keys of trusted issuers; it must have a deadline.
	// Only needed where there are some.
	Client *http.Client
}

// Lifetimes are how long things can be used.
type Lifetimes struct {
	// AccessToken is that of the login client's access tokens.
	AccessToken time.Duration
	// RefreshToken counts from each rotation.
	RefreshToken time.Duration
	// RefreshGrace is how long a spent refresh token still works, for a client
	// whose answer was lost. Zero: reuse ends the family at once.
	RefreshGrace time.Duration
	// ExchangedToken is that of tokens out of a token exchange.
	ExchangedToken time.Duration
	// IDToken is that of ID tokens.
	IDToken time.Duration
	// Code is that of authorization codes.
	Code time.Duration
	// Request is how long a person may take to sign in.
	Request time.Duration
}

// DefaultLifetimes returns the demo's lifetimes.
func DefaultLifetimes() Lifetimes {
	return Lifetimes{
		AccessToken:    10 * time.Minute,
		RefreshToken:   30 * 24 * time.Hour,
		ExchangedToken: 5 * time.Minute,
		IDToken:        10 * time.Minute,
		Code:           time.Minute,
		Request:        10 * time.Minute,
	}
}

// Rules say which clients there are and what they may have.
type Rules struct {
	Clients        []Client        `yaml:"clients"`
	Exchange       []ExchangeRule  `yaml:"exchange"`
	TrustedIssuers []TrustedIssuer `yaml:"trustedIssuers"`
}

// Client is a confidential client.
type Client struct {
	rules.Registration `yaml:",inline"`
	Grants             []oidc.GrantType `yaml:"grants"`
	// Scopes are allowed beside openid, profile, email and offline_access.
	Scopes []string `yaml:"scopes"`
}

// ExchangeRule allows Client to exchange a token that was issued to one of
// SubjectClients (or comes from a trusted issuer) for one to Audience.
type ExchangeRule struct {
	Client         string   `yaml:"client"`
	SubjectClients []string `yaml:"subjectClients"`
	Audience       string   `yaml:"audience"`
	Scopes         []string `yaml:"scopes"`
}

// TrustedIssuer is a foreign issuer whose JWTs may be exchanged here. They must
// be made for corp's token endpoint (aud) and live ten minutes at most.
type TrustedIssuer struct {
	Issuer  string `yaml:"issuer"`
	JWKSURL string `yaml:"jwksURL"`
}

// LoadRules reads a YAML file; an empty path means the demo's rules.
func LoadRules(path string) (Rules, error) {
	r, err := rules.Load[Rules](path, defaultRules)
	if err != nil {
		return Rules{}, fmt.Errorf("corp: rules: %w", err)
	}
	return r, nil
}

// Registrations are the clients, to complete: secrets and redirect URIs are
// known only when the program starts.
func (r *Rules) Registrations() []*rules.Registration {
	all := make([]*rules.Registration, len(r.Clients))
	for i := range r.Clients {
		all[i] = &r.Clients[i].Registration
	}
	return all
}

func (c *Config) validate() error {
	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf("corp: "+format, args...)) }

	u, err := url.Parse(c.Issuer)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
		bad("the issuer must be a plain URL without a path, such as http://localhost:5556")
	}
	if c.People == nil {
		bad("no people")
	}
	l := c.Lifetimes
	if slices.Min([]time.Duration{l.AccessToken, l.RefreshToken, l.ExchangedToken, l.IDToken, l.Code, l.Request}) <= 0 || l.RefreshGrace < 0 {
		bad("every lifetime must be positive, and the grace not negative")
	}
	known := map[string]bool{}
	for _, cl := range c.Rules.Clients {
		if cl.ID == "" || known[cl.ID] {
			bad("client %q: the id is empty or used twice", cl.ID)
		}
		known[cl.ID] = true
		if cl.Secret.IsZero() {
			bad("client %s has no secret", cl.ID)
		}
		if slices.Contains(cl.Grants, oidc.GrantTypeCode) && len(cl.RedirectURIs) == 0 {
			bad("client %s may sign people in but has no redirect URI", cl.ID)
		}
	}
	for _, e := range c.Rules.Exchange {
		if !known[e.Client] || e.Audience == "" || len(e.Scopes) == 0 {
			bad("an exchange rule needs a known client, an audience and scopes (client %q, audience %q)", e.Client, e.Audience)
		}
	}
	if len(c.Rules.TrustedIssuers) > 0 && c.Client == nil {
		bad("trusted issuers need a client that fetches their keys")
	}
	for _, t := range c.Rules.TrustedIssuers {
		if t.Issuer == "" || t.JWKSURL == "" || t.Issuer == c.Issuer {
			bad("trusted issuer %q needs a URL of its keys and cannot be corp itself", t.Issuer)
		}
	}
	return errors.Join(problems...)
}
