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
	errIssuedType  = errors.New("issued_token_type is missing or not that of an access token")
	errTokenType   = errors.New("token_type is missing or not Bearer")
	errExpiresIn   = errors.New("expires_in is not a number of seconds")
)

// readAnswer reads the fields of an answer (RFC 8693, section 2.2.1).
func readAnswer(doc endpoint.Document) (token secret.String, lifetime time.Duration, err error) {
	switch issued, _ := doc.String(endpoint.Path{"issued_token_type"}); issued {
	case config.TokenTypeAccessToken, config.TokenTypeJWT: // a JWT may be an access token (section 3)
	default:
		return secret.String{}, 0, errIssuedType
	}
	return readBearer(doc)
}

// readBearer reads the fields of any successful answer of a token endpoint that
// issues a bearer token (RFC 6749, section 5.1).
func readBearer(doc endpoint.Document) (token secret.String, lifetime time.Duration, err error) {
	text, _ := doc.String(endpoint.Path{"access_token"})
	if !endpoint.TokenText(text) {
		return secret.String{}, 0, errAccessToken
	}
	if typ, _ := doc.String(endpoint.Path{"token_type"}); !strings.EqualFold(typ, "bearer") {
		return secret.String{}, 0, errTokenType // "N_A" is for what opens nothing
	}
	lifetime, err = readLifetime(doc)
	return secret.New(text), lifetime, err
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
