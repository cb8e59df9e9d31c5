package corp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	gooidc "github.com/coreos/go-oidc/v3/oidc"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"chatelaine.dev/examples/internal/grants"
)

// maxForeignLife bounds how long a foreign subject token may live.
const maxForeignLife = 10 * time.Minute

// ValidateTokenExchangeRequest implements op.TokenExchangeStorage (RFC 8693
// section 2.1). The library has checked the client's secret, and the signature
// and expiry of the subject token where that is a JWT.
func (s *storage) ValidateTokenExchangeRequest(_ context.Context, req op.TokenExchangeRequest) error {
	c := s.clients[req.GetClientID()]
	if !slices.Contains(c.Grants, oidc.GrantTypeTokenExchange) {
		return oidc.ErrUnauthorizedClient().WithDescription("this client may not exchange tokens")
	}
	switch req.GetRequestedTokenType() {
	case "":
		req.SetRequestedTokenType(oidc.AccessTokenType)
	case oidc.AccessTokenType:
	default:
		return oidc.ErrInvalidRequest().WithDescription("only access tokens are issued")
	}
	if err := actorAllowed(req); err != nil {
		return err
	}
	rule, err := s.rule(req)
	if err != nil {
		return err
	}
	switch scopes := req.GetScopes(); {
	case len(scopes) == 0:
		req.SetCurrentScopes(rule.Scopes)
	case !grants.Subset(scopes, rule.Scopes):
		return oidc.ErrInvalidScope().WithDescription("a scope is not allowed for this audience")
	}
	person, err := s.subject(req, rule)
	if err != nil {
		return err
	}
	req.SetSubject(person)
	return nil
}

// rule finds what allows the client this target; without one it is refused
// (RFC 8693 section 2.2.2, invalid_target).
func (s *storage) rule(req op.TokenExchangeRequest) (ExchangeRule, error) {
	audience := req.GetAudience()
	if len(req.GetResourses()) != 0 || len(audience) != 1 {
		return ExchangeRule{}, oidc.ErrInvalidTarget().WithDescription("name exactly one audience, and no resource")
	}
	i := slices.IndexFunc(s.rules, func(r ExchangeRule) bool {
		return r.Client == req.GetClientID() && r.Audience == audience[0]
	})
	if i < 0 {
		return ExchangeRule{}, oidc.ErrInvalidTarget().WithDescription("this client may not have tokens for that audience")
	}
	return s.rules[i], nil
}

// subject returns the corp id of the person whom the subject token stands for.
func (s *storage) subject(req op.TokenExchangeRequest, rule ExchangeRule) (string, error) {
	// RFC 8693 section 2.2.2: an invalid subject token is an invalid_request.
	invalid := oidc.ErrInvalidRequest().WithDescription("subject_token is invalid")
	switch req.GetExchangeSubjectTokenType() {
	case oidc.AccessTokenType, oidc.JWTTokenType:
	default:
		return "", oidc.ErrInvalidRequest().WithDescription("subject_token_type must be access_token or jwt")
	}
	claims := req.GetExchangeSubjectTokenClaims()
	if claims == nil {
		// One of corp's own opaque tokens. The library knows that corp made it,
		// not that it is alive, nor whose it is.
		_, g, err := s.accessToken(req.GetExchangeSubjectTokenIDOrToken())
		if err != nil || g.User != req.GetExchangeSubject() {
			return "", invalid
		}
		if !slices.Contains(rule.SubjectClients, g.Client) {
			return "", oidc.ErrInvalidRequest().WithDescription("tokens of that client cannot be exchanged")
		}
		return s.person(g.User, invalid)
	}
	issuer, _ := claims["iss"].(string)
	if issuer == s.issuer {
		// An exchanged token or an ID token of ours: a token for one audience
		// must not be turned into one for another.
		return "", invalid
	}
	var linked string
	s.state.View(func(st *state) { linked = st.Links[linkKey(issuer, req.GetExchangeSubject())] })
	if linked == "" {
		return "", oidc.ErrInvalidRequest().WithDescription("the subject is not linked to anybody here")
	}
	return s.person(linked, invalid)
}

func (s *storage) person(id string, invalid error) (string, error) {
	if _, ok := s.people.ByCorpID(id); !ok {
		return "", invalid
	}
	return id, nil
}

// CreateTokenExchangeRequest implements op.TokenExchangeStorage: nothing is kept.
func (s *storage) CreateTokenExchangeRequest(context.Context, op.TokenExchangeRequest) error {
	return nil
}

// GetPrivateClaimsFromTokenExchangeRequest implements op.TokenExchangeStorage:
// what the audience needs to know of the person, and who acts (section 4.1).
func (s *storage) GetPrivateClaimsFromTokenExchangeRequest(_ context.Context, req op.TokenExchangeRequest) (map[string]any, error) {
	p, ok := s.people.ByCorpID(req.GetSubject())
	if !ok {
		return nil, oidc.ErrInvalidRequest().WithDescription("subject_token is invalid")
	}
	return map[string]any{
		"scope":              oidc.SpaceDelimitedArray(req.GetScopes()),
		"preferred_username": p.Username,
		"name":               p.Name,
		"act":                act(req),
	}, nil
}

// actorAllowed refuses an actor token (section 2.1) that is none of a trusted issuer's.
func actorAllowed(req op.TokenExchangeRequest) error {
	switch {
	case req.GetExchangeActorTokenType() == "":
		return nil
	case req.GetExchangeActorTokenType() != oidc.JWTTokenType:
		return oidc.ErrInvalidRequest().WithDescription("actor_token_type must be jwt")
	case actorIssuer(req) == "" || req.GetExchangeActor() == "":
		return oidc.ErrInvalidRequest().WithDescription("actor_token is not one of a trusted issuer")
	}
	return nil
}

func actorIssuer(req op.TokenExchangeRequest) string {
	issuer, _ := req.GetExchangeActorTokenClaims()["foreign_iss"].(string)
	return issuer
}

// act says who acts for the person (section 4.1): whom the actor token names, whose
// issuer tells it from others of that name, or else the client that asks.
func act(req op.TokenExchangeRequest) map[string]any {
	if issuer := actorIssuer(req); issuer != "" {
		return map[string]any{"iss": issuer, "sub": req.GetExchangeActor()}
	}
	return map[string]any{"sub": req.GetClientID()}
}

// SetUserinfoFromTokenExchangeRequest implements op.TokenExchangeStorage: no ID
// token comes out of an exchange here.
func (s *storage) SetUserinfoFromTokenExchangeRequest(context.Context, *oidc.UserInfo, op.TokenExchangeRequest) error {
	return errNotSupported
}

// VerifyExchangeSubjectToken implements op.TokenExchangeTokensVerifierStorage.
// The library calls it for what is not a token of corp's own.
func (s *storage) VerifyExchangeSubjectToken(ctx context.Context, token string, _ oidc.TokenType) (id, subject string, claims map[string]any, err error) {
	t, err := s.foreign.verify(ctx, token)
	if err != nil {
		return "", "", nil, err
	}
	return "", t.Subject, map[string]any{"iss": t.Issuer}, nil
}

// VerifyExchangeActorToken implements op.TokenExchangeTokensVerifierStorage.
func (s *storage) VerifyExchangeActorToken(ctx context.Context, token string, _ oidc.TokenType) (id, actor string, claims map[string]any, err error) {
	t, err := s.foreign.verify(ctx, token)
	if err != nil {
		return "", "", nil, err
	}
	return "", t.Subject, map[string]any{"foreign_iss": t.Issuer}, nil
}

// foreignVerifier checks JWTs of trusted issuers.
type foreignVerifier struct{ verifiers []*gooidc.IDTokenVerifier }

func newForeignVerifier(trusted []TrustedIssuer, audience string, client *http.Client) *foreignVerifier {
	f := &foreignVerifier{}
	// The key set keeps this context for its own requests.
	ctx := gooidc.ClientContext(context.Background(), client)
	for _, t := range trusted {
		f.verifiers = append(f.verifiers, gooidc.NewVerifier(t.Issuer, gooidc.NewRemoteKeySet(ctx, t.JWKSURL), &gooidc.Config{
			ClientID:             audience,
			SupportedSigningAlgs: []string{gooidc.ES256, gooidc.RS256, gooidc.EdDSA},
		}))
	}
	return f
}

// verify checks issuer, signature, audience and times.
func (f *foreignVerifier) verify(ctx context.Context, token string) (*gooidc.IDToken, error) {
	errs := []error{errors.New("corp: no trusted issuer accepts the token")}
	for _, v := range f.verifiers {
		t, err := v.Verify(ctx, token)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if t.Subject == "" || t.IssuedAt.IsZero() || t.Expiry.Sub(t.IssuedAt) > maxForeignLife {
			return nil, fmt.Errorf("corp: the foreign token has no subject, or lives longer than %v", maxForeignLife)
		}
		return t, nil
	}
	return nil, errors.Join(errs...)
}
