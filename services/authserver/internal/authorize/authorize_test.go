package authorize_test

import (
	"context"
	"errors"
	"net/url"
	"testing"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/authserver/internal/authorize"
	"chatelaine.dev/services/authserver/internal/clients"
	"chatelaine.dev/services/authserver/internal/resource"
	"chatelaine.dev/services/authserver/internal/store"
)

const challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM" // RFC 7636, appendix B

// registered has clients by id.
type registered map[string]*store.Client

func (r registered) Client(_ context.Context, id string) (*store.Client, error) {
	if c, ok := r[id]; ok {
		return c, nil
	}
	return nil, fault.New(fault.NotFound, "")
}

func checker() *authorize.Checker {
	return &authorize.Checker{
		Clients: registered{
			"one": {ID: "one", RedirectURIs: []string{"http://localhost:1/cb"}, GrantTypes: []string{"authorization_code"}, Scopes: []string{"tools"}},
			"two": {ID: "two", RedirectURIs: []string{"https://a.example/cb", "https://b.example/cb"}, GrantTypes: []string{"authorization_code"}},
			"old": {ID: "old", RedirectURIs: []string{"https://a.example/cb"}, GrantTypes: []string{"client_credentials"}},
		},
		Policy: resource.New(&config.Deployment{
			Audience: "https://gw.example/mcp", Scopes: []string{"tools"}, AuthServer: &config.AuthServer{},
		}),
	}
}

func TestARequestWithoutARedirectURIGoesToTheOnlyOneThatIsRegistered(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]string{"one": "http://localhost:1/cb", "two": ""} {
		_, p, err := checker().Check(t.Context(), url.Values{
			"client_id": {id}, "response_type": {"code"}, "code_challenge": {challenge}, "code_challenge_method": {"S256"},
		})
		if p.RedirectURI != want || p.RedirectURISent || (err == nil) != (want != "") {
			t.Errorf("%s: %+v, %v", id, p, err)
		}
	}
}

func TestAClientIsHeldToTheGrantsThatItRegistered(t *testing.T) {
	t.Parallel()
	_, _, err := checker().Check(t.Context(), url.Values{
		"client_id": {"old"}, "redirect_uri": {"https://a.example/cb"}, "response_type": {"code"}, "code_challenge": {challenge}, "code_challenge_method": {"S256"},
	})
	if refusal, ok := errors.AsType[*authorize.ClientError](err); !ok || refusal.Code != "unauthorized_client" {
		t.Errorf("got %v", err)
	}
}

func FuzzNoRequestIsAnsweredAtAnAddressThatIsNotTheClients(f *testing.F) {
	f.Add("client_id=one&redirect_uri=http://localhost:2/cb&response_type=code&state=x&code_challenge_method=S256&code_challenge=" + challenge)
	f.Add("client_id=two&redirect_uri=https://evil.example/cb&response_type=code")
	f.Add("client_id=one&redirect_uri=http://localhost:1@evil.example/cb")
	c := checker()
	f.Fuzz(func(t *testing.T, query string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		client, p, err := c.Check(t.Context(), q)
		target := p.RedirectURI
		if refusal, ok := errors.AsType[*authorize.ClientError](err); ok {
			target, client = refusal.RedirectURI, c.Clients.(registered)[q.Get("client_id")]
		} else if err != nil {
			return
		}
		if !clients.MatchRedirectURI(client.RedirectURIs, target) {
			t.Errorf("%q is answered at %q", query, target)
		}
		if err == nil && (p.CodeChallenge == "" || len(p.Resources) == 0) {
			t.Errorf("%q passes without PKCE or resource: %+v", query, p)
		}
	})
}
