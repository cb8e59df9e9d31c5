package grants

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"mime"
	"net/http"
	"strings"

	"github.com/ory/fosite"

	"chatelaine.dev/internal/fault"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/authserver/internal/metrics"
	"chatelaine.dev/services/authserver/internal/store"
	"chatelaine.dev/services/authserver/internal/web"
)

// maxFormBytes bounds a request to these endpoints.
const maxFormBytes = 64 << 10

// Token is POST /oauth/token.
func (s *Service) Token(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	request, response, err := s.tokens(w, r)
	if err != nil {
		s.cfg.Metrics.Tokens(ctx, r.PostForm.Get("grant_type"), errorOf(err).ErrorField)
		s.refuse(w, r, err)
		return
	}
	outcome := metrics.Issued
	if sess, ok := request.GetSession().(*session); ok {
		s.audit(ctx, "token.issued", "success", &sess.grant, slog.String("grant_type", r.PostForm.Get("grant_type")))
		if sess.again != nil {
			outcome = metrics.Repeated
		}
	}
	s.cfg.Metrics.Tokens(ctx, r.PostForm.Get("grant_type"), outcome)
	s.provider.WriteAccessResponse(ctx, w, request, response)
}

// tokens checks a token request and carries it out.
func (s *Service) tokens(w http.ResponseWriter, r *http.Request) (fosite.AccessRequester, fosite.AccessResponder, error) {
	ctx := r.Context()
	if err := readForm(w, r); err != nil {
		return nil, nil, err
	}
	switch grant := r.PostForm.Get("grant_type"); grant {
	case "authorization_code", "refresh_token":
	case "":
		return nil, nil, fosite.ErrInvalidRequest.WithHint("grant_type is missing.")
	default:
		return nil, nil, fosite.ErrUnsupportedGrantType.WithHint("The grant types are authorization_code and refresh_token.")
	}
	request, err := s.provider.NewAccessRequest(ctx, r, newSession(store.Grant{}))
	if err != nil {
		return nil, nil, s.raced(ctx, r, err)
	}
	response, err := s.provider.NewAccessResponse(ctx, request)
	if err != nil {
		return nil, nil, s.raced(ctx, r, err)
	}
	return request, response, nil
}

// raced turns a code that another request consumed at the same time into what it
// is, a replay, and one that ended meanwhile into an ordinary refusal; other errors
// stay. The guard has checked whose the code is.
func (s *Service) raced(ctx context.Context, r *http.Request, err error) error {
	switch fault.ReasonOf(err) {
	case store.ReasonCodeUsed:
	case store.ReasonCodeOver, store.ReasonGrantNotPending:
		return fosite.ErrInvalidGrant.WithHint("The authorization code has expired, or its session has ended.").WithWrap(causeOf(err))
	default:
		return err
	}
	c, g, lookErr := s.cfg.Store.Code(ctx, s.hmac.AuthorizeCodeSignature(ctx, r.PostForm.Get("code")))
	if lookErr != nil {
		return lookErr
	}
	return s.replayed(ctx, c, g, r.PostForm)
}

// Revoke is POST /oauth/revoke (RFC 7009). Whatever token of a session is revoked,
// the session ends everywhere: without it its other tokens would be worth nothing.
func (s *Service) Revoke(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	g, err := s.presented(w, r)
	switch {
	case errors.Is(err, errUnknownToken): // section 2.2: not an error
	case errors.Is(err, errForeignToken): // section 2.1
		s.refuse(w, r, fosite.ErrUnauthorizedClient.WithHint("The token was issued to another client."))
		return
	case err != nil:
		s.refuse(w, r, err)
		return
	default:
		if err := s.endSession(ctx, &g.Grant, brokerv1.SessionEndReason_SESSION_END_REASON_CLIENT_REVOKED); err != nil {
			s.refuse(w, r, err)
			return
		}
	}
	w.WriteHeader(http.StatusOK)
}

// introspection is the answer of RFC 7662, section 2.2.
type introspection struct {
	Active    bool     `json:"active"`
	Scope     string   `json:"scope,omitempty"`
	ClientID  string   `json:"client_id,omitempty"`
	TokenType string   `json:"token_type,omitempty"`
	ExpiresAt int64    `json:"exp,omitempty"`
	IssuedAt  int64    `json:"iat,omitempty"`
	Subject   string   `json:"sub,omitempty"`
	Audience  []string `json:"aud,omitempty"`
	Issuer    string   `json:"iss,omitempty"`
	ID        string   `json:"jti,omitempty"`
}

// Introspect is POST /oauth/introspect (RFC 7662), for a client and its own tokens:
// what it learns of others' is that they are not active.
func (s *Service) Introspect(w http.ResponseWriter, r *http.Request) {
	p, err := s.presented(w, r)
	switch {
	case errors.Is(err, errUnknownToken), errors.Is(err, errForeignToken):
		web.JSON(w, http.StatusOK, introspection{})
		return
	case err != nil:
		s.refuse(w, r, err)
		return
	case p.Status != store.GrantActive || !p.alive:
		web.JSON(w, http.StatusOK, introspection{})
		return
	}
	web.JSON(w, http.StatusOK, p.about)
}

// presented is a token that a client has shown.
type presented struct {
	store.Grant
	alive bool
	about introspection
}

// What a client may have shown instead of a token of its own.
var (
	errUnknownToken = errors.New("unknown token")
	errForeignToken = errors.New("another client's token")
)

// presented authenticates the client and finds the grant of the token that it
// shows. token_type_hint is not needed: the two kinds look different.
func (s *Service) presented(w http.ResponseWriter, r *http.Request) (*presented, error) {
	ctx := r.Context()
	if err := readForm(w, r); err != nil {
		return nil, err
	}
	client, err := s.provider.AuthenticateClient(ctx, r, r.PostForm)
	if err != nil {
		return nil, err
	}
	token := r.PostForm.Get("token")
	if token == "" {
		return nil, fosite.ErrInvalidRequest.WithHint("token is missing.")
	}
	find := s.presentedRefreshToken
	if strings.Count(token, ".") == 2 {
		find = s.presentedAccessToken
	}
	p, err := find(ctx, token)
	if err != nil {
		return nil, err
	}
	if p.ClientID != client.GetID() {
		return nil, errForeignToken
	}
	return p, nil
}

func (s *Service) presentedRefreshToken(ctx context.Context, token string) (*presented, error) {
	t, g, err := s.lookup(ctx, token)
	if err != nil {
		if errors.Is(err, fosite.ErrInvalidGrant) {
			return nil, errUnknownToken
		}
		return nil, err
	}
	return &presented{
		Grant: *g, alive: !t.Used && !t.Expired,
		about: introspection{
			Active: true, Scope: scopeText(g.Scopes), ClientID: g.ClientID, TokenType: "refresh_token", ExpiresAt: t.ExpiresAt.Unix(),
			Subject: g.UserID, Audience: g.Resources, Issuer: s.cfg.Issuer,
		},
	}, nil
}

func (s *Service) presentedAccessToken(ctx context.Context, token string) (*presented, error) {
	c, err := (&accessTokens{issuer: s.cfg.Issuer, keys: s.cfg.Keys}).verify(token)
	if err != nil {
		if fault.KindOf(err) == fault.Unauthenticated {
			return nil, errUnknownToken
		}
		return nil, err
	}
	g, err := s.cfg.Store.GrantOfSession(ctx, c.SessionID)
	if err != nil {
		if fault.KindOf(err) == fault.NotFound {
			return nil, errUnknownToken
		}
		return nil, err
	}
	if g.ReadAt.Unix() >= c.ExpiresAt {
		return nil, errUnknownToken
	}
	return &presented{
		Grant: *g, alive: true,
		about: introspection{
			Active: true, Scope: c.Scope, ClientID: c.ClientID, TokenType: "Bearer", ExpiresAt: c.ExpiresAt, IssuedAt: c.IssuedAt,
			Subject: c.Subject, Audience: c.Audience, Issuer: c.Issuer, ID: c.ID,
		},
	}, nil
}

// readForm reads a form as RFC 6749, appendix B and section 3.2, wants it. Only
// resource may be repeated (RFC 8707, section 2).
func readForm(w http.ResponseWriter, r *http.Request) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/x-www-form-urlencoded" {
		return fosite.ErrInvalidRequest.WithHint("The body must be application/x-www-form-urlencoded.")
	}
	if err := web.ReadForm(w, r, maxFormBytes); err != nil {
		if fault.ReasonOf(err) == web.ReasonTooLarge {
			return &fosite.RFC6749Error{
				ErrorField: "invalid_request", DescriptionField: "The body is larger than 64 KiB.", CodeField: http.StatusRequestEntityTooLarge,
			}
		}
		return fosite.ErrInvalidRequest.WithHint("The body is not a form.").WithWrap(err)
	}
	for name, values := range r.PostForm {
		if len(values) > 1 && name != "resource" {
			return fosite.ErrInvalidRequest.WithHint("A parameter is sent more than once.")
		}
	}
	return nil
}

// refuse writes an error as RFC 6749, section 5.2, has it, and its cause to the
// log, once.
func (s *Service) refuse(w http.ResponseWriter, r *http.Request, err error) {
	e := errorOf(err)
	level, description := slog.LevelInfo, e.GetDescription()
	if e.CodeField >= http.StatusInternalServerError {
		level = slog.LevelError
		description += " (reference " + web.Reference(r.Context()) + ")"
	}
	attrs := []slog.Attr{slog.String("oauth_error", e.ErrorField), slog.String("client_id", clientIDOf(r)), slog.String("detail", e.GetDescription())}
	if f, ok := fault.As(err); ok {
		attrs = append(attrs, fault.Attr(f))
	} else if c := e.Cause(); c != nil {
		attrs = append(attrs, slog.String("cause", c.Error()))
	}
	s.cfg.Logger.LogAttrs(r.Context(), level, "request refused", attrs...)

	h := w.Header()
	switch e.CodeField {
	case http.StatusUnauthorized:
		if r.Header.Get("Authorization") != "" {
			h.Set("WWW-Authenticate", `Basic realm="chatelaine"`)
		}
	case http.StatusServiceUnavailable:
		h.Set("Retry-After", "2")
	case http.StatusTooManyRequests:
		h.Set("Retry-After", web.RetryAfter(fault.From(err).RetryAfter))
	}
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Pragma", "no-cache")
	w.WriteHeader(e.CodeField)
	_ = json.NewEncoder(w).Encode(map[string]string{ // the client went away: nobody to tell
		"error": e.ErrorField, "error_description": description,
	})
}

// errorOf is the one place where our errors become OAuth's. A fault of ours in the
// chain comes first: fosite takes a database that is down for an unknown client.
func errorOf(err error) *fosite.RFC6749Error {
	if f, ok := fault.As(err); ok {
		switch f.Kind {
		case fault.Exhausted:
			return &fosite.RFC6749Error{
				ErrorField: fosite.ErrTemporarilyUnavailable.ErrorField, CodeField: http.StatusTooManyRequests,
				DescriptionField: "Too many requests for this login; wait as Retry-After says.",
			}
		case fault.Unavailable, fault.Timeout, fault.Canceled, fault.Conflict:
			if f.Reason == store.ReasonCommit { // sent again it may count as a replay
				return fosite.ErrTemporarilyUnavailable.WithHint("It is not known whether the request was carried out; if it is refused when it is sent again, a new login is needed.")
			}
			return fosite.ErrTemporarilyUnavailable.WithHint("Send the same request again in a moment.")
		case fault.Internal:
			return fosite.ErrServerError
		}
	}
	var e *fosite.RFC6749Error
	if !errors.As(err, &e) || e.CodeField == 0 {
		return fosite.ErrServerError
	}
	return e
}

func clientIDOf(r *http.Request) string {
	id := r.PostForm.Get("client_id")
	if user, _, ok := r.BasicAuth(); ok {
		id = user
	}
	return id[:min(len(id), 64)]
}
