package exchange

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/upstream/endpoint"
)

const (
	// defaultLifetime is that of a token whose service does not say (RFC 8693,
	// section 2.2.1, only recommends it): short, because nobody knows.
	defaultLifetime = time.Minute
	maxLifetime     = 24 * time.Hour
)

// The errors of an answer name the field, never its value.
var (
	errAccessToken = errors.New("access_token is missing or not a token")
	errIssuedType  = errors.New("issued_token_type is missing or not what was asked for")
	errTokenType   = errors.New("token_type is missing or not Bearer")
	errExpiresIn   = errors.New("expires_in is not a number of seconds")
)

// expected is what an answer may hold (RFC 8693, section 2.2.1).
type expected struct {
	// requested is the type that was asked for.
	requested string
	// bearer says that the token will be sent as a bearer token.
	bearer bool
}

// read reads the fields of an answer.
func (e expected) read(doc endpoint.Document) (token secret.String, lifetime time.Duration, err error) {
	issued, _ := doc.String(endpoint.Path{"issued_token_type"})
	switch {
	case issued == config.TokenTypeAccessToken, issued == config.TokenTypeJWT: // a JWT may be an access token (section 3)
	case issued == "" || issued != e.requested || e.bearer:
		return secret.String{}, 0, errIssuedType
	}
	// "N_A" is for what opens nothing by itself: never for an access token, and
	// never where a bearer token is meant.
	if typ, _ := doc.String(endpoint.Path{"token_type"}); strings.EqualFold(typ, "n_a") &&
		!e.bearer && issued != config.TokenTypeAccessToken && e.requested != config.TokenTypeAccessToken {
		return readToken(doc)
	}
	return readBearer(doc)
}

// readBearer reads the fields of any successful answer of a token endpoint that
// issues a bearer token (RFC 6749, section 5.1).
func readBearer(doc endpoint.Document) (token secret.String, lifetime time.Duration, err error) {
	token, lifetime, err = readToken(doc)
	if typ, _ := doc.String(endpoint.Path{"token_type"}); err == nil && !strings.EqualFold(typ, "bearer") {
		return secret.String{}, 0, errTokenType
	}
	return token, lifetime, err
}

func readToken(doc endpoint.Document) (token secret.String, lifetime time.Duration, err error) {
	text, _ := doc.String(endpoint.Path{"access_token"})
	if !endpoint.TokenText(text) {
		return secret.String{}, 0, errAccessToken
	}
	if lifetime, err = readLifetime(doc); err != nil {
		return secret.String{}, 0, err
	}
	return secret.New(text), lifetime, nil
}

// readLifetime reads expires_in.
func readLifetime(doc endpoint.Document) (time.Duration, error) {
	v, ok := doc.Lookup(endpoint.Path{"expires_in"})
	if !ok {
		return defaultLifetime, nil
	}
	n, isNumber := v.(json.Number)
	f, err := strconv.ParseFloat(n.String(), 64)
	if !isNumber || err != nil || f <= 0 {
		return 0, errExpiresIn
	}
	return time.Duration(min(f, maxLifetime.Seconds()) * float64(time.Second)), nil
}
