package optest

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
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

// Start runs a provider until the test ends. Its client has a secret.
func Start(tb testing.TB) *OP {
	tb.Helper()
	return start(tb, nil)
}

// StartWithKey is Start with a client that has this key, and no secret
// (private_key_jwt). key.KeyID is the kid that assertions must name.
func StartWithKey(tb testing.TB, key *jose.JSONWebKey) *OP {
	tb.Helper()
	return start(tb, key)
}

func start(tb testing.TB, key *jose.JSONWebKey) *OP {
	tb.Helper()
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	tb.Cleanup(server.Close)

	users := storage.NewUserStore(server.URL)
	st := storage.NewStorageWithClients(users, map[string]*storage.Client{
		ClientID: storage.WebClient(ClientID, ClientSecret, RedirectURI),
	})
	var kept op.Storage = st
	if key != nil {
		kept = &keyedStorage{st, key}
	}
	provider, err := op.NewProvider(&op.Config{
		CryptoKey: sha256.Sum256([]byte(tb.Name())), CryptoKeyId: "1",
		CodeMethodS256: true, AuthMethodPost: true, AuthMethodPrivateKeyJWT: key != nil, GrantTypeRefreshToken: true,
	}, kept, op.StaticIssuer(server.URL), op.WithAllowInsecure(), op.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		tb.Fatal(err)
	}
	var handler http.Handler = provider
	if key != nil { // the provider's own router takes assertions for some grants only
		handler = op.RegisterLegacyServer(op.NewLegacyServer(provider, *op.DefaultEndpoints), op.AuthorizeCallbackHandler(provider))
	}
	mux.Handle("/", handler)
	return &OP{
		Issuer: server.URL, storage: st, username: "test-user@127.0.0.1",
		callback: op.AuthCallbackURL(provider),
		client: &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		}},
	}
}

// keyedStorage is the library's, but that the client has a key.
type keyedStorage struct {
	*storage.Storage
	key *jose.JSONWebKey
}

// GetClientByClientID implements op.Storage.
func (s *keyedStorage) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	client, err := s.Storage.GetClientByClientID(ctx, id)
	if err != nil {
		return nil, err
	}
	return keyedClient{client}, nil
}

// GetKeyByIDAndClientID implements op.Storage.
func (s *keyedStorage) GetKeyByIDAndClientID(_ context.Context, keyID, clientID string) (*jose.JSONWebKey, error) {
	if keyID != s.key.KeyID || clientID != ClientID {
		return nil, errors.New("there is no such key")
	}
	return s.key, nil
}

type keyedClient struct{ op.Client }

// AuthMethod implements op.Client.
func (keyedClient) AuthMethod() oidc.AuthMethod { return oidc.AuthMethodPrivateKeyJWT }

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
