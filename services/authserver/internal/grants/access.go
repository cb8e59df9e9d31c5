package grants

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"strings"
	"time"

	"github.com/ory/fosite"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/authserver/internal/keys"
)

// accessTokenType is the typ of access tokens (RFC 9068, section 2.1).
const accessTokenType = "at+jwt"

// claims of an access token (RFC 9068, section 2.2), and tsid: the session at the
// broker, which is what makes the token revocable.
type claims struct {
	Issuer    string   `json:"iss"`
	Subject   string   `json:"sub"`
	Audience  []string `json:"aud"`
	ExpiresAt int64    `json:"exp"`
	IssuedAt  int64    `json:"iat"`
	ID        string   `json:"jti"`
	ClientID  string   `json:"client_id"`
	Scope     string   `json:"scope"`
	SessionID string   `json:"tsid"`
}

// accessTokens is fosite's AccessTokenStrategy.
type accessTokens struct {
	issuer string
	keys   *keys.Set
}

// AccessTokenSignature implements oauth2.AccessTokenStrategy. Nothing is looked up
// by it.
func (a *accessTokens) AccessTokenSignature(_ context.Context, token string) string {
	return token[strings.LastIndexByte(token, '.')+1:]
}

// GenerateAccessToken implements oauth2.AccessTokenStrategy.
func (a *accessTokens) GenerateAccessToken(ctx context.Context, r fosite.Requester) (token, signature string, err error) {
	sess, ok := r.GetSession().(*session)
	if !ok {
		return "", "", fault.New(fault.Internal, "a foreign session")
	}
	token, err = a.keys.Sign(accessTokenType, claims{
		Issuer: a.issuer, Subject: sess.grant.UserID, Audience: sess.audience,
		ExpiresAt: sess.expires[fosite.AccessToken].Unix(), IssuedAt: sess.now.Unix(), ID: rand.Text(),
		ClientID: sess.grant.ClientID, Scope: strings.Join(sess.scopes, " "), SessionID: sess.grant.SessionID,
	})
	return token, a.AccessTokenSignature(ctx, token), err
}

// ValidateAccessToken implements oauth2.AccessTokenStrategy.
func (a *accessTokens) ValidateAccessToken(_ context.Context, _ fosite.Requester, token string) error {
	c, err := a.verify(token)
	if err == nil && time.Now().Unix() >= c.ExpiresAt {
		return fault.New(fault.Unauthenticated, "the token has expired")
	}
	return err
}

// verify returns the claims of an access token of ours, which may have expired.
// Errors are Unauthenticated, or Unavailable before the keys are known.
func (a *accessTokens) verify(token string) (*claims, error) {
	payload, err := a.keys.Verify(token, accessTokenType)
	if err != nil {
		return nil, err
	}
	var c claims
	if err := json.Unmarshal(payload, &c); err != nil || c.Issuer != a.issuer {
		return nil, fault.New(fault.Unauthenticated, "the token is not ours")
	}
	return &c, nil
}
