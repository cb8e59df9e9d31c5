package caller

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"slices"
	"strings"
	"time"

	"chatelaine.dev/internal/secret"
)

// Caller is the person, and the client acting for them, behind a request.
type Caller struct {
	// Issuer and Subject identify the person: the claims iss and sub.
	Issuer, Subject string
	// SessionID is the claim tsid: the broker's session. Empty with an external
	// issuer and in anonymous mode.
	SessionID string
	// ClientID is the OAuth client, as far as the token names it.
	ClientID string
	// Scope holds the granted scopes, separated by spaces.
	Scope string
	// Token is the access token that the request came with. It is shown to the
	// broker alone. Zero in anonymous mode.
	Token secret.String
	// ExpiresAt is when the token ends; zero in anonymous mode.
	ExpiresAt time.Time
	// Anonymous is true where the deployment takes no tokens.
	Anonymous bool
	// Key is the stable identity of the person: a hash of issuer and subject,
	// the same for all tokens, sessions and clients of one person. Sealed values
	// are bound to it. It is never empty.
	Key string
	// CacheKey is what credentials are cached under: the session, or a hash of
	// the token where there is no session. It is never empty.
	CacheKey string
}

// anonymousKey cannot be a keyOf: that is base64 text of another length.
const anonymousKey = "anonymous"

// AnonymousCaller returns the caller of a deployment that takes no tokens.
func AnonymousCaller() *Caller {
	return &Caller{Anonymous: true, Key: anonymousKey, CacheKey: anonymousKey}
}

// Claims are the facts of a verified token that make a Caller.
type Claims struct {
	Issuer, Subject, SessionID, ClientID, Scope string
	ExpiresAt                                   time.Time
}

// New returns the caller of a verified token.
func New(claims Claims, token secret.String) *Caller {
	c := &Caller{
		Issuer: claims.Issuer, Subject: claims.Subject, SessionID: claims.SessionID,
		ClientID: claims.ClientID, Scope: claims.Scope, ExpiresAt: claims.ExpiresAt,
		Token: token, Key: keyOf(claims.Issuer, claims.Subject),
	}
	if c.SessionID != "" {
		c.CacheKey = "s:" + c.SessionID
		return c
	}
	sum := sha256.Sum256([]byte(token.Reveal()))
	c.CacheKey = "t:" + base64.RawURLEncoding.EncodeToString(sum[:])
	return c
}

// keyOf hashes issuer and subject so that no other pair gives the same key:
// the issuer's length stands in front.
func keyOf(issuer, subject string) string {
	h := sha256.New()
	var length [8]byte
	binary.BigEndian.PutUint64(length[:], uint64(len(issuer)))
	h.Write(length[:])
	h.Write([]byte(issuer))
	h.Write([]byte(subject))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// HasScope reports whether the token was granted scope.
func (c *Caller) HasScope(scope string) bool {
	return slices.Contains(strings.Fields(c.Scope), scope)
}

type contextKey struct{}

// NewContext returns a context that carries c.
func NewContext(ctx context.Context, c *Caller) context.Context {
	return context.WithValue(ctx, contextKey{}, c)
}

// FromContext returns the caller that NewContext put there.
func FromContext(ctx context.Context) (*Caller, bool) {
	c, ok := ctx.Value(contextKey{}).(*Caller)
	return c, ok
}
