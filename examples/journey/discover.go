package journey

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
)

// maxAnswer bounds every JSON answer, in bytes.
const maxAnswer = 1 << 20

// Discovery is what a client learns from the MCP URL alone.
type Discovery struct {
	// MCPURL is what the user typed.
	MCPURL string
	// Challenge is the WWW-Authenticate header of the first answer.
	Challenge string
	// MetadataURL is the challenge's resource_metadata.
	MetadataURL string
	Resource    ResourceMetadata
	Server      ServerMetadata
}

// ResourceMetadata is the part of RFC 9728, section 2, that a client needs.
type ResourceMetadata struct {
	Resource             string   `json:"resource"`
	AuthorizationServers []string `json:"authorization_servers"`
	ScopesSupported      []string `json:"scopes_supported"`
}

// ServerMetadata is the part of RFC 8414, section 2, that a client needs.
type ServerMetadata struct {
	Issuer                string   `json:"issuer"`
	AuthorizationEndpoint string   `json:"authorization_endpoint"`
	TokenEndpoint         string   `json:"token_endpoint"`
	RegistrationEndpoint  string   `json:"registration_endpoint"`
	RevocationEndpoint    string   `json:"revocation_endpoint"`
	JWKSURI               string   `json:"jwks_uri"`
	CodeChallengeMethods  []string `json:"code_challenge_methods_supported"`
}

var resourceMetadataRE = regexp.MustCompile(`resource_metadata="([^"]+)"`)

// Discover asks the MCP URL without a token, as a new client does, and follows
// the challenge to both metadata documents.
func Discover(ctx context.Context, client *http.Client, mcpURL string) (*Discovery, error) {
	d := &Discovery{MCPURL: mcpURL}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, mcpURL, strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"ping"}`))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		return nil, fmt.Errorf("%s answered %s without a token; expected 401", mcpURL, resp.Status)
	}
	d.Challenge = resp.Header.Get("WWW-Authenticate")
	m := resourceMetadataRE.FindStringSubmatch(d.Challenge)
	if m == nil {
		return nil, fmt.Errorf("the challenge names no resource_metadata: %q", d.Challenge)
	}
	d.MetadataURL = m[1]
	if err := getJSON(ctx, client, d.MetadataURL, &d.Resource); err != nil {
		return nil, err
	}
	if len(d.Resource.AuthorizationServers) == 0 {
		return nil, errors.New("the resource's metadata names no authorization server")
	}
	issuer := d.Resource.AuthorizationServers[0]
	if err := getJSON(ctx, client, strings.TrimSuffix(issuer, "/")+"/.well-known/oauth-authorization-server", &d.Server); err != nil {
		return nil, err
	}
	if d.Server.Issuer != issuer { // RFC 8414, section 3.3
		return nil, fmt.Errorf("issuer %q does not match %q", d.Server.Issuer, issuer)
	}
	return d, nil
}

// Client is a registered OAuth client.
type Client struct {
	ID          string
	Name        string
	RedirectURI string
	Discovery   *Discovery
	HTTP        *http.Client
}

// Register makes a public client (RFC 7591).
func (d *Discovery) Register(ctx context.Context, client *http.Client, name, redirectURI string) (*Client, error) {
	body, err := json.Marshal(map[string]any{
		"client_name":                name,
		"redirect_uris":              []string{redirectURI},
		"grant_types":                []string{"authorization_code", "refresh_token"},
		"response_types":             []string{"code"},
		"token_endpoint_auth_method": "none",
	})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.Server.RegistrationEndpoint, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var answer struct {
		ClientID string `json:"client_id"`
	}
	if err := decode(resp, http.StatusCreated, &answer); err != nil {
		return nil, fmt.Errorf("registration: %w", err)
	}
	return &Client{ID: answer.ClientID, Name: name, RedirectURI: redirectURI, Discovery: d, HTTP: client}, nil
}

func getJSON(ctx context.Context, client *http.Client, url string, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := decode(resp, http.StatusOK, v); err != nil {
		return fmt.Errorf("%s: %w", url, err)
	}
	return nil
}

func decode(resp *http.Response, want int, v any) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	if resp.StatusCode != want {
		return fmt.Errorf("answered %s: %.300s", resp.Status, body)
	}
	return json.Unmarshal(body, v)
}
