package clients

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/authserver/internal/store"
)

// MaxBodyBytes bounds a registration request.
const MaxBodyBytes = 64 << 10

const (
	maxNameRunes = 200
	maxScopes    = 100
)

// Reasons of this package's errors: the codes of RFC 7591, section 3.2.2.
const (
	ReasonRedirectURI = "invalid_redirect_uri"
	ReasonMetadata    = "invalid_client_metadata"
)

// Metadata is a client's description of itself (RFC 7591, section 2), as far as
// we act on it. The rest of a request is ignored.
type Metadata struct {
	RedirectURIs            []string `json:"redirect_uris"`
	TokenEndpointAuthMethod string   `json:"token_endpoint_auth_method,omitempty"`
	GrantTypes              []string `json:"grant_types,omitempty"`
	ResponseTypes           []string `json:"response_types,omitempty"`
	ClientName              string   `json:"client_name,omitempty"`
	ClientURI               string   `json:"client_uri,omitempty"`
	Scope                   string   `json:"scope,omitempty"`
}

// Information is the answer to a registration (RFC 7591, section 3.2.1): what was
// granted, which may differ from what was asked for.
type Information struct {
	ClientID         string `json:"client_id"`
	ClientIDIssuedAt int64  `json:"client_id_issued_at"`
	ClientSecret     string `json:"client_secret,omitempty"`
	// ClientSecretExpiresAt is set when there is a secret; 0 says never.
	ClientSecretExpiresAt *int64 `json:"client_secret_expires_at,omitempty"`
	Metadata
}

// Creator stores registrations.
type Creator interface {
	CreateClient(ctx context.Context, c *store.Client) error
}

// Registrar registers clients.
type Registrar struct {
	Store Creator
	// AllowConfidential lets clients have a secret.
	AllowConfidential bool
	// Scopes that the deployment knows; Baseline are granted to every client.
	Scopes, Baseline []string
}

// Parse reads a registration request. Errors are Invalid with reason
// invalid_client_metadata.
func Parse(body []byte) (*Metadata, error) {
	var m Metadata
	if len(body) > MaxBodyBytes {
		return nil, metadataError("the request is larger than 64 KiB")
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, metadataError("the body is not a JSON object of client metadata").WithCause(err)
	}
	return &m, nil
}

// Register checks what a client says of itself, stores it, and returns what was
// granted.
func (r *Registrar) Register(ctx context.Context, asked *Metadata) (*Information, error) {
	c, err := r.check(asked)
	if err != nil {
		return nil, err
	}
	// Base32 text: both values survive Basic authentication without escaping.
	c.ID = rand.Text()
	info := &Information{Metadata: Metadata{
		RedirectURIs: c.RedirectURIs, TokenEndpointAuthMethod: c.AuthMethod, GrantTypes: c.GrantTypes,
		ResponseTypes: []string{"code"}, ClientName: c.Name, ClientURI: c.URI, Scope: strings.Join(c.Scopes, " "),
	}}
	if !c.Public() {
		info.ClientSecret = rand.Text() + rand.Text()
		info.ClientSecretExpiresAt = new(int64)
		c.SecretHash = store.Digest(info.ClientSecret)
	}
	if err := r.Store.CreateClient(ctx, c); err != nil {
		return nil, err
	}
	info.ClientID, info.ClientIDIssuedAt = c.ID, c.CreatedAt.Unix()
	return info, nil
}

func (r *Registrar) check(m *Metadata) (*store.Client, error) {
	c := &store.Client{Name: cleanName(m.ClientName)}
	var err error
	if c.AuthMethod, err = r.authMethod(m.TokenEndpointAuthMethod); err != nil {
		return nil, err
	}
	if c.GrantTypes, err = grantTypes(m); err != nil {
		return nil, err
	}
	if c.RedirectURIs, err = redirectURIs(m.RedirectURIs, c.Public()); err != nil {
		return nil, err
	}
	if u, problem := parseURI(m.ClientURI); problem == "" && (u.Scheme == "https" || u.Scheme == "http") {
		c.URI = m.ClientURI // what else it may be is no reason to refuse
	}
	c.Scopes = r.scopes(m.Scope)
	return c, nil
}

// authMethod gives a public client where the deployment allows no other, as RFC
// 7591, section 3.2.1, permits: the answer tells the client.
func (r *Registrar) authMethod(asked string) (string, error) {
	switch asked {
	case "", "none":
		return "none", nil
	case "client_secret_basic", "client_secret_post":
		if r.AllowConfidential {
			return asked, nil
		}
		return "none", nil
	}
	return "", metadataError("token_endpoint_auth_method must be none, client_secret_basic or client_secret_post")
}

func grantTypes(m *Metadata) ([]string, error) {
	if len(m.ResponseTypes) > 0 && !slices.Contains(m.ResponseTypes, "code") {
		return nil, metadataError("response_types must have code: there is no other here")
	}
	if len(m.GrantTypes) == 0 { // RFC 7591, section 2: the default
		return []string{"authorization_code"}, nil
	}
	if !slices.Contains(m.GrantTypes, "authorization_code") {
		return nil, metadataError("grant_types must have authorization_code: every login begins with one")
	}
	granted := []string{"authorization_code"}
	if slices.Contains(m.GrantTypes, "refresh_token") {
		granted = append(granted, "refresh_token")
	}
	return granted, nil
}

func redirectURIs(asked []string, public bool) ([]string, error) {
	if len(asked) == 0 || len(asked) > MaxRedirectURIs {
		return nil, redirectError("redirect_uris must have 1 to 10 URIs")
	}
	total := 0
	for _, raw := range asked {
		total += len(raw)
	}
	if total > MaxRedirectBytes {
		return nil, redirectError("redirect_uris must have 8 KiB at most in all")
	}
	bad := redirectError("a redirect URI cannot be registered")
	for i, raw := range asked {
		if problem := CheckRedirectURI(raw, public); problem != "" {
			bad = bad.WithField("redirect_uris["+strconv.Itoa(i)+"]", problem)
		}
	}
	if len(bad.Fields) > 0 {
		return nil, bad
	}
	unique := make([]string, 0, len(asked)) // in the client's order: some take the first back
	for _, raw := range asked {
		if !slices.Contains(unique, raw) {
			unique = append(unique, raw)
		}
	}
	return unique, nil
}

// scopes leaves out what the deployment does not know. A client that names none
// may ask for all.
func (r *Registrar) scopes(asked string) []string {
	want := strings.Fields(asked)
	granted := []string{}
	for _, scope := range r.Scopes {
		if len(want) == 0 || slices.Contains(want[:min(len(want), maxScopes)], scope) || slices.Contains(r.Baseline, scope) {
			granted = append(granted, scope)
		}
	}
	return granted
}

// cleanName returns a name that is safe to show: one line of printable text of
// bounded length, without marks that turn the direction of writing or that nobody
// sees. A name without a letter or digit is none.
func cleanName(name string) string {
	name = strings.Map(func(r rune) rune {
		switch {
		case r == utf8.RuneError, unicode.IsControl(r),
			unicode.In(r, unicode.Cf, unicode.Co, unicode.Zl, unicode.Zp, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector):
			return -1
		case unicode.IsSpace(r):
			return ' '
		}
		return r
	}, name)
	name = strings.Join(strings.Fields(name), " ")
	if runes := []rune(name); len(runes) > maxNameRunes {
		name = string(runes[:maxNameRunes])
	}
	if !strings.ContainsFunc(name, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }) {
		return ""
	}
	return name
}

func metadataError(msg string) *fault.Error {
	return fault.New(fault.Invalid, msg).WithReason(ReasonMetadata)
}

func redirectError(msg string) *fault.Error {
	return fault.New(fault.Invalid, msg).WithReason(ReasonRedirectURI)
}
