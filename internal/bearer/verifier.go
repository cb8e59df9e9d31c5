package bearer

import (
	"context"
	"crypto/sha256"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"chatelaine.dev/internal/fault"
)

// Reasons of errors.
const (
	ReasonMalformed = "token_malformed"
	ReasonSignature = "token_signature"
	ReasonExpired   = "token_expired"
	ReasonAudience  = "token_audience"
	ReasonIssuer    = "token_issuer"
	ReasonType      = "token_type"
	// ReasonKeys is that of Unavailable: the issuer's keys cannot be had.
	ReasonKeys = "keys_unavailable"
)

const (
	// MaxTokenSize bounds a token, in bytes.
	MaxTokenSize = 8 << 10
	// DefaultLeeway is how far clocks may differ.
	DefaultLeeway = 30 * time.Second
	// DefaultCacheSize is how many verified tokens are remembered.
	DefaultCacheSize = 10_000
	// TypeAccessToken is the "typ" of RFC 9068 access tokens.
	TypeAccessToken = "at+jwt"

	rememberFor = 5 * time.Minute
)

// asymmetric are the algorithms that may be in an allow-list: a symmetric one
// would make the public keys secret, "none" would make them useless. Each fits
// one type of key (for ECDSA, one curve), so that the issuer's keys decide.
var asymmetric = []jose.SignatureAlgorithm{
	jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
	jose.PS256, jose.PS384, jose.PS512, jose.RS256, jose.RS384, jose.RS512,
}

// asymmetricNames returns every algorithm that a Verifier can allow, for those who
// leave the choice to the issuer's keys.
func asymmetricNames() []string {
	names := make([]string, len(asymmetric))
	for i, a := range asymmetric {
		names[i] = string(a)
	}
	return names
}

// Config makes a Verifier.
type Config struct {
	// Issuer is what "iss" must be, byte for byte. Required.
	Issuer string
	// JWKSURL is where the issuer's keys are. Empty: it is found in the issuer's
	// metadata (OpenID Connect Discovery, RFC 8414).
	JWKSURL string
	// Client fetches keys; see package outbound. Required.
	Client *http.Client
	// Algorithms are accepted; empty means ES256 alone.
	Algorithms []string
	// Type is what the header "typ" must be (TypeAccessToken); empty means any,
	// for issuers that predate RFC 9068.
	Type string
	// Leeway is how far clocks may differ when exp and nbf are judged; zero means
	// DefaultLeeway.
	Leeway time.Duration
	// CacheSize is how many verified tokens are remembered; zero means
	// DefaultCacheSize, negative none.
	CacheSize int
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Claims are what a verified token says. They may be shared with other calls:
// do not change them.
type Claims struct {
	Issuer   string
	Subject  string
	Audience []string
	// ClientID is "client_id", or "azp" where an issuer has only that.
	ClientID string
	// Scope is space-separated: "scope", or "scp" where an issuer has only that.
	Scope string
	// SessionID is "tsid", our own session; empty in an external issuer's token.
	SessionID string
	ID        string
	Expiry    time.Time
}

// HasScope reports whether the token was given scope.
func (c *Claims) HasScope(scope string) bool {
	return slices.Contains(strings.Fields(c.Scope), scope)
}

// Verifier verifies the tokens of one issuer. It is safe for concurrent use.
type Verifier struct {
	cfg   Config
	algs  []jose.SignatureAlgorithm
	keys  *keySet
	cache *cache
}

// New makes a verifier. It fetches nothing. Errors are Invalid.
func New(cfg Config) (*Verifier, error) {
	if cfg.Issuer == "" || cfg.Client == nil {
		return nil, fault.New(fault.Invalid, "a token verifier needs an issuer and an HTTP client")
	}
	if len(cfg.Algorithms) == 0 {
		cfg.Algorithms = []string{string(jose.ES256)}
	}
	v := &Verifier{}
	for _, name := range cfg.Algorithms {
		if !slices.Contains(asymmetric, jose.SignatureAlgorithm(name)) {
			return nil, fault.Newf(fault.Invalid, "algorithm %q cannot be allowed for access tokens", name)
		}
		v.algs = append(v.algs, jose.SignatureAlgorithm(name))
	}
	if cfg.Leeway == 0 {
		cfg.Leeway = DefaultLeeway
	}
	if cfg.CacheSize == 0 {
		cfg.CacheSize = DefaultCacheSize
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	v.cfg = cfg
	v.keys = newKeySet(cfg)
	v.cache = newCache(cfg.CacheSize)
	return v, nil
}

// Verify returns the claims of a token that the issuer signed, that has not
// expired, and whose audience has at least one of accepted (compared byte for
// byte). accepted must not be empty.
func (v *Verifier) Verify(ctx context.Context, raw string, accepted ...string) (*Claims, error) {
	if len(accepted) == 0 {
		return nil, fault.New(fault.Internal, "").WithCause(errNoAudience)
	}
	if len(raw) > MaxTokenSize {
		return nil, malformed(nil)
	}
	now := v.cfg.Now()
	sum := digest(raw)
	claims, ok := v.cache.get(sum, now, v.keys.generation.Load())
	if !ok {
		var err error
		if claims, err = v.verify(ctx, raw, sum, now); err != nil {
			return nil, err
		}
	}
	if now.After(claims.Expiry.Add(v.cfg.Leeway)) {
		return nil, reject(ReasonExpired, "the access token has expired")
	}
	for _, audience := range accepted {
		if slices.Contains(claims.Audience, audience) {
			return claims, nil
		}
	}
	return nil, reject(ReasonAudience, "the access token is not for this resource")
}

// digest hashes a token of ordinary size without an allocation.
func digest(raw string) [sha256.Size]byte {
	var buf [2 << 10]byte
	return sha256.Sum256(append(buf[:0], raw...))
}

// verify does the costly part: everything but expiry and audience.
func (v *Verifier) verify(ctx context.Context, raw string, sum [sha256.Size]byte, now time.Time) (*Claims, error) {
	token, err := jose.ParseSignedCompact(raw, v.algs)
	if err != nil {
		return nil, malformed(err)
	}
	header := token.Signatures[0].Protected
	if v.cfg.Type != "" && !sameType(header.ExtraHeaders[jose.HeaderType], v.cfg.Type) {
		return nil, reject(ReasonType, "the token is not an access token")
	}
	keys, generation, err := v.keys.find(ctx, header.KeyID, header.Algorithm)
	if err != nil {
		return nil, err
	}
	payload, err := verifySignature(token, keys)
	if err != nil {
		return nil, err
	}
	claims, err := parseClaims(payload, v.cfg, now)
	if err != nil {
		return nil, err
	}
	forget := now.Add(rememberFor)
	if end := claims.Expiry.Add(v.cfg.Leeway); end.Before(forget) {
		forget = end
	}
	v.cache.put(sum, claims, forget, generation)
	return claims, nil
}

func verifySignature(token *jose.JSONWebSignature, keys []any) ([]byte, error) {
	for _, key := range keys {
		if payload, err := token.Verify(key); err == nil {
			return payload, nil
		}
	}
	return nil, reject(ReasonSignature, "the access token's signature is not valid")
}

// sameType compares media types without regard to case, with and without
// "application/" (RFC 7515 section 4.1.9).
func sameType(header any, want string) bool {
	typ, ok := header.(string)
	if !ok {
		return false
	}
	typ = strings.ToLower(typ)
	return strings.TrimPrefix(typ, "application/") == strings.ToLower(want)
}

func reject(reason, msg string) *fault.Error {
	return fault.New(fault.Unauthenticated, msg).WithReason(reason)
}

func malformed(cause error) *fault.Error {
	return reject(ReasonMalformed, "the access token is malformed").WithCause(cause)
}
