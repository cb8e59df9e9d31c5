package credential

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	authserverv1 "chatelaine.dev/proto/authserver/v1"
	"chatelaine.dev/services/tokenbroker/internal/exchange"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/refresh"
	"chatelaine.dev/services/tokenbroker/internal/upstream"
)

const (
	authorization = "Authorization"

	// staticRecheck is how long a person's gateway may keep a static credential: no
	// event tells that its secret was replaced.
	staticRecheck = 5 * time.Minute
	// mintTimeout bounds the call to the authserver.
	mintTimeout = 5 * time.Second
)

// open makes the credential that the backend's strategy asks for.
func (s *Service) open(ctx context.Context, r *request) (credential, error) {
	switch r.backend.Strategy.Type {
	case config.StrategyUpstreamInject:
		return s.inject(ctx, r)
	case config.StrategyTokenExchange:
		return s.exchange(ctx, r)
	case config.StrategyHeaderInjection, config.StrategyBearerToken:
		return s.static(ctx, r), nil
	default: // unauthenticated: Plans.Prepare refuses what it does not know
		return credential{version: version{kind: kindNone}, position: r.caller.position}, nil
	}
}

// inject sends the connection's own token.
func (s *Service) inject(ctx context.Context, r *request) (credential, error) {
	provider := r.backend.Strategy.UpstreamInject.Provider
	t, position, err := s.connection(ctx, r, provider)
	if err != nil {
		return credential{}, err
	}
	return credential{
		header: authorization, value: "Bearer " + t.AccessToken.Reveal(),
		expiresAt: usableUntil(t.ExpiresAt, s.cfg.Now()), connectionID: t.ConnectionID, provider: provider,
		version:  version{kind: kindConnection, connection: t.ConnectionID, number: t.Version},
		position: position,
	}, nil
}

// usableUntil is a margin before a token's end: ten seconds, or a quarter of what
// is left of it.
func usableUntil(expiry, now time.Time) time.Time {
	if expiry.IsZero() {
		return expiry
	}
	return expiry.Add(-min(expiryMargin, max(0, expiry.Sub(now)/4)))
}

// connection opens what the session has at a provider, as the caller's gateway
// is configured.
func (s *Service) connection(ctx context.Context, r *request, provider string) (refresh.Token, int64, error) {
	k, err := s.tokenKey(r, provider)
	if err != nil {
		return refresh.Token{}, 0, err
	}
	t, position, err := s.cfg.Memory.token(ctx, k)
	if err != nil {
		return refresh.Token{}, 0, err
	}
	return t, position, owned(&t, r, k)
}

// fresh is connection without the memory.
func (s *Service) fresh(ctx context.Context, r *request, provider string) (refresh.Token, error) {
	k, err := s.tokenKey(r, provider)
	if err != nil {
		return refresh.Token{}, err
	}
	t, err := s.cfg.Tokens.Token(ctx, k.session, k.provider)
	if err != nil {
		return refresh.Token{}, err
	}
	return t, owned(&t, r, k)
}

// tokenKey names what the session has at a provider of the gateway's
// configuration. A gateway with an older one does not get, for an older backend,
// tokens of what the provider's name stands for by now.
func (s *Service) tokenKey(r *request, provider string) (tokenKey, error) {
	realm, ok := realmOf(r.plan.deployment, provider)
	if !ok {
		return tokenKey{}, configUnknown()
	}
	if now, ok := realmOf(s.cfg.Configs.Current().Deployment, provider); !ok || now != realm {
		return tokenKey{}, configUnknown()
	}
	return tokenKey{r.caller.sessionID, provider, realm}, nil
}

func realmOf(d *config.Deployment, provider string) (string, bool) {
	p, ok := d.Provider(provider)
	if !ok {
		return "", false
	}
	return upstream.RealmOf(p), true
}

// owned is a second look: the token is this caller's, and of the provider that
// the gateway's configuration means.
func owned(t *refresh.Token, r *request, k tokenKey) error {
	switch {
	case t.UserID != r.caller.userID:
		return fault.Wrap(fault.Internal, errOtherUser, "")
	case t.Realm != k.realm:
		return configUnknown() // the configuration was swapped this very moment
	}
	return nil
}

var errOtherUser = errors.New("a session opened another user's connection")

// static sends a secret of the deployment.
func (s *Service) static(ctx context.Context, r *request) credential {
	st := r.backend.static
	value, tag, err := st.current(false)
	if err != nil {
		s.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "a static credential cannot be read again; its last value stays in use",
			slog.String("backend", r.backend.Name), fault.Attr(err))
	}
	c := credential{
		header: st.header, value: st.scheme + value.Reveal(),
		version: version{kind: kindStatic, tag: tag}, position: r.caller.position,
	}
	if r.caller.sessionID != "" {
		c.expiresAt = s.cfg.Now().Add(staticRecheck)
	}
	return c
}

// exchange sends a token that a token service made of the caller's.
func (s *Service) exchange(ctx context.Context, r *request) (credential, error) {
	strategy := r.backend.Strategy.TokenExchange
	c := credential{header: strategy.HeaderName, provider: strategy.SubjectProvider, position: r.caller.position}
	subject, err := s.subject(ctx, r, &c)
	if err != nil {
		return credential{}, err
	}
	token, err := r.backend.exchange.Token(ctx, subject)
	if err != nil {
		return credential{}, exchangeFault(err, r.backend.Name, strategy.SubjectProvider)
	}
	if c.connectionID != "" {
		s.forced.accepted(forcedKey{connection: c.connectionID, exchange: r.backend.Strategy.Config})
	}
	c.value = token.AccessToken.Reveal()
	if c.header == authorization {
		c.value = "Bearer " + c.value
	}
	c.expiresAt = token.AskAgainAt(s.cfg.Now())
	c.version = version{kind: kindExchange, connection: c.connectionID, number: token.Version, generation: token.Generation}
	return c, nil
}

// subject is whose token is exchanged.
func (s *Service) subject(ctx context.Context, r *request, c *credential) (exchange.Subject, error) {
	strategy := r.backend.Strategy.TokenExchange
	switch {
	case strategy.SubjectProvider != "":
		t, position, err := s.connection(ctx, r, strategy.SubjectProvider)
		if err != nil {
			return exchange.Subject{}, err
		}
		c.connectionID, c.position = t.ConnectionID, position
		return s.connectionSubject(r, &t), nil
	case minted(r.plan.deployment, strategy):
		return exchange.Subject{
			Key: actedBy(r, exchange.SessionKey(r.caller.sessionID)), Actor: s.actor(r), Position: r.caller.position,
			Token: func(ctx context.Context) (secret.String, error) { return s.mint(ctx, r) },
		}, nil
	}
	return exchange.Subject{ // an issuer of somebody else's: the token that it gave to the caller
		Key: exchange.CallerKey(r.caller.token), NotAfter: r.caller.expiry,
		Token: func(context.Context) (secret.String, error) { return r.caller.token, nil },
	}, nil
}

// connectionSubject is a connection's token, which can be renewed when the token
// service does not accept it.
func (s *Service) connectionSubject(r *request, t *refresh.Token) exchange.Subject {
	strategy := r.backend.Strategy.TokenExchange
	provider := strategy.SubjectProvider
	return exchange.Subject{
		Key: actedBy(r, exchange.ConnectionKey(t.ConnectionID)), Version: t.Version, Actor: s.actor(r), Position: t.ObservedPosition,
		Token: func(context.Context) (secret.String, error) {
			token := t.AccessToken
			switch strategy.SubjectTokenType {
			case config.TokenTypeIDToken:
				token = t.IDToken
			case config.TokenTypeRefreshToken:
				token = t.RefreshToken
			}
			if token.IsZero() {
				return secret.String{}, fault.Newf(fault.Precondition, "%s asks for a new login: there is no token of that type to exchange", provider).
					WithReason(reason.ReauthenticationRequired, reason.Provider, provider)
			}
			return token, nil
		},
		Renew: func(ctx context.Context) (exchange.Subject, bool, error) {
			forced := forcedKey{connection: t.ConnectionID, exchange: r.backend.Strategy.Config}
			if !s.forced.may(forced, t.Version) {
				return exchange.Subject{}, false, nil
			}
			renewed, err := s.renew(ctx, r, provider, t)
			if err != nil || !renewed {
				return exchange.Subject{}, false, err
			}
			fresh, err := s.fresh(ctx, r, provider)
			if err != nil { // the person's other sessions share this exchange, and may be well
				return exchange.Subject{}, false, exchange.OfCaller(err)
			}
			if fresh.ConnectionID != t.ConnectionID {
				return exchange.Subject{}, false, nil // linked anew meanwhile: the next call sees it
			}
			s.forced.note(forced, fresh.Version)
			return s.connectionSubject(r, &fresh), true, nil
		},
	}
}

// renew forces one renewal of the version that t has.
func (s *Service) renew(ctx context.Context, r *request, provider string, t *refresh.Token) (bool, error) {
	renewed, err := s.cfg.Tokens.Renew(ctx, t.ConnectionID, t.Version)
	if renewed || err != nil {
		s.cfg.Memory.forget(tokenKey{r.caller.sessionID, provider, t.Realm})
	}
	return renewed, err
}

// mint gets a token that says who the caller is, for one token service. Plans
// without a Minter have no such exchange.
func (s *Service) mint(ctx context.Context, r *request) (secret.String, error) {
	ctx, cancel := context.WithTimeout(ctx, mintTimeout)
	defer cancel()
	out, err := s.cfg.Plans.cfg.Minter.MintSubjectToken(ctx, &authserverv1.MintSubjectTokenRequest{
		SessionId: r.caller.sessionID, UserId: r.caller.userID,
		Audience: r.backend.Strategy.TokenExchange.TokenURL,
	})
	if err != nil {
		return secret.String{}, notMinted(err, "a subject token")
	}
	return secret.New(out.GetToken()), nil
}

// actor gets a token that says which client acts, where the strategy sends one. The
// authserver knows the client of the session; it is not told.
func (s *Service) actor(r *request) func(context.Context) (secret.String, error) {
	strategy := r.backend.Strategy.TokenExchange
	if !strategy.MintActor {
		return nil
	}
	return func(ctx context.Context) (secret.String, error) {
		ctx, cancel := context.WithTimeout(ctx, mintTimeout)
		defer cancel()
		out, err := s.cfg.Plans.cfg.Minter.MintActorToken(ctx, &authserverv1.MintActorTokenRequest{
			SessionId: r.caller.sessionID, UserId: r.caller.userID, Audience: strategy.TokenURL,
		})
		if err != nil {
			return secret.String{}, notMinted(err, "an actor token")
		}
		return secret.New(out.GetToken()), nil
	}
}

// actedBy is the key of a subject, or of what one client does for it.
func actedBy(r *request, key string) string {
	if r.backend.Strategy.TokenExchange.MintActor {
		return exchange.ActedBy(key, r.caller.clientID)
	}
	return key
}

// notMinted is about the caller alone where their session has ended: others, who share
// the exchange, may be well.
func notMinted(err error, what string) error {
	if f := fault.From(err); f.Reason == reason.SessionEnded {
		return exchange.OfCaller(f)
	}
	return fault.Wrap(fault.Unavailable, err, "the authorization server cannot mint "+what+" at the moment").
		WithReason(reason.UpstreamUnavailable)
}

// exchangeFault says what the caller can do about a failed exchange: log in
// again where the subject token is what the service refuses, otherwise wait for
// whoever configures it.
func exchangeFault(err error, backend, provider string) error {
	f, ok := fault.As(err)
	if !ok || f.Reason != reason.UpstreamRefused {
		return err
	}
	code := f.Metadata[reason.OAuthError]
	if provider != "" && (code == "invalid_grant" || code == "invalid_token") {
		return fault.Wrap(fault.Precondition, err, provider+" asks for a new login").
			WithReason(reason.ReauthenticationRequired, reason.Provider, provider)
	}
	e := fault.Wrap(fault.Unavailable, err, "the token service refuses to exchange a token for backend "+backend).
		WithReason(reason.UpstreamUnavailable)
	if provider != "" {
		e = e.WithReason(reason.UpstreamUnavailable, reason.Provider, provider)
	}
	return e
}
