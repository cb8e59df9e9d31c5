package corp

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"chatelaine.dev/examples/internal/faults"
	"chatelaine.dev/examples/internal/page"
	"chatelaine.dev/examples/internal/snapshot"
)

const (
	loginPath     = "/login"
	authorizePath = "/authorize"
	callbackPath  = "/authorize/callback"
	tokenPath     = "/oauth/token"
	introspPath   = "/oauth/introspect"
	revokePath    = "/oauth/revoke"
	userinfoPath  = "/userinfo"
	keysPath      = "/keys"
)

// Provider is a running identity provider. Use New to make one.
type Provider struct {
	issuer  string
	op      *op.Provider
	crypto  op.Crypto
	storage *storage
	pages   *page.Renderer
	cookies page.Cookies
	faults  *faults.Provider
	log     *slog.Logger
}

// New makes a Provider, with its state from cfg.StateFile.
func New(cfg Config, log *slog.Logger) (*Provider, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	st, err := snapshot.Open(cfg.StateFile, newState)
	if err != nil {
		return nil, err
	}
	p := &Provider{
		issuer: cfg.Issuer,
		faults: faults.NewProvider(http.StatusBadRequest, func(status int, _ []byte) bool { return status == http.StatusOK }),
		log:    log,
	}
	if p.pages, err = page.NewRenderer("corp"); err != nil {
		return nil, err
	}
	if p.cookies, err = page.NewCookies("corp", cfg.Issuer); err != nil {
		return nil, err
	}
	p.storage = &storage{
		issuer:    cfg.Issuer,
		clients:   make(map[string]client, len(cfg.Rules.Clients)),
		rules:     cfg.Rules.Exchange,
		people:    cfg.People,
		lifetimes: cfg.Lifetimes,
		foreign:   newForeignVerifier(cfg.Rules.TrustedIssuers, cfg.Issuer+tokenPath, cfg.Client),
		faults:    p.faults,
		state:     st,
	}
	for _, c := range cfg.Rules.Clients {
		p.storage.clients[c.ID] = client{c, cfg.Lifetimes.IDToken, p.storage.faults.ClockAhead}
	}
	var key [32]byte
	st.View(func(s *state) { copy(key[:], s.CryptoKey) })
	// Authenticated encryption only: the library's default also accepts its
	// older unauthenticated mode.
	p.crypto = op.NewAES256GCMCrypto(key, "corp")
	p.op, err = op.NewProvider(&op.Config{
		CodeMethodS256:        true,
		AuthMethodPost:        true,
		GrantTypeRefreshToken: true,
		SupportedScopes:       []string{oidc.ScopeOpenID, oidc.ScopeProfile, oidc.ScopeEmail, oidc.ScopeOfflineAccess},
		SupportedClaims:       []string{"iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "azp", "amr", "at_hash", "preferred_username", "name", "email", "email_verified"},
	}, p.storage, op.StaticIssuer(cfg.Issuer), p.options()...)
	return p, err
}

func (p *Provider) options() []op.Option {
	options := []op.Option{
		op.WithCrypto(p.crypto),
		op.WithCORSOptions(nil), // the library's default lets any origin in, with cookies
		op.WithCustomEndpoints(
			op.NewEndpoint(authorizePath), op.NewEndpoint(tokenPath), op.NewEndpoint(userinfoPath),
			op.NewEndpoint(revokePath), op.DefaultEndpoints.EndSession, op.NewEndpoint(keysPath)),
		op.WithCustomIntrospectionEndpoint(op.NewEndpoint(introspPath)),
	}
	if strings.HasPrefix(p.issuer, "http:") {
		options = append(options, op.WithAllowInsecure())
	}
	return options
}

// Handler returns the provider's public endpoints. Only these are reachable:
// what the library has beside them (device flow, sign-out) is not.
func (p *Provider) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET "+oidc.DiscoveryEndpoint, p.discovery)
	mux.Handle("GET "+keysPath, p.op)

	front := http.NewServeMux()
	front.HandleFunc("GET "+authorizePath, p.authorize)
	front.HandleFunc("POST "+authorizePath, p.authorize)
	front.HandleFunc("GET "+callbackPath, p.callback)
	front.HandleFunc("GET "+loginPath, p.showLogin)
	front.Handle("POST "+loginPath, http.NewCrossOriginProtection().Handler(http.HandlerFunc(p.login)))
	for _, path := range []string{authorizePath, callbackPath, loginPath} {
		mux.Handle(path, p.withIssuer(front))
	}

	mux.Handle("POST "+tokenPath, back(p.tokenChecks(p.faults.Token(p.op))))
	mux.Handle("POST "+introspPath, back(p.op))
	mux.Handle("POST "+revokePath, back(p.op))
	mux.HandleFunc("GET "+userinfoPath, p.userinfo)
	mux.HandleFunc("POST "+userinfoPath, p.userinfo)
	return mux
}

// browserKey is the context key of the browser's id.
type browserKey struct{}

func browserFrom(ctx context.Context) string {
	id, _ := ctx.Value(browserKey{}).(string)
	return id
}

// authorize starts an authorization request and ties it to the browser.
func (p *Provider) authorize(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	b := p.cookies.Ensure(w, r)
	noStore(w)
	p.op.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), browserKey{}, b.ID())))
}

// callback is where a browser that has signed in gets its code.
func (p *Provider) callback(w http.ResponseWriter, r *http.Request) {
	if _, _, ok := p.loginRequest(w, r, r.URL.Query().Get("id")); !ok {
		return
	}
	noStore(w)
	p.op.ServeHTTP(w, r)
}

// loginRequest returns the authorization request of that id if it belongs to
// the browser that asks; otherwise it has answered.
func (p *Provider) loginRequest(w http.ResponseWriter, r *http.Request, id string) (authRequest, page.Browser, bool) {
	req, ok := p.storage.request(id)
	b := p.cookies.Known(r)
	if !ok || b.ID() == "" || b.ID() != req.Browser {
		p.pages.Show(w, http.StatusBadRequest, page.Page{
			Title: "This login cannot go on",
			Lead:  "It has expired, was used already, or was started in another browser. Go back to where you came from and start again.",
		})
		return authRequest{}, page.Browser{}, false
	}
	return req, b, true
}

func noStore(w http.ResponseWriter) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "no-referrer")
}

// markSignedIn records who signed in.
func (p *Provider) markSignedIn(id, user string) (bool, error) {
	_, ok, err := p.storage.changeRequest(id, func(r *authRequest) {
		r.User = user
		r.AuthTime = time.Now()
	})
	return ok, err
}
