package upstream

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/upstream/endpoint"
)

const (
	maxScopes      = 200
	maxScopeLength = 256
	// maxLifetime bounds expires_in; beyond it a number is taken for a mistake.
	maxLifetime = 10 * 365 * 24 * time.Hour
)

// tokenPaths say where a token answer has its fields.
type tokenPaths struct {
	access, refresh, scope, expiresIn endpoint.Path
	// standard says that the access token is where RFC 6749 puts it, so that
	// token_type is about it.
	standard bool
}

// tokens is a token endpoint's answer (RFC 6749, section 5.1).
type tokens struct {
	access, refresh, id secret.String
	scopes              []string
	hasScopes           bool
	expiresAt           time.Time
	hasExpiry           bool
	// doc is the whole answer, for identityFromToken.
	doc endpoint.Document
}

// The errors of an answer name the field, never its value.
var (
	errAccessToken  = errors.New("access_token is missing or not a token")
	errRefreshToken = errors.New("refresh_token is not a token")
	errIDToken      = errors.New("id_token is not a token")
	errTokenType    = errors.New("token_type is not Bearer")
	errExpiresIn    = errors.New("expires_in is not a number of seconds")
)

// readTokens reads the fields of an answer. Lifetimes count from sentAt.
func readTokens(doc endpoint.Document, paths tokenPaths, sentAt time.Time) (tokens, error) {
	t := tokens{doc: doc}
	access, ok := doc.String(paths.access)
	if !ok || !endpoint.TokenText(access) {
		return t, errAccessToken
	}
	t.access = secret.New(access)
	if v, ok := doc.Lookup(endpoint.Path{"token_type"}); ok && paths.standard {
		// RFC 6750, section 4; matched without regard to case (RFC 6749, section 5.1).
		if s, isText := v.(string); !isText || (s != "" && !strings.EqualFold(s, "bearer")) {
			return t, errTokenType
		}
	}
	var err error
	if t.refresh, err = optionalToken(doc, paths.refresh, errRefreshToken); err != nil {
		return t, err
	}
	if t.id, err = optionalToken(doc, endpoint.Path{"id_token"}, errIDToken); err != nil {
		return t, err
	}
	if v, ok := doc.Lookup(paths.scope); ok && v != "" {
		t.scopes, t.hasScopes = splitScopes(doc.Strings(paths.scope)), true
	}
	if v, ok := doc.Lookup(paths.expiresIn); ok {
		lifetime, err := seconds(v)
		if err != nil {
			return t, err
		}
		if lifetime > 0 { // some services write 0 for "does not expire"
			t.expiresAt, t.hasExpiry = sentAt.Add(lifetime), true
		}
	}
	return t, nil
}

func optionalToken(doc endpoint.Document, path endpoint.Path, problem error) (secret.String, error) {
	v, ok := doc.Lookup(path)
	if !ok || v == "" {
		return secret.String{}, nil
	}
	s, isText := v.(string)
	if !isText || !endpoint.TokenText(s) {
		return secret.String{}, problem
	}
	return secret.New(s), nil
}

// seconds reads a lifetime: a number or, as some services write it, a number in
// quotes. A fraction is dropped.
func seconds(v any) (time.Duration, error) {
	var text string
	switch v := v.(type) {
	case json.Number:
		text = v.String()
	case string:
		text = strings.TrimSpace(v)
	default:
		return 0, errExpiresIn
	}
	if text == "" {
		return 0, nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || f < 0 || f > maxLifetime.Seconds() {
		return 0, errExpiresIn
	}
	return time.Duration(f) * time.Second, nil
}

// splitScopes reads scopes that are separated by spaces (RFC 6749, section 3.3)
// or, as GitHub and Slack do, by commas. What is no scope token is left out.
func splitScopes(texts []string) []string {
	scopes := []string{}
	for _, text := range texts {
		for s := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ' ' || r == ',' }) {
			if len(scopes) < maxScopes && scopeToken(s) {
				scopes = append(scopes, s)
			}
		}
	}
	return sorted(scopes)
}

func scopeToken(s string) bool {
	return len(s) <= maxScopeLength && !strings.ContainsFunc(s, func(r rune) bool {
		return r < 0x21 || r > 0x7e || r == '"' || r == '\\'
	})
}

// sorted returns a sorted copy without repetitions.
func sorted(list []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(list)))
}

// grant returns what was granted; asked are the scopes when the answer does not
// name them.
func (t *tokens) grant(realm string, asked []string) Grant {
	g := Grant{
		Realm: realm, AccessToken: t.access, RefreshToken: t.refresh, IDToken: t.id,
		Scopes: t.scopes, ExpiresAt: t.expiresAt, HasExpiry: t.hasExpiry,
	}
	if !t.hasScopes {
		g.Scopes = sorted(asked)
	}
	return g
}
