package keys

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/process"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/authserver/internal/store"
)

// Defaults of Config.
const (
	DefaultPublishDelay = 10 * time.Minute
	DefaultRefresh      = 30 * time.Second
	// leeway is how much longer than its tokens a key is kept.
	leeway = 10 * time.Minute
)

// Store is where public halves are shared.
type Store interface {
	PublishKeys(ctx context.Context, keys []store.SigningKey, keepFor time.Duration) ([]store.SigningKey, error)
}

// Config makes a Set.
type Config struct {
	// Keys of the configuration, newest first; at least one.
	Keys []*Key
	// TokenLifespan is the longest life of what is signed.
	TokenLifespan time.Duration
	// PublishDelay is how long a key is published before it signs.
	PublishDelay time.Duration
	// Refresh is how often the store is asked.
	Refresh time.Duration
	// MACKeys authenticate what is shared through the store, newest first; at least
	// one.
	MACKeys []secret.Bytes
	Store   Store
	Logger  *slog.Logger
}

// Set signs and verifies. It is safe for concurrent use.
type Set struct {
	cfg     Config
	public  []store.SigningKey
	own     map[string]jose.JSONWebKey
	current atomic.Pointer[snapshot]
}

// snapshot is what the last look into the store has told.
type snapshot struct {
	signer *Key
	jwks   []byte
	keys   map[string]jose.JSONWebKey
}

// New returns a set that can sign once Run, or Publish, has reached the store.
func New(cfg Config) (*Set, error) {
	if len(cfg.Keys) == 0 {
		return nil, fault.New(fault.Invalid, "a signing key is required")
	}
	if len(cfg.MACKeys) == 0 {
		return nil, fault.New(fault.Invalid, "a secret that authenticates the shared keys is required")
	}
	if cfg.Refresh <= 0 {
		cfg.Refresh = DefaultRefresh
	}
	s := &Set{cfg: cfg, own: map[string]jose.JSONWebKey{}}
	for i, k := range cfg.Keys {
		if _, twice := s.own[k.id]; twice {
			return nil, fault.Newf(fault.Invalid, "signing key %d is given twice", i+1)
		}
		s.own[k.id] = jose.JSONWebKey{Key: k.private.Public(), KeyID: k.id, Algorithm: string(k.algorithm), Use: "sig"}
		jwk, err := json.Marshal(s.own[k.id])
		if err != nil {
			return nil, fault.Wrap(fault.Internal, err, "cannot write a public key")
		}
		s.public = append(s.public, store.SigningKey{KID: k.id, JWK: jwk, MAC: mac(cfg.MACKeys[0], k.id, jwk)})
	}
	return s, nil
}

// Run publishes the keys now and then until ctx ends. A store that is down is
// logged once and tried again; the last known keys go on.
func (s *Set) Run(ctx context.Context) error {
	outage := process.Outage{
		Logger: s.cfg.Logger, Fails: "the signing keys cannot be published, those known last go on", Works: "the signing keys are published",
	}
	for {
		outage.Note(ctx, s.Publish(ctx))
		pause := s.cfg.Refresh
		if s.current.Load() == nil {
			pause = min(pause, time.Second) // nothing can be signed: be quick
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// Publish stores the public halves and reads those of the others.
func (s *Set) Publish(ctx context.Context) error {
	all, err := s.cfg.Store.PublishKeys(ctx, s.public, s.cfg.TokenLifespan+leeway)
	if err != nil {
		return err
	}
	next := &snapshot{keys: make(map[string]jose.JSONWebKey, len(all))}
	published := make(map[string]time.Duration, len(all))
	document := struct {
		Keys []json.RawMessage `json:"keys"`
	}{Keys: []json.RawMessage{}}
	for _, k := range all {
		jwk, text, err := s.trusted(k)
		if err != nil {
			s.cfg.Logger.WarnContext(ctx, "a shared signing key is left out", slog.String("kid", k.KID), fault.Attr(err))
			continue
		}
		next.keys[k.KID] = jwk
		document.Keys = append(document.Keys, text)
		published[k.KID] = k.Age
	}
	if next.jwks, err = json.Marshal(document); err != nil {
		return fault.Wrap(fault.Internal, err, "cannot write the key set")
	}
	next.signer = s.choose(published)
	if before := s.current.Swap(next); before == nil || before.signer != next.signer {
		s.cfg.Logger.InfoContext(ctx, "signing key chosen", slog.String("kid", next.signer.id), slog.String("algorithm", string(next.signer.algorithm)))
	}
	return nil
}

// trusted returns a key of the store if it is one of ours, or a server that has one
// of our secrets wrote it: whoever can write to the table alone could otherwise have
// a key of their own published, and sign anybody's tokens.
func (s *Set) trusted(k store.SigningKey) (jwk jose.JSONWebKey, text json.RawMessage, err error) {
	jwk, own := s.own[k.KID]
	if !own {
		if err := json.Unmarshal(k.JWK, &jwk); err != nil || !jwk.Valid() || !jwk.IsPublic() || jwk.KeyID != k.KID {
			return jwk, nil, fault.Wrap(fault.Invalid, err, "it is no public key")
		}
	}
	// As we write it: the database does not keep a document's bytes.
	if text, err = json.Marshal(jwk); err != nil {
		return jwk, nil, fault.Wrap(fault.Internal, err, "it cannot be written")
	}
	if !own && !slices.ContainsFunc(s.cfg.MACKeys, func(key secret.Bytes) bool { return hmac.Equal(mac(key, k.KID, text), k.MAC) }) {
		return jwk, nil, fault.New(fault.Unauthenticated, "no secret of this configuration has authenticated it")
	}
	return jwk, text, nil
}

// mac authenticates a key; no kid has a zero.
func mac(key secret.Bytes, kid string, jwk []byte) []byte {
	h := hmac.New(sha256.New, key.Reveal())
	h.Write([]byte(kid + "\x00"))
	h.Write(jwk)
	return h.Sum(nil)
}

// choose returns the newest configured key that was published long enough ago;
// while there is none (a new deployment), the one that was published first.
func (s *Set) choose(published map[string]time.Duration) *Key {
	oldest := s.cfg.Keys[0]
	for _, k := range s.cfg.Keys {
		if published[k.id] >= s.cfg.PublishDelay {
			return k
		}
		if published[k.id] > published[oldest.id] {
			oldest = k
		}
	}
	return oldest
}

// Ready is a readiness check: the keys have been published.
func (s *Set) Ready(context.Context) error {
	_, err := s.snapshot()
	return err
}

func (s *Set) snapshot() (*snapshot, error) {
	if now := s.current.Load(); now != nil {
		return now, nil
	}
	return nil, fault.New(fault.Unavailable, "the signing keys are not published yet").WithReason("keys_unpublished")
}

// JWKS returns the key set document (RFC 7517, section 5).
func (s *Set) JWKS() ([]byte, error) {
	now, err := s.snapshot()
	if err != nil {
		return nil, err
	}
	return now.jwks, nil
}

// Algorithm returns that of the newest configured key.
func (s *Set) Algorithm() string { return string(s.cfg.Keys[0].algorithm) }

// Sign returns claims as a JWT with this typ (RFC 9068: at+jwt).
func (s *Set) Sign(typ string, claims any) (string, error) {
	now, err := s.snapshot()
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fault.Wrap(fault.Internal, err, "cannot write the claims")
	}
	key := now.signer
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: key.algorithm, Key: jose.JSONWebKey{Key: key.private, KeyID: key.id}},
		(&jose.SignerOptions{}).WithType(jose.ContentType(typ)))
	if err != nil {
		return "", fault.Wrap(fault.Internal, err, "cannot sign")
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", fault.Wrap(fault.Internal, err, "cannot sign")
	}
	return signed.CompactSerialize()
}

// maxTokenBytes bounds what Verify parses.
const maxTokenBytes = 16 << 10

// Verify checks that token is a JWT with this typ that one of our keys signed, and
// returns its claims. It looks at no claim. Every failure that a stranger can
// cause is Unauthenticated.
func (s *Set) Verify(token, typ string) (json.RawMessage, error) {
	now, err := s.snapshot()
	if err != nil {
		return nil, err
	}
	notOurs := fault.New(fault.Unauthenticated, "the token is not ours")
	if len(token) > maxTokenBytes {
		return nil, notOurs
	}
	parsed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256, jose.ES384, jose.ES512, jose.RS256, jose.EdDSA})
	if err != nil {
		return nil, notOurs.WithCause(err)
	}
	header := parsed.Signatures[0].Protected
	key, known := now.keys[header.KeyID]
	if got, _ := header.ExtraHeaders[jose.HeaderType].(string); !known || got != typ || header.Algorithm != key.Algorithm {
		return nil, notOurs
	}
	claims, err := parsed.Verify(key)
	if err != nil {
		return nil, notOurs.WithCause(err)
	}
	return claims, nil
}
