package corp

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"chatelaine.dev/examples/internal/faults"
	"chatelaine.dev/examples/internal/grants"
	"chatelaine.dev/examples/internal/snapshot"
	"chatelaine.dev/examples/people"
)

// maxRequests bounds how many authorization requests wait at one time.
const maxRequests = 10_000

var (
	_ op.Storage                            = (*storage)(nil)
	_ op.TokenExchangeStorage               = (*storage)(nil)
	_ op.TokenExchangeTokensVerifierStorage = (*storage)(nil)
	_ op.CanSetUserinfoFromRequest          = (*storage)(nil)
)

// errNotSupported answers what the provider does not do.
var errNotSupported = errors.New("corp: not supported")

// storage implements op.Storage over the state file.
type storage struct {
	issuer    string
	clients   map[string]client
	rules     []ExchangeRule
	people    *people.Directory
	lifetimes Lifetimes
	foreign   *foreignVerifier
	faults    *faults.Provider
	state     *snapshot.Store[state]
}

// Health implements op.Storage.
func (s *storage) Health(context.Context) error { return nil }

// GetClientByClientID implements op.Storage. An unknown client is an OAuth
// error, not a server error: some of the library's paths answer it as it is.
func (s *storage) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	c, ok := s.clients[id]
	if !ok {
		return nil, oidc.ErrInvalidClient().WithDescription("unknown client")
	}
	return c, nil
}

// AuthorizeClientIDSecret implements op.Storage, in constant time.
func (s *storage) AuthorizeClientIDSecret(_ context.Context, id, clientSecret string) error {
	c, known := s.clients[id]
	want, got := sha256.Sum256([]byte(c.Secret.Reveal())), sha256.Sum256([]byte(clientSecret))
	if subtle.ConstantTimeCompare(want[:], got[:]) != 1 || !known {
		return oidc.ErrInvalidClient().WithDescription("wrong client id or secret")
	}
	return nil
}

// CreateAuthRequest implements op.Storage. The library has checked the client,
// the redirect URI and the response type.
func (s *storage) CreateAuthRequest(ctx context.Context, in *oidc.AuthRequest, _ string) (op.AuthRequest, error) {
	switch s.faults.Authorize() {
	case "access_denied":
		return nil, oidc.ErrAccessDenied().WithDescription("switched-on fault")
	case "server_error":
		return nil, oidc.ErrServerError().WithDescription("switched-on fault")
	}
	// RFC 7636 section 4.4.1, and S256 alone: RFC 9700 section 2.1.1.
	if in.CodeChallenge == "" || in.CodeChallengeMethod != oidc.CodeChallengeMethodS256 {
		return nil, oidc.ErrInvalidRequest().WithDescription("code_challenge with code_challenge_method S256 is required")
	}
	for _, p := range in.Prompt {
		if p == oidc.PromptNone {
			return nil, oidc.ErrLoginRequired().WithDescription("corp asks for the password at each login")
		}
	}
	r := authRequest{
		ID:            grants.NewToken(""),
		Client:        in.ClientID,
		RedirectURI:   in.RedirectURI,
		State:         in.State,
		Nonce:         in.Nonce,
		Scopes:        in.Scopes,
		CodeChallenge: in.CodeChallenge,
		LoginHint:     in.LoginHint,
		Expires:       time.Now().Add(s.lifetimes.Request),
		Browser:       browserFrom(ctx),
	}
	err := s.state.Update(func(st *state) error {
		st.prune(time.Now())
		if len(st.Requests) >= maxRequests {
			return oidc.ErrServerError().WithDescription("too many people are signing in")
		}
		st.Requests[r.ID] = r
		return nil
	})
	return &r, err
}

// AuthRequestByID implements op.Storage.
func (s *storage) AuthRequestByID(_ context.Context, id string) (op.AuthRequest, error) {
	r, ok := s.request(id)
	if !ok {
		return nil, oidc.ErrInvalidRequest().WithDescription("this login has expired or was used")
	}
	return &r, nil
}

// request returns an authorization request that waits for its code.
func (s *storage) request(id string) (r authRequest, ok bool) {
	s.state.View(func(st *state) { r, ok = st.Requests[id] })
	return r, ok && r.CodeKey == "" && time.Now().Before(r.Expires)
}

// changeRequest applies fn to a request that waits for its code.
func (s *storage) changeRequest(id string, fn func(*authRequest)) (r authRequest, ok bool, err error) {
	err = s.state.Update(func(st *state) error {
		if r, ok = st.Requests[id]; !ok || r.CodeKey != "" || !time.Now().Before(r.Expires) {
			ok = false
			return nil
		}
		fn(&r)
		st.Requests[id] = r
		return nil
	})
	return r, ok, err
}

// SaveAuthCode implements op.Storage: one code for a request, ever.
func (s *storage) SaveAuthCode(_ context.Context, id, code string) error {
	_, ok, err := s.changeRequest(id, func(r *authRequest) {
		r.CodeKey = grants.Key(code)
		r.Expires = time.Now().Add(s.lifetimes.Code)
	})
	if err == nil && !ok {
		err = oidc.ErrInvalidRequest().WithDescription("this login has expired or was used")
	}
	return err
}

// AuthRequestByCode implements op.Storage. A code that comes a second time ends
// the grant that it was redeemed for (RFC 6749 section 4.1.2).
func (s *storage) AuthRequestByCode(_ context.Context, code string) (op.AuthRequest, error) {
	key, now := grants.Key(code), time.Now()
	var found authRequest
	s.state.View(func(st *state) {
		for _, r := range st.Requests {
			if r.CodeKey == key && now.Before(r.Expires) {
				found = r
			}
		}
	})
	if found.ID == "" {
		return nil, oidc.ErrInvalidGrant().WithDescription("unknown or expired code")
	}
	if found.Grant != "" {
		return nil, errors.Join(oidc.ErrInvalidGrant().WithDescription("the code was used before"), s.replayed(found.ID))
	}
	if s.faults.WrongNonce() {
		found.Nonce = "wrong-" + found.Nonce
	}
	return &found, nil
}

func (s *storage) replayed(id string) error {
	return s.state.Update(func(st *state) error {
		st.Ledger.Revoke(st.Requests[id].Grant)
		return nil
	})
}

// DeleteAuthRequest implements op.Storage. A redeemed request stays until its
// code's end, so that a replay is noticed.
func (s *storage) DeleteAuthRequest(_ context.Context, id string) error {
	return s.state.Update(func(st *state) error {
		if st.Requests[id].Grant == "" {
			delete(st.Requests, id)
		}
		return nil
	})
}

// SigningKey implements op.Storage.
func (s *storage) SigningKey(context.Context) (op.SigningKey, error) {
	var newest storedKey
	s.state.View(func(st *state) { newest = st.Keys[0] })
	key, err := newest.open()
	if err != nil {
		return nil, err
	}
	return signingKey{newest.ID, key}, nil
}

// SignatureAlgorithms implements op.Storage.
func (s *storage) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.RS256}, nil
}

// KeySet implements op.Storage: every key that may have signed a living token.
func (s *storage) KeySet(context.Context) ([]op.Key, error) {
	var stored []storedKey
	s.state.View(func(st *state) { stored = append(stored, st.Keys...) })
	keys := make([]op.Key, 0, len(stored))
	for _, k := range stored {
		private, err := k.open()
		if err != nil {
			return nil, err
		}
		keys = append(keys, publicKey{k.ID, &private.PublicKey})
	}
	return keys, nil
}

// GetKeyByIDAndClientID implements op.Storage: no client has keys here.
func (s *storage) GetKeyByIDAndClientID(context.Context, string, string) (*jose.JSONWebKey, error) {
	return nil, errNotSupported
}

// ValidateJWTProfileScopes implements op.Storage: there is no JWT profile grant.
func (s *storage) ValidateJWTProfileScopes(context.Context, string, []string) ([]string, error) {
	return nil, errNotSupported
}
