package upstream

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/go-jose/go-jose/v4"

	"chatelaine.dev/internal/bearer"
	"chatelaine.dev/services/tokenbroker/internal/upstream/endpoint"
)

// keySet is a provider's public keys.
type keySet []jose.JSONWebKey

// find returns the keys that may have signed a token with this header.
func (s keySet) find(kid, alg string) []any {
	var found []any
	for i := range s {
		if (kid == "" || s[i].KeyID == kid) && (s[i].Algorithm == "" || s[i].Algorithm == alg) {
			found = append(found, s[i].Key)
		}
	}
	return found
}

// fetchKeys reads the JWK Set (RFC 7517, section 5). Keys of kinds that we do
// not use are left out.
func (o *oidc) fetchKeys(ctx context.Context) (keySet, error) {
	m, err := o.metadata.get(ctx, nil)
	if err != nil {
		return nil, err
	}
	var keys keySet
	err = o.p.client.Do(ctx, endpoint.Request{Operation: "keys", Method: "GET", URL: m.jwks}, func(resp *endpoint.Response) error {
		var doc struct {
			Keys []json.RawMessage `json:"keys"`
		}
		if json.Unmarshal(resp.Body, &doc) != nil || len(doc.Keys) > bearer.MaxKeys {
			return o.p.client.Malformed(nil, "key set")
		}
		for _, raw := range doc.Keys {
			if key, ok := bearer.ParseJWK(raw); ok {
				keys = append(keys, key)
			}
		}
		if len(keys) == 0 {
			return o.p.client.Malformed(nil, "key set: it has no usable key")
		}
		return nil
	})
	return keys, err
}

// parseSigned reads a signed token without verifying it. No algorithm is symmetric, so
// that our client secret is no key.
func (o *oidc) parseSigned(token string) (*jose.JSONWebSignature, error) {
	jws, err := jose.ParseSignedCompact(token, bearer.SignatureAlgorithms())
	if err != nil || len(jws.Signatures) != 1 { // err may quote the token
		return nil, o.p.identityInvalid("signature", "its id token is no JWT, or is signed with an algorithm that is not accepted")
	}
	return jws, nil
}

// errUnknownKey is the cause where a key set that was fetched for the purpose has
// no key of the signature's id. Key sets may lag behind a rotation in caches.
var errUnknownKey = errors.New("the key set has no key of that id")

// verifySignature returns the payload of a signed token (RFC 7515, section 5.2).
// Its errors are reason.IdentityInvalid, or reason.UpstreamUnavailable when the
// key cannot be had now.
func (o *oidc) verifySignature(ctx context.Context, jws *jose.JSONWebSignature) ([]byte, error) {
	header := jws.Signatures[0].Protected
	keys, err := o.keys.get(ctx, func(s keySet) bool { return len(s.find(header.KeyID, header.Algorithm)) == 0 })
	switch {
	case errors.Is(err, errJustRead):
		return nil, o.p.client.Unusable(err, "signs with a key that its key set lacked a moment ago").WithRetryAfter(rereadPause)
	case err != nil:
		return nil, o.p.unreachable(err)
	}
	candidates := keys.find(header.KeyID, header.Algorithm)
	for _, key := range candidates {
		if payload, err := jws.Verify(key); err == nil {
			return payload, nil
		}
	}
	invalid := o.p.identityInvalid("signature", "its id token is not signed with one of its keys")
	if len(candidates) == 0 {
		return nil, invalid.WithCause(errUnknownKey)
	}
	return nil, invalid
}
