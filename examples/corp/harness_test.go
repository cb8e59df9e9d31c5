package corp_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"chatelaine.dev/examples/browse"
	"chatelaine.dev/examples/corp"
	"chatelaine.dev/examples/internal/rules"
	"chatelaine.dev/examples/people"
	"chatelaine.dev/internal/secret"
)

const redirectURI = "http://client.example/callback"

// swap is a server whose handler can be exchanged: a restart on the same port.
type swap struct{ http.Handler }

// instance is a running corp and the stock clients that use it.
type instance struct {
	url, admin string
	cfg        corp.Config
	front      *swap
	back       *swap
}

func start(t *testing.T, change func(*corp.Config)) *instance {
	t.Helper()
	in := &instance{front: &swap{http.NotFoundHandler()}, back: &swap{http.NotFoundHandler()}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { in.front.ServeHTTP(w, r) }))
	t.Cleanup(srv.Close)
	admin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { in.back.ServeHTTP(w, r) }))
	t.Cleanup(admin.Close)
	in.url, in.admin = srv.URL, admin.URL

	everybody, err := people.Default()
	if err != nil {
		t.Fatal(err)
	}
	served, err := corp.LoadRules("")
	if err != nil {
		t.Fatal(err)
	}
	if err := rules.SetRedirectURIs(served.Registrations(), "chatelaine", []string{redirectURI}); err != nil {
		t.Fatal(err)
	}
	resolver := &secret.Resolver{LookupEnv: func(name string) (string, bool) { return "secret of " + name, true }}
	if err := rules.ResolveSecrets(resolver, served.Registrations()); err != nil {
		t.Fatal(err)
	}
	in.cfg = corp.Config{
		Issuer: srv.URL, Rules: served, People: everybody, Lifetimes: corp.DefaultLifetimes(),
		StateFile: filepath.Join(t.TempDir(), "corp.json"),
	}
	if change != nil {
		change(&in.cfg)
	}
	in.restart(t)
	return in
}

// restart makes a new provider from the same configuration and state file.
func (in *instance) restart(t *testing.T) {
	t.Helper()
	p, err := corp.New(in.cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	in.front.Handler, in.back.Handler = p.Handler(), p.Admin()
}

func (in *instance) oauth(t *testing.T) (*oauth2.Config, *gooidc.Provider) {
	t.Helper()
	p, err := gooidc.NewProvider(t.Context(), in.url)
	if err != nil {
		t.Fatal(err)
	}
	endpoint := p.Endpoint()
	endpoint.AuthStyle = oauth2.AuthStyleInHeader // no second try with another style
	return &oauth2.Config{
		ClientID: "chatelaine", ClientSecret: "secret of CORP_IDP_CLIENT_SECRET", RedirectURL: redirectURI,
		Endpoint: endpoint, Scopes: []string{"openid", "profile", "email", "offline_access"},
	}, p
}

func newPerson(t *testing.T, name string) *browse.Browser {
	t.Helper()
	b, err := browse.New(browse.Options{Account: browse.Account{Username: name, Password: name + "-password"}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// signIn walks through the real pages and redeems the code.
func (in *instance) signIn(t *testing.T, name string) *oauth2.Token {
	t.Helper()
	cfg, _ := in.oauth(t)
	verifier := oauth2.GenerateVerifier()
	got, err := newPerson(t, name).Walk(t.Context(), cfg.AuthCodeURL("st", gooidc.Nonce("n1"), oauth2.S256ChallengeOption(verifier)), redirectURI)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := cfg.Exchange(t.Context(), got.URL.Query().Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// refresh sends one refresh request, whatever the token's expiry.
func (in *instance) refresh(t *testing.T, refreshToken string) (*oauth2.Token, error) {
	t.Helper()
	cfg, _ := in.oauth(t)
	return cfg.TokenSource(t.Context(), &oauth2.Token{RefreshToken: refreshToken}).Token()
}

// post sends a form, with Basic authentication where user is not empty.
func post(ctx context.Context, t *testing.T, target string, form url.Values, user, password string) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, target, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if user != "" {
		req.SetBasicAuth(url.QueryEscape(user), url.QueryEscape(password))
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]any{}
	if len(body) > 0 {
		if err := json.Unmarshal(body, &out); err != nil {
			out["text"] = string(body)
		}
	}
	return resp.StatusCode, out
}

func (in *instance) adminPost(t *testing.T, path, body string) {
	t.Helper()
	in.adminDo(t, http.MethodPost, path, body)
}

func (in *instance) adminDo(t *testing.T, method, path, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, in.admin+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		t.Fatalf("%s %s: %d %s", method, path, resp.StatusCode, text)
	}
}

// userinfo returns the status of a userinfo request and who it is about.
func (in *instance) userinfo(t *testing.T, accessToken string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, in.url+"/userinfo", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+accessToken)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var info struct {
		Name string `json:"preferred_username"`
	}
	if resp.StatusCode == http.StatusOK {
		if err := json.NewDecoder(resp.Body).Decode(&info); err != nil {
			t.Fatal(err)
		}
	} else if resp.Header.Get("WWW-Authenticate") == "" {
		t.Error("no WWW-Authenticate with the refusal")
	}
	return resp.StatusCode, info.Name
}
