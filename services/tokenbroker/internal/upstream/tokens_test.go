package upstream

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"chatelaine.dev/services/tokenbroker/internal/upstream/endpoint"
)

func standardPaths() tokenPaths {
	return tokenPaths{
		access: endpoint.Path{"access_token"}, refresh: endpoint.Path{"refresh_token"},
		scope: endpoint.Path{"scope"}, expiresIn: endpoint.Path{"expires_in"}, standard: true,
	}
}

// What comes out of any token answer can be put into a header and a database.
func FuzzTokenAnswer(f *testing.F) {
	f.Add("application/json", []byte(`{"access_token":"a","token_type":"bearer","expires_in":"3600","scope":"a,b c"}`))
	f.Add("application/x-www-form-urlencoded", []byte("access_token=a&scope=&expires_in=0&refresh_token=r"))
	f.Add("application/json", []byte(`{"access_token":"a\r\nb","scope":["x","y"]}`))
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		doc, err := endpoint.Parse(contentType, body)
		if err != nil {
			return
		}
		now := time.Unix(1_700_000_000, 0)
		tokens, err := readTokens(doc, standardPaths(), now)
		if err != nil {
			return
		}
		for _, s := range []string{tokens.access.Reveal(), tokens.refresh.Reveal(), tokens.id.Reveal()} {
			if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
				t.Errorf("token %q cannot be put into a header", s)
			}
		}
		if tokens.access.IsZero() || len(tokens.scopes) > maxScopes || !slices.IsSorted(tokens.scopes) {
			t.Errorf("tokens %v, scopes %q", tokens.access.IsZero(), tokens.scopes)
		}
		if tokens.hasExpiry && (!tokens.expiresAt.After(now) && tokens.expiresAt != now || tokens.expiresAt.Sub(now) > maxLifetime) {
			t.Errorf("expires at %v", tokens.expiresAt)
		}
	})
}

// What comes out of any userinfo answer can be stored, compared and shown.
func FuzzUserInfo(f *testing.F) {
	f.Add([]byte(`{"id":9007199254740993,"login":"alice","email":"a@example.com"}`), "id")
	f.Add([]byte(`{"user":{"id":"x\u202e"},"login":"\u0000"}`), "user.id")
	f.Fuzz(func(t *testing.T, body []byte, field string) {
		doc, err := endpoint.ParseJSON(body)
		if err != nil {
			return
		}
		id := identityFields(doc, []string{field, "id"}, []string{"login"}, []string{"email"})
		if subjectText(id.Subject) && strings.ContainsFunc(id.Subject, unicode.IsControl) {
			t.Errorf("subject %q", id.Subject)
		}
		for _, s := range []string{id.Name, id.Email} {
			if len([]rune(s)) > maxDisplay || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("cannot show %q", s)
			}
		}
	})
}

// The claims of an id token are a foreign document too, even when signed.
func FuzzClaims(f *testing.F) {
	f.Add([]byte(`{"iss":"i","aud":["c"],"exp":1700000100,"iat":1700000000,"sub":"s","nonce":"n"}`))
	f.Add([]byte(`{"iss":"i","aud":"c","exp":1e400,"iat":0,"sub":1}`))
	rules := claimRules{issuer: "i", clientID: "c", subjectClaim: "sub", nonce: "n", now: time.Unix(1_700_000_000, 0)}
	f.Fuzz(func(t *testing.T, payload []byte) {
		c, err := readClaims(payload, rules)
		if err == nil && (!subjectText(c.subject) || c.sub != c.subject) {
			t.Errorf("claims %+v", c)
		}
	})
}
