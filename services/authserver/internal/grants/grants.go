package grants

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/ory/fosite"
	"github.com/ory/fosite/handler/oauth2"
	"github.com/ory/fosite/handler/pkce"
	"github.com/ory/fosite/token/hmac"
	"google.golang.org/grpc"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/internal/telemetry"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/authserver/internal/clients"
	"chatelaine.dev/services/authserver/internal/keys"
	"chatelaine.dev/services/authserver/internal/metrics"
	"chatelaine.dev/services/authserver/internal/resource"
	"chatelaine.dev/services/authserver/internal/store"
)

// DefaultGrace is how long after its rotation a refresh token may be presented
// again.
const DefaultGrace = time.Minute

// hmacKeyBytes is how much of a secret fosite uses.
const hmacKeyBytes = 32

// Broker is what the token endpoint asks of LoginService.
type Broker interface {
	ActivateSession(ctx context.Context, in *brokerv1.ActivateSessionRequest, opts ...grpc.CallOption) (*brokerv1.ActivateSessionResponse, error)
	TouchSession(ctx context.Context, in *brokerv1.TouchSessionRequest, opts ...grpc.CallOption) (*brokerv1.TouchSessionResponse, error)
}

// Config makes a Service.
type Config struct {
	Issuer string
	// HMACKeys sign codes and refresh tokens, newest first; 32 bytes each.
	HMACKeys []secret.Bytes
	// Lifespans of what is issued.
	CodeLifespan, AccessLifespan, RefreshLifespan time.Duration
	// Grace is how long after its rotation a refresh token may come again.
	Grace  time.Duration
	Keys   *keys.Set
	Policy *resource.Policy
	Store  *store.Store
	Broker Broker
	// Wake tells the outbox that there is work.
	Wake func()
	// Metrics may be nil.
	Metrics *metrics.Recorder
	Logger  *slog.Logger
}

// Service issues codes and tokens.
type Service struct {
	cfg      Config
	storage  *storage
	provider *fosite.Fosite
	hmac     *oauth2.HMACSHAStrategyUnPrefixed
}

// New returns a service. Errors are Invalid.
func New(cfg Config) (*Service, error) {
	if len(cfg.HMACKeys) == 0 {
		return nil, fault.New(fault.Invalid, "an HMAC secret is required")
	}
	for i, k := range cfg.HMACKeys {
		if k.Len() != hmacKeyBytes {
			return nil, fault.Newf(fault.Invalid, "HMAC key %d has %d bytes, want %d", i+1, k.Len(), hmacKeyBytes)
		}
	}
	s := &Service{cfg: cfg, storage: &storage{store: cfg.Store, codeLifespan: cfg.CodeLifespan}}
	fc := s.fositeConfig()
	s.hmac = oauth2.NewHMACSHAStrategyUnPrefixed(&hmac.HMACStrategy{Config: fc}, fc)
	code := &oauth2.AuthorizeExplicitGrantHandler{
		AccessTokenStrategy: &accessTokens{issuer: cfg.Issuer, keys: cfg.Keys}, RefreshTokenStrategy: s.hmac, AuthorizeCodeStrategy: s.hmac,
		CoreStorage: s.storage, TokenRevocationStorage: s.storage, Config: fc,
	}
	proof := &pkce.Handler{AuthorizeCodeStrategy: s.hmac, Storage: s.storage, Config: fc}
	fc.AuthorizeEndpointHandlers = fosite.AuthorizeEndpointHandlers{code, proof}
	fc.TokenEndpointHandlers = fosite.TokenEndpointHandlers{
		&replayGuard{Service: s}, code, proof, &activation{Service: s}, &refresh{Service: s, access: code.AccessTokenStrategy},
	}
	s.provider = fosite.NewOAuth2Provider(s.storage, fc)
	return s, nil
}

func (s *Service) fositeConfig() *fosite.Config {
	fc := &fosite.Config{
		AuthorizeCodeLifespan: s.cfg.CodeLifespan, AccessTokenLifespan: s.cfg.AccessLifespan, RefreshTokenLifespan: s.cfg.RefreshLifespan,
		// Every client must use PKCE with S256; plain stays off.
		EnforcePKCE: true,
		// Checked by package authorize, which knows that they are never refused.
		ScopeStrategy:            fosite.ExactScopeStrategy,
		AudienceMatchingStrategy: func([]string, []string) error { return nil },
		RedirectSecureChecker: func(_ context.Context, u *url.URL) bool {
			return clients.CheckRedirectURI(u.String(), true) == ""
		},
		OmitRedirectScopeParam: true,
		SanitationWhiteList:    []string{"redirect_uri", "code_challenge", "code_challenge_method"},
		// With or without offline_access: who registered the grant gets the token.
		RefreshTokenScopes:  []string{},
		ClientSecretsHasher: digestHasher{},
		AccessTokenIssuer:   s.cfg.Issuer,
		GlobalSecret:        s.cfg.HMACKeys[0].Reveal(),
		// No debug text ever reaches a client.
		SendDebugMessagesToClients: false,
	}
	for _, k := range s.cfg.HMACKeys[1:] {
		fc.RotatedGlobalSecrets = append(fc.RotatedGlobalSecrets, k.Reveal())
	}
	return fc
}

// digestHasher compares client secrets. They are 256 random bits, so a slow hash
// would protect nothing and cost every token request a quarter of a second.
type digestHasher struct{}

// Compare implements fosite.Hasher.
func (digestHasher) Compare(_ context.Context, hash, data []byte) error {
	if len(hash) == 0 || subtle.ConstantTimeCompare(hash, store.Digest(string(data))) != 1 {
		return errors.New("the client secret does not match")
	}
	return nil
}

// Hash implements fosite.Hasher.
func (digestHasher) Hash(_ context.Context, data []byte) ([]byte, error) {
	return store.Digest(string(data)), nil
}

// IssueCode implements chain.CodeIssuer: it stores the pending grant of a finished
// chain and returns the code that opens it.
func (s *Service) IssueCode(ctx context.Context, client *store.Client, req *store.AuthorizationRequest) (string, error) {
	if req.SessionID == "" || req.UserID == "" {
		return "", fault.New(fault.Internal, "the chain has no session or no user")
	}
	redirect, err := url.Parse(req.Params.RedirectURI)
	if err != nil {
		return "", fault.Wrap(fault.Internal, err, "the redirect URI was not checked")
	}
	ar := fosite.NewAuthorizeRequest()
	ar.ID = rand.Text()
	ar.RequestedAt = time.Now().UTC()
	ar.Client = asFositeClient(client)
	ar.ResponseTypes = fosite.Arguments{"code"}
	ar.RedirectURI = redirect
	ar.State = req.Params.State
	ar.Form = url.Values{"code_challenge": {req.Params.CodeChallenge}, "code_challenge_method": {"S256"}}
	if req.Params.RedirectURISent {
		ar.Form.Set("redirect_uri", req.Params.RedirectURI)
	}
	for _, scope := range req.Params.Scopes {
		ar.GrantScope(scope)
	}
	for _, r := range req.Params.Resources {
		ar.GrantAudience(r)
	}
	sess := newSession(store.Grant{
		ID: ar.ID, SessionID: req.SessionID, UserID: req.UserID, ClientID: client.ID,
		Scopes: req.Params.Scopes, Resources: req.Params.Resources,
	})
	sess.legs = req.Progress.Legs()
	response, err := s.provider.NewAuthorizeResponse(ctx, ar, sess)
	if err != nil {
		if f, ok := fault.As(err); ok {
			return "", f
		}
		return "", fault.Wrap(fault.Internal, err, "the code could not be issued")
	}
	return response.GetCode(), nil
}

// endSession ends a session for a reason that a client gave: its grant is dead at
// once, the broker hears of it within a second.
func (s *Service) endSession(ctx context.Context, g *store.Grant, reason brokerv1.SessionEndReason) error {
	// What the client does next must not decide whether the session ends.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	ended, err := s.cfg.Store.EndSession(ctx, g.SessionID, reason)
	if err != nil {
		return err
	}
	s.cfg.Wake()
	if ended {
		why := strings.ToLower(strings.TrimPrefix(reason.String(), "SESSION_END_REASON_"))
		s.audit(ctx, "session.ended", why, g)
		s.cfg.Metrics.SessionEnded(ctx, why)
	}
	return nil
}

const endTimeout = 5 * time.Second

// audit writes what happened with a grant. It names no person and no token.
func (s *Service) audit(ctx context.Context, action, outcome string, g *store.Grant, attrs ...slog.Attr) {
	telemetry.Audit(ctx, s.cfg.Logger, action, outcome,
		append(attrs, slog.String("client_id", g.ClientID), slog.String("session_id", g.SessionID))...)
}
