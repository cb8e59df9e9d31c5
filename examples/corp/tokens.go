package corp

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"chatelaine.dev/examples/internal/grants"
)

// CreateAccessToken implements op.Storage: a login without offline_access, or a
// token exchange.
func (s *storage) CreateAccessToken(_ context.Context, req op.TokenRequest) (string, time.Time, error) {
	switch r := req.(type) {
	case *authRequest:
		access, _, expires, err := s.redeem(r, false)
		return access, expires, err
	case op.TokenExchangeRequest:
		return grants.NewToken(""), time.Now().Add(s.lifetimes.ExchangedToken), nil
	}
	return "", time.Time{}, oidc.ErrUnsupportedGrantType()
}

// CreateAccessAndRefreshTokens implements op.Storage: a login with
// offline_access, or a refresh.
func (s *storage) CreateAccessAndRefreshTokens(_ context.Context, req op.TokenRequest, current string) (access, refresh string, expires time.Time, err error) {
	switch r := req.(type) {
	case *authRequest:
		return s.redeem(r, true)
	case *refreshRequest:
		return s.rotate(r, current)
	}
	return "", "", time.Time{}, oidc.ErrUnsupportedGrantType()
}

// redeem turns a code into a grant, once: of two that come at the same time the
// second is a replay.
func (s *storage) redeem(r *authRequest, offline bool) (access, refresh string, expires time.Time, err error) {
	now := time.Now()
	replay := false
	err = s.state.Update(func(st *state) error {
		stored, ok := st.Requests[r.ID]
		if !ok {
			return oidc.ErrInvalidGrant().WithDescription("unknown or expired code")
		}
		if stored.Grant != "" {
			replay = true
			st.Ledger.Revoke(stored.Grant)
			return nil
		}
		stored.Grant = st.Ledger.Open(grants.Grant{User: stored.User, Client: stored.Client, Scopes: stored.Scopes, AuthTime: stored.AuthTime})
		st.Requests[r.ID] = stored
		access, expires = s.putAccess(st, stored.Grant, stored.Scopes, now)
		if offline {
			refresh = s.putRefresh(st, stored.Grant, now)
		}
		return nil
	})
	if replay {
		return "", "", time.Time{}, errors.Join(oidc.ErrInvalidGrant().WithDescription("the code was used before"), err)
	}
	return access, refresh, expires, err
}

// rotate spends a refresh token and issues its successor (RFC 9700 section 4.14.2).
func (s *storage) rotate(r *refreshRequest, current string) (access, refresh string, expires time.Time, err error) {
	now := time.Now()
	var spent error
	err = s.state.Update(func(st *state) error {
		var grant string
		if grant, spent = st.Ledger.Spend(grants.Key(current), now, s.lifetimes.RefreshGrace); spent != nil {
			return nil // a reuse has ended the family: that is to be written
		}
		access, expires = s.putAccess(st, grant, r.scopes, now)
		refresh = s.putRefresh(st, grant, now)
		return nil
	})
	if spent != nil {
		return "", "", time.Time{}, errors.Join(oidc.ErrInvalidGrant().WithParent(spent), err)
	}
	return access, refresh, expires, err
}

// putAccess and putRefresh work on the state under its lock.
func (s *storage) putAccess(st *state, grant string, scopes []string, now time.Time) (id string, expires time.Time) {
	id, expires = grants.NewToken(""), now.Add(s.lifetimes.AccessToken)
	st.Ledger.PutAccess(id, grant, scopes, expires)
	return id, expires
}

func (s *storage) putRefresh(st *state, grant string, now time.Time) string {
	token := grants.NewToken("")
	st.Ledger.PutRefresh(grants.Key(token), grant, now.Add(s.lifetimes.RefreshToken))
	st.Ledger.Prune(now)
	return token
}

// TokenRequestByRefreshToken implements op.Storage. The library has checked the
// client's secret, and checks afterwards that the token is this client's.
func (s *storage) TokenRequestByRefreshToken(_ context.Context, token string) (req op.RefreshTokenRequest, err error) {
	s.state.View(func(st *state) {
		var g grants.Grant
		if _, g, err = st.Ledger.LookupRefresh(grants.Key(token), time.Now()); err == nil {
			req = &refreshRequest{grant: g, scopes: g.Scopes}
		}
	})
	if err != nil {
		return nil, oidc.ErrInvalidGrant().WithParent(err)
	}
	return req, nil
}

// TerminateSession implements op.Storage: signing out ends the person's grants
// at that client.
func (s *storage) TerminateSession(_ context.Context, user, clientID string) error {
	return s.state.Update(func(st *state) error {
		st.Ledger.RevokeWhere(func(g grants.Grant) bool { return g.User == user && g.Client == clientID })
		return nil
	})
}

// GetRefreshTokenInfo implements op.Storage. What it returns as the token's id
// comes back to RevokeToken.
func (s *storage) GetRefreshTokenInfo(_ context.Context, _, token string) (user, id string, err error) {
	s.state.View(func(st *state) {
		_, g, lookupErr := st.Ledger.LookupRefresh(grants.Key(token), time.Now())
		if user, id = g.User, grants.Key(token); lookupErr != nil {
			err = op.ErrInvalidRefreshToken
		}
	})
	return user, id, err
}

// RevokeToken implements op.Storage (RFC 7009): an access token ends alone, a
// refresh token takes its family along. What is unknown is revoked already.
func (s *storage) RevokeToken(_ context.Context, id, _, clientID string) *oidc.Error {
	refused := false
	err := s.state.Update(func(st *state) error {
		now := time.Now()
		if _, g, err := st.Ledger.LookupAccess(id, now); err == nil {
			if refused = g.Client != clientID; !refused {
				delete(st.Ledger.Access, id)
			}
			return nil
		}
		if r, g, err := st.Ledger.LookupRefresh(id, now); err == nil {
			if refused = g.Client != clientID; !refused {
				st.Ledger.Revoke(r.Grant)
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return oidc.ErrServerError().WithParent(err)
	case refused: // RFC 7009 section 2.1
		return oidc.ErrInvalidGrant().WithDescription("the token was issued to another client")
	}
	return nil
}

// accessToken returns a living access token by its id.
func (s *storage) accessToken(id string) (a grants.Access, g grants.Grant, err error) {
	s.state.View(func(st *state) { a, g, err = st.Ledger.LookupAccess(id, time.Now()) })
	return a, g, err
}

// SetUserinfoFromScopes implements op.Storage; SetUserinfoFromRequest does the work.
func (s *storage) SetUserinfoFromScopes(context.Context, *oidc.UserInfo, string, string, []string) error {
	return nil
}

// SetUserinfoFromRequest implements op.CanSetUserinfoFromRequest, for ID tokens.
func (s *storage) SetUserinfoFromRequest(_ context.Context, info *oidc.UserInfo, req op.IDTokenRequest, scopes []string) error {
	return s.setUserinfo(info, req.GetSubject(), scopes)
}

// SetUserinfoFromToken implements op.Storage, for the userinfo endpoint.
func (s *storage) SetUserinfoFromToken(_ context.Context, info *oidc.UserInfo, id, subject, _ string) error {
	a, g, err := s.accessToken(id)
	if err != nil || g.User != subject {
		return grants.ErrUnknown
	}
	return s.setUserinfo(info, subject, a.Scopes)
}

func (s *storage) setUserinfo(info *oidc.UserInfo, subject string, scopes []string) error {
	p, ok := s.people.ByCorpID(subject)
	if !ok {
		return oidc.ErrInvalidGrant().WithDescription("this person has left")
	}
	info.Subject = subject
	if slices.Contains(scopes, oidc.ScopeProfile) {
		info.PreferredUsername = p.Username
		info.Name = p.Name
	}
	if slices.Contains(scopes, oidc.ScopeEmail) {
		info.Email = p.Email
		info.EmailVerified = true
	}
	return nil
}

// SetIntrospectionFromToken implements op.Storage (RFC 7662): a client learns
// about its own tokens only.
func (s *storage) SetIntrospectionFromToken(_ context.Context, out *oidc.IntrospectionResponse, id, subject, clientID string) error {
	a, g, err := s.accessToken(id)
	if err != nil || g.User != subject || g.Client != clientID {
		return grants.ErrUnknown
	}
	out.Subject = subject
	out.ClientID = g.Client
	out.Scope = a.Scopes
	out.Expiration = oidc.FromTime(a.Expires)
	return nil
}

// GetPrivateClaimsFromScopes implements op.Storage: only exchanged tokens are
// JWTs, and their claims come from the exchange.
func (s *storage) GetPrivateClaimsFromScopes(context.Context, string, string, []string) (map[string]any, error) {
	return nil, errNotSupported
}
