package octohub_test

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/oauth2"

	"chatelaine.dev/examples/browse"
	"chatelaine.dev/examples/internal/rules"
	"chatelaine.dev/examples/octohub"
	"chatelaine.dev/examples/people"
	"chatelaine.dev/internal/secret"
)

const (
	redirectURI  = "http://client.example/callback"
	clientSecret = "the client's secret"
)

type swap struct{ http.Handler }

// instance is a running octohub.
type instance struct {
	url, admin  string
	cfg         octohub.Config
	front, back *swap
}

func start(t *testing.T, change func(*octohub.Config)) *instance {
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
	served, err := octohub.LoadRules("")
	if err != nil {
		t.Fatal(err)
	}
	if err := rules.SetRedirectURIs(served.Registrations(), "chatelaine", []string{redirectURI}); err != nil {
		t.Fatal(err)
	}
	if err := rules.ResolveSecrets(&secret.Resolver{LookupEnv: func(string) (string, bool) { return clientSecret, true }}, served.Registrations()); err != nil {
		t.Fatal(err)
	}
	served.Clients = append(served.Clients, octohub.Client{Name: "Other", Registration: rules.Registration{ID: "other", Secret: secret.New("other"), RedirectURIs: []string{"http://other.example"}}})
	in.cfg = octohub.Config{
		BaseURL: srv.URL, Rules: served, People: everybody, Lifetimes: octohub.DefaultLifetimes(),
		StateFile: filepath.Join(t.TempDir(), "octohub.json"),
	}
	if change != nil {
		change(&in.cfg)
	}
	in.restart(t)
	return in
}

func (in *instance) restart(t *testing.T) {
	t.Helper()
	h, err := octohub.New(in.cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	in.front.Handler, in.back.Handler = h.Handler(), h.Admin()
}

func (in *instance) oauth() *oauth2.Config {
	return &oauth2.Config{
		ClientID: "chatelaine", ClientSecret: clientSecret, RedirectURL: redirectURI, Scopes: []string{"repo", "read:user"},
		Endpoint: oauth2.Endpoint{
			AuthURL: in.url + "/login/oauth/authorize", TokenURL: in.url + "/login/oauth/access_token",
			AuthStyle: oauth2.AuthStyleInParams,
		},
	}
}

func newPerson(t *testing.T, name string, press func(browse.Page, browse.Form) *browse.Button) *browse.Browser {
	t.Helper()
	b, err := browse.New(browse.Options{Account: browse.Account{Username: name, Password: name + "-password"}, Press: press})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (in *instance) signIn(t *testing.T, name string) *oauth2.Token {
	t.Helper()
	cfg, verifier := in.oauth(), oauth2.GenerateVerifier()
	got, err := newPerson(t, name, nil).Walk(t.Context(), cfg.AuthCodeURL("st", oauth2.S256ChallengeOption(verifier)), redirectURI)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := cfg.Exchange(t.Context(), got.URL.Query().Get("code"), oauth2.VerifierOption(verifier))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func (in *instance) refresh(t *testing.T, token string) (*oauth2.Token, error) {
	t.Helper()
	return in.oauth().TokenSource(t.Context(), &oauth2.Token{RefreshToken: token}).Token()
}

// do sends a request and returns status, headers and body.
func do(t *testing.T, method, target, contentType, body string, header ...string) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(text)
}

func (in *instance) api(t *testing.T, path, token string, out any) int {
	t.Helper()
	status, header, body := do(t, http.MethodGet, in.url+path, "", "", "Authorization", "Bearer "+token)
	if status == http.StatusOK {
		if err := json.Unmarshal([]byte(body), out); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
	} else if status == http.StatusUnauthorized && !strings.Contains(header.Get("WWW-Authenticate"), "invalid_token") {
		t.Errorf("WWW-Authenticate %q", header.Get("WWW-Authenticate"))
	}
	return status
}

const formType = "application/x-www-form-urlencoded"
