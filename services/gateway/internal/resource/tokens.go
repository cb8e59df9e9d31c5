package resource

import (
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"chatelaine.dev/services/gateway/internal/caller"
)

const (
	tokenShards = 64 // a power of two
	shardTokens = 512
	// rememberFor is how long a verified token is not looked at again: as long
	// as a key that the issuer withdrew may still count on top.
	rememberFor = 10 * time.Second
)

// tokenCache remembers verified tokens for a few seconds. It stands in front of
// the verifier, whose own memory is one for all requests.
type tokenCache struct {
	seed   maphash.Seed
	shards [tokenShards]tokenShard
}

type tokenShard struct {
	mu     sync.RWMutex
	tokens map[string]verified
	_      [64]byte // keeps the locks of two shards off one cache line
}

type verified struct {
	who      *caller.Caller
	audience []string
	until    time.Time
}

func newTokenCache() *tokenCache {
	c := &tokenCache{seed: maphash.MakeSeed()}
	for i := range c.shards {
		c.shards[i].tokens = make(map[string]verified)
	}
	return c
}

func (c *tokenCache) shard(raw string) *tokenShard {
	return &c.shards[maphash.String(c.seed, raw)&(tokenShards-1)]
}

// get returns the caller of a token that has one of the accepted audiences.
func (c *tokenCache) get(raw string, accepted []string, now time.Time) (*caller.Caller, bool) {
	s := c.shard(raw)
	s.mu.RLock()
	v, ok := s.tokens[raw]
	s.mu.RUnlock()
	if !ok || !now.Before(v.until) {
		return nil, false
	}
	for _, a := range v.audience {
		if slices.Contains(accepted, a) {
			return v.who, true
		}
	}
	return nil, false
}

func (c *tokenCache) put(raw string, who *caller.Caller, audience []string, now time.Time) {
	until := now.Add(rememberFor)
	if who.ExpiresAt.Before(until) {
		until = who.ExpiresAt // what the leeway allows beyond is the verifier's to say
	}
	s := c.shard(raw)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tokens) >= shardTokens {
		for other, v := range s.tokens {
			if !now.Before(v.until) {
				delete(s.tokens, other)
			}
		}
	}
	for other := range s.tokens {
		if len(s.tokens) < shardTokens {
			break
		}
		delete(s.tokens, other)
	}
	s.tokens[raw] = verified{who, audience, until}
}
