package deployment

import (
	"context"
	"sync"
	"time"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/services/tokenbroker/internal/upstream"
)

// keepPrevious is how long a set can be found after another one was taken.
const keepPrevious = 10 * time.Minute

// Snapshot is one set of resources, ready to use. It does not change.
type Snapshot struct {
	// Digest of the resources.
	Digest     string
	Deployment *config.Deployment
	// Providers in the order of the chain; empty without an authorization server.
	Providers *upstream.Registry
}

// Config makes a Source.
type Config struct {
	// Providers prepares the upstream providers of a set.
	Providers func(*config.Deployment) (*upstream.Registry, error)
	// Prepare, when set, is called with each snapshot before it is used; an error
	// refuses the set.
	Prepare func(*Snapshot) error
}

// Source has the current snapshot and those before. It is safe for concurrent use.
type Source struct {
	cfg Config

	mu       sync.RWMutex
	current  *Snapshot
	previous map[string]retired // by digest
}

type retired struct {
	snapshot *Snapshot
	until    time.Time
}

// New returns a source whose current snapshot is of set. Errors are those of
// Providers and of Prepare.
func New(cfg Config, set *config.Set) (*Source, error) {
	s := &Source{cfg: cfg, previous: map[string]retired{}}
	var err error
	s.current, err = s.prepare(set)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Current returns the newest usable snapshot.
func (s *Source) Current() *Snapshot {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.current
}

// Find returns the snapshot of a digest: the current one, or one that was current
// within the past ten minutes.
func (s *Source) Find(digest string) (*Snapshot, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.current.Digest == digest {
		return s.current, true
	}
	old, ok := s.previous[digest]
	return old.snapshot, ok && time.Now().Before(old.until)
}

// Apply makes set the current one, or returns an error and leaves the last one.
func (s *Source) Apply(_ context.Context, set *config.Set) error {
	snapshot, err := s.prepare(set)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for digest, old := range s.previous {
		if now.After(old.until) {
			delete(s.previous, digest)
		}
	}
	s.previous[s.current.Digest] = retired{s.current, now.Add(keepPrevious)}
	delete(s.previous, snapshot.Digest) // rolled back to it
	s.current = snapshot
	return nil
}

func (s *Source) prepare(set *config.Set) (*Snapshot, error) {
	providers, err := s.cfg.Providers(set.Deployment())
	if err != nil {
		return nil, err
	}
	snapshot := &Snapshot{Digest: set.Digest(), Deployment: set.Deployment(), Providers: providers}
	if s.cfg.Prepare != nil {
		if err := s.cfg.Prepare(snapshot); err != nil {
			return nil, err
		}
	}
	return snapshot, nil
}
