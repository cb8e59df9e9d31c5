package exchange

import (
	"testing"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/services/tokenbroker/internal/upstream/endpoint"
)

// What comes out of any answer can be put into a header and has an end.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"access_token":"a","issued_token_type":"urn:ietf:params:oauth:token-type:access_token","token_type":"Bearer","expires_in":60}`))
	f.Add([]byte(`{"access_token":"a b","issued_token_type":"urn:ietf:params:oauth:token-type:jwt","token_type":"bearer","expires_in":1e-9}`))
	f.Add([]byte(`{"access_token":"a","issued_token_type":"urn:ietf:params:oauth:token-type:saml2","token_type":"N_A"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		doc, err := endpoint.ParseJSON(body)
		if err != nil {
			return
		}
		for _, e := range []expected{{config.TokenTypeAccessToken, true}, {config.TokenTypeSAML2, false}} {
			token, lifetime, err := e.read(doc)
			if err != nil {
				continue
			}
			if !endpoint.TokenText(token.Reveal()) || lifetime < 0 || lifetime > maxLifetime {
				t.Errorf("lifetime %v", lifetime)
			}
		}
	})
}
