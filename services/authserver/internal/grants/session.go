package grants

import (
	"maps"
	"time"

	"github.com/ory/fosite"

	"chatelaine.dev/services/authserver/internal/store"
)

// session is what fosite carries through a request.
type session struct {
	grant store.Grant
	// legs are those that a code is for.
	legs []string
	// audience and scopes of the access token that is issued now.
	audience, scopes []string
	// now is the database's clock, cut to seconds: replicas whose clocks differ issue
	// the same tokens.
	now     time.Time
	expires map[fosite.TokenType]time.Time
	// again is set when a refresh token comes again within its grace.
	again *answer
}

func newSession(g store.Grant) *session {
	return &session{
		grant: g, audience: g.Resources, scopes: g.Scopes, now: g.ReadAt.UTC().Truncate(time.Second), expires: map[fosite.TokenType]time.Time{},
	}
}

// issue sets how long what is issued now lives: no longer than the session.
func (s *session) issue(access, refresh time.Duration, end time.Time) {
	s.expires[fosite.AccessToken] = s.now.Add(access)
	s.expires[fosite.RefreshToken] = s.now.Add(refresh)
	s.capAt(end)
}

// left is how long after now a token still lives.
func (s *session) left(until time.Time) time.Duration { return max(until.Sub(s.now), 0) }

// capAt makes no token outlive the session.
func (s *session) capAt(end time.Time) {
	s.grant.ExpiresAt = end
	for kind, t := range s.expires {
		if t.After(end) {
			s.expires[kind] = end
		}
	}
}

// SetExpiresAt implements fosite.Session.
func (s *session) SetExpiresAt(kind fosite.TokenType, t time.Time) { s.expires[kind] = t }

// GetExpiresAt implements fosite.Session.
func (s *session) GetExpiresAt(kind fosite.TokenType) time.Time { return s.expires[kind] }

// GetUsername implements fosite.Session; we have none.
func (s *session) GetUsername() string { return "" }

// GetSubject implements fosite.Session.
func (s *session) GetSubject() string { return s.grant.UserID }

// Clone implements fosite.Session.
func (s *session) Clone() fosite.Session {
	c := *s
	c.expires = maps.Clone(s.expires)
	return &c
}

// asFositeClient shows a registration to fosite.
func asFositeClient(c *store.Client) fosite.Client {
	return &fosite.DefaultOpenIDConnectClient{
		DefaultClient: &fosite.DefaultClient{
			ID: c.ID, Secret: c.SecretHash, RedirectURIs: c.RedirectURIs, GrantTypes: c.GrantTypes,
			ResponseTypes: []string{"code"}, Scopes: c.Scopes, Public: c.Public(),
		},
		TokenEndpointAuthMethod: c.AuthMethod,
	}
}
