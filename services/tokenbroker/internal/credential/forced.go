package credential

import (
	"sync"
	"time"
)

const (
	// forcedPause is how long a token service, or a backend, that refuses a connection's
	// tokens even after a renewal gets no other one of it by force, whatever their version.
	forcedPause = 10 * time.Minute
	// forcedKept is how long a token service gets none of the very version that it refused.
	forcedKept = 24 * time.Hour
	// maxForced is how many are remembered.
	maxForced = 10_000
)

// forcedRenewals remembers connections that were renewed because a token service or
// a backend did not take their token. Where the fault is not the token's, a renewal
// would come of every call, and each makes a version that looks as if it were
// untried: so a token that came of one is not renewed for the same service again,
// and each renewal voids what other backends have. It is safe for concurrent use;
// replicas have one each.
type forcedRenewals struct {
	now func() time.Time

	mu   sync.RWMutex
	made map[forcedKey]forcedRenewal
}

// forcedKey is a connection, and who did not take its token: the configuration of
// an exchange, or a backend.
type forcedKey struct{ connection, exchange, backend string }

// forcedRenewal is the version that a forced renewal made for a token service, or
// ofBackend.
type forcedRenewal struct {
	version int64
	at      time.Time
}

// ofBackend stands for every version: a backend does not say that it took one, so
// that nothing would end the longer time.
const ofBackend = -1

func newForcedRenewals(now func() time.Time) *forcedRenewals {
	return &forcedRenewals{now: now, made: map[forcedKey]forcedRenewal{}}
}

// may reports whether a version that was refused should be renewed.
func (f *forcedRenewals) may(k forcedKey, version int64) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	made, ok := f.made[k]
	return !ok || made.over(version, f.now())
}

func (r forcedRenewal) over(version int64, now time.Time) bool {
	if r.version == version && version != ofBackend {
		return now.Sub(r.at) >= forcedKept
	}
	return now.Sub(r.at) >= forcedPause
}

// note remembers a version that was made for a token service.
func (f *forcedRenewals) note(k forcedKey, version int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	if _, known := f.made[k]; !known && len(f.made) >= maxForced {
		f.makeRoom(now)
	}
	f.made[k] = forcedRenewal{version, now}
}

// makeRoom is called with the lock held: what is over goes, or else the oldest.
func (f *forcedRenewals) makeRoom(now time.Time) {
	var oldest forcedKey
	at := now
	for k, made := range f.made {
		if made.over(made.version, now) {
			delete(f.made, k)
		} else if !made.at.After(at) {
			oldest, at = k, made.at
		}
	}
	if len(f.made) >= maxForced {
		delete(f.made, oldest)
	}
}

// accepted forgets: the token service takes the connection's tokens.
func (f *forcedRenewals) accepted(k forcedKey) {
	f.mu.RLock()
	_, ok := f.made[k]
	f.mu.RUnlock()
	if !ok { // nearly always
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.made, k)
}
