package bearer

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/outbound"
)

const (
	// freshFor is the age at which keys are looked up again, so that a key that
	// the issuer withdrew stops counting.
	freshFor = 10 * time.Minute
	// retryAfter is the least time between two fetches, whoever asks.
	retryAfter = 5 * time.Second
	// firstRetryAfter is retryAfter while there are no keys at all.
	firstRetryAfter = time.Second
	// unknownFor is how long a key name that the issuer does not have causes no
	// further fetch.
	unknownFor = time.Minute
	maxUnknown = 1024

	fetchTimeout = 5 * time.Second
	maxDocument  = 256 << 10
	// maxCandidates bounds the signatures that one token without a key's name
	// can make us check.
	maxCandidates = 8
)

var errFetch = errors.New("the answer is not a usable document")

type publicKey struct {
	kid string
	alg string // "" means any that fits the type
	key any
	// print is the RFC 7638 thumbprint with name and algorithm.
	print string
}

// keySet is the issuer's public keys, fetched when somebody needs them.
type keySet struct {
	cfg    Config
	flight singleflight.Group
	// generation changes with the set, so that what was verified with a key
	// that is gone is verified again.
	generation atomic.Uint64

	mu        sync.Mutex
	keys      []publicKey
	jwksURL   string    // found by discovery
	fetched   time.Time // last success
	attempted time.Time // last attempt
	failure   error     // of the last attempt
	fetching  bool      // a fetch is on its way
	begun     uint64    // number of the last fetch that began
	answered  uint64    // number of the last fetch that succeeded
	unknown   map[string]time.Time
}

func newKeySet(cfg Config) *keySet {
	return &keySet{cfg: cfg, unknown: make(map[string]time.Time)}
}

// find returns the keys that may have signed a token with this header.
func (s *keySet) find(ctx context.Context, kid, alg string) ([]any, uint64, error) {
	keys, generation := s.lookup(kid, alg)
	wait, begun := s.wants(kid, len(keys) > 0)
	if wait {
		// One fetch for all that wait. It is not this caller's: another one may
		// need it after this one has gone.
		result := s.flight.DoChan("", func() (any, error) {
			if s.begin(kid, len(keys) > 0) {
				s.refresh(context.WithoutCancel(ctx))
			}
			return nil, nil
		})
		select {
		case <-result:
		case <-ctx.Done():
			return nil, 0, fault.From(ctx.Err())
		}
		keys, generation = s.lookup(kid, alg)
	}
	if len(keys) > 0 {
		return keys, generation, nil
	}
	return nil, 0, s.missing(kid, begun)
}

// lookup returns what is there now, and of which generation it is.
func (s *keySet) lookup(kid, alg string) (keys []any, generation uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.keys {
		if (kid == "" || k.kid == kid) && (k.alg == "" || k.alg == alg) && len(keys) < maxCandidates {
			keys = append(keys, k.key)
		}
	}
	return keys, s.generation.Load()
}

// wants decides whether to wait for a fetch: one that is due, or, without a key,
// one that is on its way. With a key nobody waits for another caller's fetch.
// begun numbers the last fetch that began before the caller came.
func (s *keySet) wants(kid string, known bool) (wait bool, begun uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fetching {
		return !known, s.begun
	}
	return s.due(kid, known), s.begun
}

// begin claims a fetch unless somebody made one since wants was asked.
func (s *keySet) begin(kid string, known bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fetching || !s.due(kid, known) {
		return false
	}
	s.fetching, s.attempted = true, s.cfg.Now()
	s.begun++
	return true
}

// due is the rate limit. The caller holds mu.
func (s *keySet) due(kid string, known bool) bool {
	now := s.cfg.Now()
	interval := retryAfter
	if len(s.keys) == 0 {
		interval = firstRetryAfter
	}
	if !s.attempted.IsZero() && now.Sub(s.attempted) < interval {
		return false
	}
	if known {
		return now.Sub(s.fetched) >= freshFor
	}
	until, negative := s.unknown[kid]
	return !negative || now.After(until) || s.failure != nil
}

// missing says why there is no key: nobody can tell, or the token is bad. Only a
// fetch that began after the caller came (later than begun) proves that the
// issuer does not have the key: an older answer may have been given just before
// the issuer published it.
func (s *keySet) missing(kid string, begun uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure != nil || s.fetched.IsZero() {
		return unavailable(s.failure, "the issuer's keys cannot be fetched")
	}
	now := s.cfg.Now()
	until, negative := s.unknown[kid]
	if !negative || now.After(until) {
		if s.answered <= begun {
			return unavailable(nil, "the access token's key is not known yet, and the issuer was asked a moment ago")
		}
		if len(s.unknown) >= maxUnknown {
			clear(s.unknown)
		}
		s.unknown[kid] = now.Add(unknownFor)
	}
	return reject(ReasonSignature, "the access token is signed with an unknown key")
}

func unavailable(cause error, msg string) error {
	return fault.Wrap(fault.Unavailable, cause, msg).WithReason(ReasonKeys).WithRetryAfter(retryAfter)
}

// refresh fetches and keeps the old keys when that fails.
func (s *keySet) refresh(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	s.mu.Lock()
	url := s.jwksURL
	s.mu.Unlock()

	keys, url, err := s.fetch(ctx, url)

	s.mu.Lock()
	defer s.mu.Unlock()
	s.fetching, s.failure = false, err
	if err != nil {
		s.jwksURL = "" // it may have moved: discover again
		return
	}
	s.fetched, s.jwksURL, s.answered = s.cfg.Now(), url, s.begun // one fetch at a time
	if !sameKeys(s.keys, keys) {
		s.keys = keys
		s.generation.Add(1)
	}
}

func (s *keySet) fetch(ctx context.Context, url string) ([]publicKey, string, error) {
	if s.cfg.JWKSURL != "" {
		url = s.cfg.JWKSURL
	}
	if url == "" {
		var err error
		if url, err = s.discover(ctx); err != nil {
			return nil, "", err
		}
	}
	var document struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := getJSON(ctx, s.cfg.Client, url, &document); err != nil {
		return nil, "", err
	}
	if len(document.Keys) > MaxKeys {
		return nil, "", fault.Wrap(fault.Unavailable, errFetch, "the issuer's key set is too large")
	}
	var keys []publicKey
	for _, raw := range document.Keys {
		if k, ok := parseKey(raw); ok { // a key of a kind that we do not use is no error
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil, "", fault.Wrap(fault.Unavailable, errFetch, "the issuer's key set has no usable key")
	}
	return keys, url, nil
}

func parseKey(raw json.RawMessage) (publicKey, bool) {
	jwk, ok := ParseJWK(raw)
	if !ok {
		return publicKey{}, false
	}
	sum, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		return publicKey{}, false
	}
	return publicKey{
		kid: jwk.KeyID, alg: jwk.Algorithm, key: jwk.Key,
		print: jwk.KeyID + "\x00" + jwk.Algorithm + "\x00" + string(sum),
	}, true
}

func sameKeys(a, b []publicKey) bool {
	return slices.EqualFunc(a, b, func(x, y publicKey) bool { return x.print == y.print })
}

// getJSON fetches a document of bounded size.
func getJSON(ctx context.Context, client *http.Client, url string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return fault.Wrap(fault.Unavailable, errFetch, "the URL of the issuer's keys is not valid")
	}
	req.Header.Set("Accept", "application/json")
	resp, err := outbound.Do(client, req) //nolint:bodyclose // outbound.ReadAll closes it
	if err != nil {
		return err
	}
	body, err := outbound.ReadAll(resp, maxDocument)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return &statusError{host: req.URL.Host, status: resp.StatusCode}
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fault.Wrap(fault.Unavailable, errFetch, req.URL.Host+" answered with something other than JSON")
	}
	return nil
}
