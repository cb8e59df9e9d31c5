package octohub

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"chatelaine.dev/examples/people"
	"chatelaine.dev/internal/secret"
)

//go:embed default.yaml
var defaultRules []byte

// maxRulesSize bounds a rules file, in bytes.
const maxRulesSize = 1 << 20

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

// Client is a confidential client. Redirect URIs match exactly.
type Client struct {
	ID           string        `yaml:"id"`
	Name         string        `yaml:"name"`
	SecretRef    secret.Ref    `yaml:"secretRef"`
	Secret       secret.String `yaml:"-"`
	RedirectURIs []string      `yaml:"redirectURIs"`
}

// LoadRules reads a YAML file; an empty path means the demo's rules.
func LoadRules(path string) (Rules, error) {
	data := defaultRules
	if path != "" {
		var err error
		if data, err = os.ReadFile(path); err != nil {
			return Rules{}, fmt.Errorf("octohub: %w", err)
		}
		if len(data) > maxRulesSize {
			return Rules{}, fmt.Errorf("octohub: %s is larger than %d bytes", path, maxRulesSize)
		}
	}
	var r Rules
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&r); err != nil {
		return Rules{}, fmt.Errorf("octohub: rules: %w", err)
	}
	return r, nil
}

// ResolveSecrets reads the clients' secrets by their references.
func (r *Rules) ResolveSecrets(from *secret.Resolver) error {
	var problems []error
	for i := range r.Clients {
		c := &r.Clients[i]
		s, err := from.Resolve(c.SecretRef)
		if err != nil {
			problems = append(problems, fmt.Errorf("octohub: client %s: %w", c.ID, err))
		}
		c.Secret = s
	}
	return errors.Join(problems...)
}

// SetRedirectURIs replaces the redirect URIs of the client with that id.
func (r *Rules) SetRedirectURIs(client string, uris []string) error {
	i := slices.IndexFunc(r.Clients, func(c Client) bool { return c.ID == client })
	if i < 0 {
		return fmt.Errorf("octohub: there is no client %q", client)
	}
	r.Clients[i].RedirectURIs = uris
	return nil
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
