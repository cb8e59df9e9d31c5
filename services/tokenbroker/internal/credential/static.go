package credential

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"sync"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
)

// staticFreshFor is how long a static credential is served before its secret is
// read again: mounted secrets are replaced under a running process.
const staticFreshFor = 30 * time.Second

// static is a credential that is the same for everybody.
type static struct {
	header, scheme string
	ref            secret.Ref
	secrets        *secret.Resolver
	now            func() time.Time
	// salt keeps tags from being compared with guesses.
	salt [16]byte

	mu     sync.Mutex
	value  secret.String
	tag    string
	readAt time.Time
}

// newStatic reads the secret once, so that a missing one shows at start.
func newStatic(cfg PlansConfig, header, scheme string, ref secret.Ref) (*static, error) {
	s := &static{header: header, scheme: scheme, ref: ref, secrets: cfg.Secrets, now: cfg.Now}
	if _, err := rand.Read(s.salt[:]); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "")
	}
	return s, s.read()
}

// read is called with the lock held, or before anybody else has s.
func (s *static) read() error {
	value, err := s.secrets.Resolve(s.ref)
	if err != nil {
		return err
	}
	if !headerValue(value.Reveal()) {
		return fault.Newf(fault.Invalid, "secret %s cannot be put into a header", s.ref)
	}
	mac := hmac.New(sha256.New, s.salt[:])
	mac.Write([]byte(value.Reveal()))
	s.value, s.tag, s.readAt = value, hex.EncodeToString(mac.Sum(nil)[:8]), s.now()
	return nil
}

// current returns the value and its tag. A secret that can no longer be read
// leaves the last one in use; err then says why.
func (s *static) current(again bool) (value secret.String, tag string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if again || s.now().Sub(s.readAt) >= staticFreshFor {
		if err = s.read(); err != nil {
			s.readAt = s.now() // not with every call
		}
	}
	return s.value, s.tag, err
}
