package deployment

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/tokenbroker/internal/upstream"
)

const (
	lookEvery    = 5 * time.Second
	keepPrevious = 10 * time.Minute
)

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
	// Path is a file or a folder.
	Path string
	// Providers prepares the upstream providers of a set.
	Providers func(*config.Deployment) (*upstream.Registry, error)
	// Prepare, when set, is called with each snapshot before it is used; an error
	// refuses the set.
	Prepare func(*Snapshot) error
	Logger  *slog.Logger
}

// Source has the current snapshot and those before. It is safe for concurrent use.
type Source struct {
	cfg Config

	mu       sync.RWMutex
	current  *Snapshot
	previous map[string]retired // by digest
	refused  string             // what the log was told last
}

type retired struct {
	snapshot *Snapshot
	until    time.Time
}

// Open loads the set. Errors are Invalid and list all problems of the set, or
// those of Prepare.
func Open(cfg Config) (*Source, error) {
	s := &Source{cfg: cfg, previous: map[string]retired{}}
	snapshot, err := s.load("")
	if err != nil {
		return nil, err
	}
	s.current = snapshot
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

// Run looks for a changed set until ctx ends.
func (s *Source) Run(ctx context.Context) error {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			s.Reload(ctx)
		}
	}
}

// Reload looks at the path once.
func (s *Source) Reload(ctx context.Context) {
	snapshot, err := s.load(s.Current().Digest)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for digest, old := range s.previous {
		if now.After(old.until) {
			delete(s.previous, digest)
		}
	}
	switch {
	case err != nil:
		if text := fault.Detail(err); text != s.refused { // once, not every five seconds
			s.refused = text
			s.cfg.Logger.LogAttrs(ctx, slog.LevelError, "keeping the last good configuration", fault.Attr(err))
		}
	case snapshot == nil:
		s.refused = ""
	default:
		s.refused = ""
		s.previous[s.current.Digest] = retired{s.current, now.Add(keepPrevious)}
		delete(s.previous, snapshot.Digest)
		s.current = snapshot
		s.cfg.Logger.InfoContext(ctx, "configuration changed", slog.String("config_digest", snapshot.Digest))
	}
}

// load returns nil when the set has the digest already.
func (s *Source) load(digest string) (*Snapshot, error) {
	set, report := config.Load(s.cfg.Path)
	if err := report.Err(); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "the configuration cannot be used")
	}
	if set.Digest() == digest {
		return nil, nil
	}
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
