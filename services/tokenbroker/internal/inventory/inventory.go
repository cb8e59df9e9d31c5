package inventory

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/process"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

const (
	every = time.Minute
	// atMost bounds one count of everything.
	atMost = 2 * time.Second
)

// Store counts.
type Store interface {
	CountConnections(ctx context.Context) ([]store.ConnectionCount, error)
	CountKeys(ctx context.Context) ([]store.KeyCount, error)
	CountRevocations(ctx context.Context) (store.RevocationQueue, error)
}

// Config makes an Inventory. All fields are required.
type Config struct {
	Store  Store
	Meter  metric.MeterProvider
	Logger *slog.Logger
}

// Inventory is the latest counts. It is safe for concurrent use.
type Inventory struct {
	cfg Config

	connections, sealed, queue, oldest metric.Int64ObservableGauge

	mu     sync.Mutex
	counts counts
}

type counts struct {
	connections []store.ConnectionCount
	keys        []store.KeyCount
	queue       *store.RevocationQueue
}

// New registers the gauges; Run fills them.
func New(cfg Config) (*Inventory, error) {
	i := &Inventory{cfg: cfg}
	meter := cfg.Meter.Meter("chatelaine.dev/services/tokenbroker/internal/inventory")
	for _, g := range []struct {
		into              *metric.Int64ObservableGauge
		name, unit, about string
	}{
		{&i.connections, "connections", "{connection}", "Stored connections, by provider and status; the same in every replica."},
		{&i.sealed, "sealed.values", "{value}", "Stored values that a key-encryption key protects; the same in every replica."},
		{&i.queue, "revocation.queue", "{revocation}", "Sets of tokens that wait to be revoked at their provider; the same in every replica."},
		{&i.oldest, "revocation.oldest", "s", "How long the first of them has waited; the same in every replica."},
	} {
		gauge, err := meter.Int64ObservableGauge("chatelaine.tokenbroker."+g.name,
			metric.WithUnit(g.unit), metric.WithDescription(g.about))
		if err != nil {
			return nil, fault.Wrap(fault.Internal, err, "cannot make a metric")
		}
		*g.into = gauge
	}
	if _, err := meter.RegisterCallback(i.observe, i.connections, i.sealed, i.queue, i.oldest); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "cannot make a metric")
	}
	return i, nil
}

func (i *Inventory) observe(_ context.Context, o metric.Observer) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if q := i.counts.queue; q != nil {
		o.ObserveInt64(i.queue, q.Count)
		o.ObserveInt64(i.oldest, int64(q.Oldest.Seconds()))
	}
	for _, c := range i.counts.connections {
		o.ObserveInt64(i.connections, c.Count, metric.WithAttributes(
			attribute.String("provider", c.Provider), attribute.String("status", string(c.Status))))
	}
	for _, k := range i.counts.keys {
		o.ObserveInt64(i.sealed, k.Count, metric.WithAttributes(attribute.String("key_id", k.KeyID)))
	}
	return nil
}

// Run counts soon, and then about once a minute until ctx ends.
func (i *Inventory) Run(ctx context.Context) error {
	outage := process.Outage{
		Logger: i.cfg.Logger, Fails: "what is stored cannot be counted, its metrics are left out until it can", Works: "what is stored is counted again",
	}
	wait := rand.N(every / 12) //nolint:gosec // replicas that start together do not count together
	for {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		outage.Note(ctx, i.Count(ctx))
		wait = every
	}
}

// Count counts once, within two seconds. What fails to be counted is unknown from
// then on.
func (i *Inventory) Count(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	var now counts
	var err error
	if now.connections, err = i.cfg.Store.CountConnections(ctx); err == nil {
		now.keys, err = i.cfg.Store.CountKeys(ctx)
	}
	if err == nil {
		var queue store.RevocationQueue
		queue, err = i.cfg.Store.CountRevocations(ctx)
		now.queue = &queue
	}
	if err != nil {
		now = counts{}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.counts = now
	return err
}
