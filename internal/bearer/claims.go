package bearer

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"time"
)

var (
	errNoAudience = errors.New("bearer: Verify was called without an accepted audience")
	errClaims     = errors.New("a claim is missing or has the wrong type")
	errNotYet     = errors.New("the token is not valid yet")
)

// wireClaims is the JSON of a token (RFC 7519, RFC 9068 section 2.2).
type wireClaims struct {
	Issuer    string       `json:"iss"`
	Subject   string       `json:"sub"`
	Audience  stringOrList `json:"aud"`
	Expiry    *numericDate `json:"exp"`
	NotBefore *numericDate `json:"nbf"`
	IssuedAt  *numericDate `json:"iat"` // for its form alone
	ID        string       `json:"jti"`
	ClientID  string       `json:"client_id"`
	AZP       string       `json:"azp"`
	Scope     string       `json:"scope"`
	SCP       stringOrList `json:"scp"`
	SessionID string       `json:"tsid"`
}

// parseClaims checks what does not depend on the call: issuer, presence of what
// RFC 9068 requires, and that the token's time has come.
//
// When a token may be used is said by exp and nbf (RFC 7519, sections 4.1.4 and
// 4.1.5), with the leeway. iat is not looked at: it tells the token's age (section
// 4.1.6) and forbids nothing. Refusing one from the future would guard against
// nothing either, since whoever can sign chooses every claim, and would make a
// service whose clock is a minute behind refuse all fresh tokens.
func parseClaims(payload []byte, cfg Config, now time.Time) (*Claims, error) {
	var w wireClaims
	if err := json.Unmarshal(payload, &w); err != nil {
		return nil, malformed(errClaims) // err may quote the token
	}
	if w.Issuer != cfg.Issuer {
		return nil, reject(ReasonIssuer, "the access token is from another issuer")
	}
	if w.Subject == "" || w.Expiry == nil || len(w.Audience) == 0 {
		return nil, malformed(errClaims)
	}
	if w.NotBefore != nil && w.NotBefore.time().After(now.Add(cfg.Leeway)) {
		return nil, malformed(errNotYet)
	}
	c := &Claims{
		Issuer: w.Issuer, Subject: w.Subject, Audience: w.Audience, ID: w.ID, SessionID: w.SessionID,
		ClientID: w.ClientID, Scope: w.Scope, Expiry: w.Expiry.time(),
	}
	if c.ClientID == "" {
		c.ClientID = w.AZP
	}
	if c.Scope == "" {
		c.Scope = strings.Join(w.SCP, " ")
	}
	return c, nil
}

// stringOrList is a string or an array of strings.
type stringOrList []string

func (l *stringOrList) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '[' {
		return json.Unmarshal(b, (*[]string)(l))
	}
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	if s != "" {
		*l = stringOrList{s}
	}
	return nil
}

// numericDate is seconds since 1970, possibly with a fraction (RFC 7519 section 2).
type numericDate float64

func (d *numericDate) UnmarshalJSON(b []byte) error {
	var f float64
	if err := json.Unmarshal(b, &f); err != nil {
		return err
	}
	if math.IsNaN(f) || f < 0 || f > MaxDate {
		return errClaims
	}
	*d = numericDate(f)
	return nil
}

func (d *numericDate) time() time.Time { return time.Unix(int64(*d), 0) }
