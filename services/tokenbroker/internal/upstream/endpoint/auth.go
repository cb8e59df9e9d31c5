package endpoint

import (
	"net/http"
	"net/url"
	"time"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
)

// ClientAuth authenticates us to a token endpoint (RFC 6749, section 2.3).
type ClientAuth struct {
	// Method is one of config.AuthMethod…; empty means none.
	Method string
	// ID of the client; with an empty one nothing is sent.
	ID string
	// Secret of the client; empty for methods none and private_key_jwt.
	Secret secret.String
	// Key of the client, for method private_key_jwt.
	Key *ClientKey
	// Audience of assertions that Key signs: how the server knows itself.
	Audience string
}

// apply adds the credentials to the header or the form.
func (a *ClientAuth) apply(h http.Header, form url.Values, now time.Time) error {
	if a == nil || a.ID == "" {
		return nil
	}
	switch a.Method {
	case config.AuthMethodBasic:
		// Both parts are form-encoded before they are joined (section 2.3.1).
		r := http.Request{Header: h}
		r.SetBasicAuth(url.QueryEscape(a.ID), url.QueryEscape(a.Secret.Reveal()))
	case config.AuthMethodPost:
		form.Set("client_id", a.ID)
		form.Set("client_secret", a.Secret.Reveal())
	case config.AuthMethodPrivateKeyJWT:
		assertion, err := a.Key.assert(a.ID, a.Audience, now)
		if err != nil {
			return err
		}
		form.Set("client_id", a.ID)
		form.Set("client_assertion_type", assertionType)
		form.Set("client_assertion", assertion)
	case config.AuthMethodNone, "":
		form.Set("client_id", a.ID)
	default:
		return fault.Newf(fault.Internal, "client authentication method %q is not supported", a.Method)
	}
	return nil
}

// ChooseAuthMethod picks the method for a client from those that a server's
// metadata lists (RFC 8414, section 2: nothing listed means client_secret_basic).
// It reports false when there is none in common.
func ChooseAuthMethod(supported []string, hasSecret bool) (string, bool) {
	if !hasSecret {
		// A public client identifies itself even where none is not advertised:
		// many servers omit it.
		return config.AuthMethodNone, true
	}
	if len(supported) == 0 {
		return config.AuthMethodBasic, true
	}
	for _, want := range []string{config.AuthMethodBasic, config.AuthMethodPost} {
		for _, m := range supported {
			if m == want {
				return want, true
			}
		}
	}
	return "", false
}
