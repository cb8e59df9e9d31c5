package grants

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"slices"
	"time"
)

var (
	// ErrUnknown means that there is no such token: never was, expired or revoked.
	ErrUnknown = errors.New("grants: unknown token")
	// ErrReused means that the refresh token had been spent; its grant has ended.
	ErrReused = errors.New("grants: refresh token was used before; the grant is revoked")
)

// spentRetention is how long a spent refresh token is remembered, so that its
// reuse is noticed. Later it is simply unknown.
const spentRetention = 24 * time.Hour

// Grant is one approval by one person for one client.
type Grant struct {
	User     string    `json:"user"`
	Client   string    `json:"client"`
	Scopes   []string  `json:"scopes"`
	AuthTime time.Time `json:"authTime"`
}

// Access is an access token that is alive until Expires.
type Access struct {
	Grant   string    `json:"grant"`
	Scopes  []string  `json:"scopes"`
	Expires time.Time `json:"expires"`
}

// Refresh is a refresh token; SpentAt is zero while it can be used.
type Refresh struct {
	Grant   string    `json:"grant"`
	Expires time.Time `json:"expires"`
	SpentAt time.Time `json:"spentAt,omitzero"`
}

// Ledger holds grants by id and tokens by key. Use New to make one.
type Ledger struct {
	Grants  map[string]Grant   `json:"grants"`
	Access  map[string]Access  `json:"access"`
	Refresh map[string]Refresh `json:"refresh"`
}

// New returns an empty ledger.
func New() Ledger {
	return Ledger{Grants: map[string]Grant{}, Access: map[string]Access{}, Refresh: map[string]Refresh{}}
}

// Key returns what a token is stored under: the SHA-256 digest of its text.
func Key(token string) string {
	sum := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// NewToken returns a random text of more than 256 bits after the prefix.
func NewToken(prefix string) string { return prefix + rand.Text() + rand.Text() }

// Open records a grant and returns its id.
func (l *Ledger) Open(g Grant) string {
	id := NewToken("")
	l.Grants[id] = g
	return id
}

// PutAccess records an access token of a grant under key.
func (l *Ledger) PutAccess(key, grant string, scopes []string, expires time.Time) {
	l.Access[key] = Access{Grant: grant, Scopes: scopes, Expires: expires}
}

// PutRefresh records a refresh token of a grant under key.
func (l *Ledger) PutRefresh(key, grant string, expires time.Time) {
	l.Refresh[key] = Refresh{Grant: grant, Expires: expires}
}

// LookupAccess returns the access token of that key while it is alive, and its
// grant. The error is ErrUnknown.
func (l *Ledger) LookupAccess(key string, now time.Time) (Access, Grant, error) {
	a, ok := l.Access[key]
	if !ok || !now.Before(a.Expires) {
		return Access{}, Grant{}, ErrUnknown
	}
	g, ok := l.Grants[a.Grant]
	if !ok {
		return Access{}, Grant{}, ErrUnknown
	}
	return a, g, nil
}

// LookupRefresh returns the refresh token of that key, spent or not, and its
// grant. The error is ErrUnknown.
func (l *Ledger) LookupRefresh(key string, now time.Time) (Refresh, Grant, error) {
	r, ok := l.Refresh[key]
	if !ok || !now.Before(r.Expires) {
		return Refresh{}, Grant{}, ErrUnknown
	}
	g, ok := l.Grants[r.Grant]
	if !ok {
		return Refresh{}, Grant{}, ErrUnknown
	}
	return r, g, nil
}

// Spend uses a refresh token and returns its grant's id. A token that was spent
// more than grace ago ends its grant: ErrReused. Otherwise the error is
// ErrUnknown, and nothing has changed.
func (l *Ledger) Spend(key string, now time.Time, grace time.Duration) (grant string, err error) {
	r, _, err := l.LookupRefresh(key, now)
	if err != nil {
		return "", err
	}
	if !r.SpentAt.IsZero() {
		if now.Sub(r.SpentAt) < grace {
			return r.Grant, nil
		}
		l.Revoke(r.Grant)
		return "", ErrReused
	}
	r.SpentAt = now
	l.Refresh[key] = r
	return r.Grant, nil
}

// Revoke ends a grant with all its tokens.
func (l *Ledger) Revoke(grant string) {
	delete(l.Grants, grant)
	for k, a := range l.Access {
		if a.Grant == grant {
			delete(l.Access, k)
		}
	}
	for k, r := range l.Refresh {
		if r.Grant == grant {
			delete(l.Refresh, k)
		}
	}
}

// RevokeWhere ends every grant that match accepts, and returns how many.
func (l *Ledger) RevokeWhere(match func(Grant) bool) int {
	var ids []string
	for id, g := range l.Grants {
		if match(g) {
			ids = append(ids, id)
		}
	}
	for _, id := range ids {
		l.Revoke(id)
	}
	return len(ids)
}

// Prune forgets what can no longer be used, and grants without tokens: a grant
// that was just opened must have its first token by then.
func (l *Ledger) Prune(now time.Time) {
	used := map[string]bool{}
	for k, a := range l.Access {
		if now.Before(a.Expires) {
			used[a.Grant] = true
		} else {
			delete(l.Access, k)
		}
	}
	for k, r := range l.Refresh {
		if now.Before(r.Expires) && (r.SpentAt.IsZero() || now.Sub(r.SpentAt) < spentRetention) {
			used[r.Grant] = true
		} else {
			delete(l.Refresh, k)
		}
	}
	for id := range l.Grants {
		if !used[id] {
			delete(l.Grants, id)
		}
	}
}

// Subset reports whether every scope of want is in have.
func Subset(want, have []string) bool {
	return !slices.ContainsFunc(want, func(s string) bool { return !slices.Contains(have, s) })
}
