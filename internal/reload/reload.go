package reload

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/telemetry"
)

// DefaultEvery is how often the files are read.
const DefaultEvery = 5 * time.Second

// Config makes a Follower. All fields but Every are required.
type Config struct {
	// Path is a file or a folder of resources.
	Path string
	// Digest of the set that is in use.
	Digest string
	// Apply takes a set into use, or returns an error and leaves the last one.
	Apply func(ctx context.Context, set *config.Set) error
	// Every is how often to look; zero means DefaultEvery.
	Every     time.Duration
	Telemetry *telemetry.Telemetry
}

// Follower keeps a service up with its resources.
type Follower struct {
	cfg     Config
	digest  string // in use
	refused string // what the log was told last
	stale   atomic.Bool
}

// New returns a follower; Run must run.
func New(cfg Config) (*Follower, error) {
	if cfg.Every <= 0 {
		cfg.Every = DefaultEvery
	}
	f := &Follower{cfg: cfg, digest: cfg.Digest}
	_, err := cfg.Telemetry.Meter.Meter("chatelaine.dev/internal/reload").Int64ObservableGauge("chatelaine.config.current",
		metric.WithDescription("1 while the resources that the files hold are in use, 0 while older ones are."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			current := int64(1)
			if f.stale.Load() {
				current = 0
			}
			o.Observe(current)
			return nil
		}))
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "cannot make a metric")
	}
	return f, nil
}

// Run looks at the files until ctx ends.
func (f *Follower) Run(ctx context.Context) error {
	ticker := time.NewTicker(f.cfg.Every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			f.look(ctx)
		}
	}
}

func (f *Follower) look(ctx context.Context) {
	set, report := config.Load(f.cfg.Path)
	digest, err := f.follow(ctx, set, report)
	log := f.cfg.Telemetry.Logger
	switch {
	case ctx.Err() != nil:
		return
	case err != nil:
		f.stale.Store(true)
		if text := fault.Detail(err) + report.String(); text != f.refused { // once, not every five seconds
			f.refused = text
			report.Log(log)
			log.LogAttrs(ctx, slog.LevelError, "the resources changed; keeping the last ones", slog.String("in_use", f.digest), fault.Attr(err))
		}
	case digest == f.digest && f.refused != "":
		log.InfoContext(ctx, "the resources are again those that are in use", slog.String("config_digest", digest))
	case digest != f.digest:
		report.Log(log)
		log.InfoContext(ctx, "the resources changed and are in use", slog.String("config_digest", digest))
	}
	if err == nil {
		f.stale.Store(false)
		f.digest, f.refused = digest, ""
	}
}

// follow returns the digest of what the files hold, which then is in use.
func (f *Follower) follow(ctx context.Context, set *config.Set, report *config.Report) (string, error) {
	if !report.OK() {
		return "", fault.New(fault.Invalid, "the resources are not valid: correct the problems above").WithReason("resources_invalid")
	}
	if set.Digest() == f.digest {
		return f.digest, nil
	}
	if err := f.cfg.Apply(ctx, set); err != nil {
		return "", err
	}
	return set.Digest(), nil
}
