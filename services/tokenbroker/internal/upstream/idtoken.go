package upstream

import (
	"crypto/subtle"
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"chatelaine.dev/internal/bearer"
	"chatelaine.dev/services/tokenbroker/internal/upstream/endpoint"
)

// clockLeeway is how far a provider's clock may differ from ours.
const clockLeeway = time.Minute

// claims is what of an id token is used (OIDC Core, section 2).
type claims struct {
	// sub is the claim of that name; subject is the configured subjectClaim.
	sub, subject string
	name, email  string
}

// claimRules is what an id token must say.
type claimRules struct {
	issuer, clientID, subjectClaim string
	// nonce that must be repeated; empty after a refresh, when there is none.
	nonce string
	now   time.Time
}

// claimError names the check of OIDC Core, section 3.1.3.7, that failed.
type claimError struct{ check, problem string }

func (e *claimError) Error() string { return e.check + ": " + e.problem }

// readClaims checks a payload whose signature was verified. Its errors are *claimError.
func readClaims(payload []byte, rules claimRules) (*claims, error) {
	doc, err := endpoint.ParseJSON(payload)
	if err != nil {
		return nil, &claimError{"claims", "has malformed claims"}
	}
	if iss, _ := doc.String(endpoint.Path{"iss"}); iss != rules.issuer {
		return nil, &claimError{"issuer", "is from another issuer"}
	}
	if err := checkAudience(doc, rules.clientID); err != nil {
		return nil, err
	}
	if err := checkTimes(doc, rules.now); err != nil {
		return nil, err
	}
	if rules.nonce != "" {
		nonce, _ := doc.String(endpoint.Path{"nonce"})
		if subtle.ConstantTimeCompare([]byte(nonce), []byte(rules.nonce)) != 1 {
			return nil, &claimError{"nonce", "is not the answer to this login: its nonce differs"}
		}
	}
	c := &claims{}
	var ok bool
	if c.sub, ok = doc.String(endpoint.Path{"sub"}); !ok || !subjectText(c.sub) {
		return nil, &claimError{"subject", "has no usable sub"}
	}
	if c.subject, ok = doc.ID(endpoint.Path{rules.subjectClaim}); !ok || !subjectText(c.subject) {
		return nil, &claimError{"subject", "has no usable value in the configured subjectClaim"}
	}
	shown := identityFields(doc, nil, []string{"name", "preferred_username"}, []string{"email"})
	c.name, c.email = shown.Name, shown.Email
	return c, nil
}

// checkAudience: the token is for us, and we trust no other audience that it may
// name unless it says that it was issued to us (azp).
func checkAudience(doc endpoint.Document, clientID string) error {
	audience := doc.Strings(endpoint.Path{"aud"})
	if clientID == "" || !slices.Contains(audience, clientID) {
		return &claimError{"audience", "is not for this client"}
	}
	azp, has := doc.Lookup(endpoint.Path{"azp"})
	if has && azp != clientID || !has && len(audience) > 1 {
		return &claimError{"authorized_party", "was issued to another client"}
	}
	return nil
}

func checkTimes(doc endpoint.Document, now time.Time) error {
	exp, ok := date(doc, "exp")
	if !ok || !now.Before(exp.Add(clockLeeway)) {
		return &claimError{"expiry", "has expired"}
	}
	iat, ok := date(doc, "iat")
	if !ok || iat.After(now.Add(clockLeeway)) {
		return &claimError{"issued_at", "has no time of issue, or one in the future"}
	}
	if _, has := doc["nbf"]; has {
		if nbf, ok := date(doc, "nbf"); !ok || nbf.After(now.Add(clockLeeway)) {
			return &claimError{"not_before", "is not valid yet"}
		}
	}
	return nil
}

// date reads a NumericDate (RFC 7519, section 2).
func date(doc endpoint.Document, claim string) (time.Time, bool) {
	n, ok := doc[claim].(json.Number)
	if !ok {
		return time.Time{}, false
	}
	f, err := strconv.ParseFloat(n.String(), 64)
	if err != nil || f < 0 || f > bearer.MaxDate {
		return time.Time{}, false
	}
	return time.Unix(int64(f), 0), true
}
