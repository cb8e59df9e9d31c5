package optest

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// The client and the person that every provider of this package knows.
const (
	ClientID     = "chatelaine"
	ClientSecret = "optest-client-secret"
	RedirectURI  = "http://localhost:8080/oauth/callback/corp"

	Subject = "id1"
	Name    = "Test User"

	password = "verysecure"
)

// OP is a running provider.
type OP struct {
	// Issuer is its URL.
	Issuer string

	storage  *storage.Storage
	username string
	callback func(context.Context, string) string
	client   *http.Client
}

// Start runs a provider until the test ends.
func Start(tb testing.TB) *OP {
	tb.Helper()
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	tb.Cleanup(server.Close)

	users := storage.NewUserStore(server.URL)
	st := storage.NewStorageWithClients(users, map[string]*storage.Client{
		ClientID: storage.WebClient(ClientID, ClientSecret, RedirectURI),
	})
	provider, err := op.NewProvider(&op.Config{
		CryptoKey: sha256.Sum256([]byte(tb.Name())), CryptoKeyId: "1",
		CodeMethodS256: true, AuthMethodPost: true, GrantTypeRefreshToken: true,
	}, st, op.StaticIssuer(server.URL), op.WithAllowInsecure(), op.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		tb.Fatal(err)
	}
	mux.Handle("/", provider)
	return &OP{
		Issuer: server.URL, storage: st, username: "test-user@127.0.0.1",
		callback: op.AuthCallbackURL(provider),
		client: &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		}},
	}
}

// Code logs the person in, as a browser would, and returns the authorization
// code that the client gets.
func (o *OP) Code(tb testing.TB, verifier, nonce string) string {
	tb.Helper()
	challenge := sha256.Sum256([]byte(verifier))
	login := o.location(tb, o.Issuer+"/authorize?"+url.Values{
		"client_id": {ClientID}, "redirect_uri": {RedirectURI}, "response_type": {"code"},
		"scope": {"openid profile email offline_access"}, "state": {"s"}, "nonce": {nonce},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(challenge[:])}, "code_challenge_method": {"S256"},
	}.Encode())
	id := login.Query().Get("authRequestID")
	if err := o.storage.CheckUsernamePassword(o.username, password, id); err != nil {
		tb.Fatal(err)
	}
	ctx := op.ContextWithIssuer(tb.Context(), o.Issuer)
	back := o.location(tb, o.callback(ctx, id))
	code := back.Query().Get("code")
	if code == "" {
		tb.Fatalf("no code in %v", back)
	}
	return code
}

func (o *OP) location(tb testing.TB, from string) *url.URL {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), http.MethodGet, from, http.NoBody)
	if err != nil {
		tb.Fatal(err)
	}
	resp, err := o.client.Do(req)
	if err != nil {
		tb.Fatal(err)
	}
	defer resp.Body.Close()
	to, err := resp.Location()
	if err != nil {
		tb.Fatalf("%s: status %d: %v", from, resp.StatusCode, err)
	}
	return to
}
