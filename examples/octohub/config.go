package octohub

import (
	_ "embed"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"chatelaine.dev/examples/internal/rules"
	"chatelaine.dev/examples/people"
)

//go:embed default.yaml
var defaultRules []byte

// Config is what a Host is made of.
type Config struct {
	// BaseURL is where the host is reached, e.g. http://localhost:5557.
	BaseURL string
	Rules   Rules
	People  *people.Directory
	// StateFile keeps sessions and tokens over a restart; empty: memory only.
	StateFile string
	Lifetimes Lifetimes
}

// Lifetimes are how long things can be used.
type Lifetimes struct {
	// AccessToken is that of user tokens. Zero: they do not expire, and there
	// are no refresh tokens.
	AccessToken time.Duration
	// RefreshToken counts from each rotation.
	RefreshToken time.Duration
	// RefreshGrace is how long a spent refresh token still works.
	RefreshGrace time.Duration
	// Code is that of authorization codes.
	Code time.Duration
	// Session is how long a person stays signed in.
	Session time.Duration
}

// DefaultLifetimes returns the demo's lifetimes.
func DefaultLifetimes() Lifetimes {
	return Lifetimes{
		AccessToken:  8 * time.Hour,
		RefreshToken: 184 * 24 * time.Hour,
		Code:         10 * time.Minute,
		Session:      14 * 24 * time.Hour,
	}
}

// Rules say which clients there are.
type Rules struct {
	Clients []Client `yaml:"clients"`
}

// Client is a confidential client.
type Client struct {
	rules.Registration `yaml:",inline"`
	Name               string `yaml:"name"`
}

// LoadRules reads a YAML file; an empty path means the demo's rules.
func LoadRules(path string) (Rules, error) {
	r, err := rules.Load[Rules](path, defaultRules)
	if err != nil {
		return Rules{}, fmt.Errorf("octohub: rules: %w", err)
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
	bad := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("octohub: "+format, args...))
	}
	u, err := url.Parse(c.BaseURL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.Path != "" {
		bad("the base URL must be plain, such as http://localhost:5557")
	}
	if c.People == nil {
		bad("no people")
	}
	l := c.Lifetimes
	if slices.Min([]time.Duration{l.RefreshToken, l.Code, l.Session}) <= 0 || l.AccessToken < 0 || l.RefreshGrace < 0 {
		bad("lifetimes must be positive; those of access tokens and of the grace may be zero")
	}
	known := map[string]bool{}
	for _, cl := range c.Rules.Clients {
		if cl.ID == "" || known[cl.ID] {
			bad("client %q: the id is empty or used twice", cl.ID)
		}
		known[cl.ID] = true
		if cl.Secret.IsZero() || len(cl.RedirectURIs) == 0 {
			bad("client %s needs a secret and a redirect URI", cl.ID)
		}
	}
	return errors.Join(problems...)
}
