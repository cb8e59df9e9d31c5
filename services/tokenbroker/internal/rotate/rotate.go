package rotate

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/tokenbroker/internal/seal"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

const (
	batch = 500
	// parallel is how many data keys are wrapped at once: a key that is asked over
	// the network takes its time.
	parallel = 8
	// passes bounds how often it looks again for values that were busy, or were
	// sealed with another key meanwhile.
	passes = 8
	// between two passes.
	between = 250 * time.Millisecond
)

// Store keeps sealed values.
type Store interface {
	KeysInUse(ctx context.Context) ([]store.KeyUse, error)
	KeysToRewrap(ctx context.Context, table, newest, after string, limit int) ([]store.WrappedKey, error)
	Rewrap(ctx context.Context, table string, keys []store.Rewrapped) (replaced int64, err error)
	SealedTables() []string
}

// Config makes a Rotation. All fields are required.
type Config struct {
	Store  Store
	Sealer *seal.Sealer
	// Progress is told how many values have been wrapped anew so far, and how many
	// there were to do at the start, after each batch.
	Progress func(done, of int64)
}

// Rotation wraps values anew, once.
type Rotation struct {
	cfg      Config
	done, of int64
	// broken are values whose data key does not open, by key, in the present pass.
	broken map[string]*broken
}

type broken struct {
	count int
	first store.WrappedKey
}

// New returns a rotation.
func New(cfg Config) *Rotation { return &Rotation{cfg: cfg} }

// Run wraps everything with the newest key and returns how many values it wrapped
// anew, also with an error. It returns nil when the newest key wraps everything.
// Errors are Precondition with a reason of package seal when a key is not given or
// values do not open, Conflict when somebody goes on to seal with another key, and
// Unavailable when the database or a key cannot be asked.
func (r *Rotation) Run(ctx context.Context) (done int64, err error) {
	for pass := range passes {
		left, err := r.left(ctx)
		if err != nil || len(left) == 0 {
			return r.done, err
		}
		if pass == 0 {
			for _, u := range left {
				r.of += u.Count
			}
		}
		r.broken = map[string]*broken{}
		for _, table := range r.cfg.Store.SealedTables() {
			if err := r.table(ctx, table); err != nil {
				return r.done, err
			}
		}
		left, err = r.left(ctx)
		if err != nil || len(left) == 0 {
			return r.done, err
		}
		if err := r.hopeless(left); err != nil {
			return r.done, err
		}
		if err := pause(ctx); err != nil {
			return r.done, err
		}
	}
	left, err := r.left(ctx)
	if err != nil || len(left) == 0 {
		return r.done, err
	}
	return r.done, fault.Newf(fault.Conflict,
		"%d values are still sealed with key-encryption key %s: a broker that runs has it first; give all of them the newest key first, then run this again",
		left[0].Count, left[0].KeyID).WithReason("seal_key_in_use", "key_id", left[0].KeyID)
}

// left returns what other keys than the newest wrap.
func (r *Rotation) left(ctx context.Context) (left []store.KeyUse, err error) {
	uses, err := r.cfg.Store.KeysInUse(ctx)
	if err != nil {
		return nil, err
	}
	for _, u := range uses {
		if u.KeyID != r.cfg.Sealer.Keys().Newest() {
			left = append(left, u)
		}
	}
	return left, nil
}

// hopeless returns an error when nothing is left but what another pass cannot wrap
// either.
func (r *Rotation) hopeless(left []store.KeyUse) error {
	count := map[string]int64{}
	for _, u := range left {
		count[u.KeyID] += u.Count
	}
	for id, n := range count {
		if b := r.broken[id]; b == nil || int64(b.count) < n {
			return nil
		}
	}
	u := left[0]
	b := r.broken[u.KeyID]
	if !r.cfg.Sealer.Keys().Has(u.KeyID) {
		return MissingKey(u.KeyID, count[u.KeyID])
	}
	return fault.Newf(fault.Precondition, "%d values under the key-encryption key %s do not open; one is in table %s, row %s",
		b.count, u.KeyID, b.first.Table, b.first.Row).WithReason(seal.ReasonInvalid, "key_id", u.KeyID)
}

// MissingKey is the error for a key that protects values and is not given.
func MissingKey(id string, values int64) *fault.Error {
	return fault.Newf(fault.Precondition,
		"key-encryption key %s protects %d stored values and is not among those given: add its secret with --key-encryption-key",
		id, values).WithReason(seal.ReasonKeyUnknown, "key_id", id)
}

// table wraps what it finds in one table, row by row.
func (r *Rotation) table(ctx context.Context, table string) error {
	for after := ""; ; {
		found, err := r.cfg.Store.KeysToRewrap(ctx, table, r.cfg.Sealer.Keys().Newest(), after, batch)
		if err != nil || len(found) == 0 {
			return err
		}
		after = found[len(found)-1].Row
		wrapped, err := r.wrap(ctx, found)
		if err != nil {
			return err
		}
		replaced, err := r.cfg.Store.Rewrap(ctx, table, wrapped)
		if err != nil {
			return err
		}
		r.done += replaced
		r.cfg.Progress(r.done, r.of)
	}
}

// wrap wraps a batch anew. What cannot be unwrapped is noted and left out.
func (r *Rotation) wrap(ctx context.Context, found []store.WrappedKey) ([]store.Rewrapped, error) {
	rewrapped, failed := make([]store.Rewrapped, len(found)), make([]bool, len(found))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i, k := range found {
		group.Go(func() error {
			now, err := r.cfg.Sealer.Rewrap(ctx, k.Sealed, k.Place)
			switch fault.ReasonOf(err) {
			case seal.ReasonKeyUnknown, seal.ReasonInvalid:
				failed[i] = true
				return nil
			}
			rewrapped[i] = store.Rewrapped{Row: k.Row, Old: k.Sealed, New: now}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	kept := rewrapped[:0]
	for i, k := range found {
		if !failed[i] {
			kept = append(kept, rewrapped[i])
			continue
		}
		if r.broken[k.Sealed.KeyID] == nil {
			r.broken[k.Sealed.KeyID] = &broken{first: k}
		}
		r.broken[k.Sealed.KeyID].count++
	}
	return kept, nil
}

func pause(ctx context.Context) error {
	timer := time.NewTimer(between)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return fault.From(ctx.Err())
	case <-timer.C:
		return nil
	}
}
