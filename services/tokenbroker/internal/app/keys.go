package app

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/tokenbroker/internal/rotate"
	"chatelaine.dev/services/tokenbroker/internal/seal"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

// keyCheck makes sure that every key-encryption key in use is one that the
// process has, before it is ready. A wrong key shows at once and not at the first
// call that needs it.
type keyCheck struct {
	store  *store.Store
	sealer *seal.Sealer
	schema func(context.Context) error
	logger *slog.Logger
	passed atomic.Bool
}

const keyCheckEvery = time.Second

// Run waits for the database, checks once and returns. An error ends the process.
func (k *keyCheck) Run(ctx context.Context) error {
	for {
		retry, err := k.once(ctx)
		if err == nil {
			k.passed.Store(true)
			return nil
		}
		if !retry {
			return err
		}
		k.logger.LogAttrs(ctx, slog.LevelDebug, "the keys cannot be checked yet", fault.Attr(err))
		timer := time.NewTimer(keyCheckEvery)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

// once checks one value under each key. retry tells a database that is not there
// (or not migrated) from a key that is not.
func (k *keyCheck) once(ctx context.Context) (retry bool, err error) {
	if err := k.schema(ctx); err != nil {
		return true, err
	}
	uses, err := k.store.KeysInUse(ctx)
	if err != nil {
		return true, err
	}
	if retry, err := checkKeys(ctx, k.sealer, uses); err != nil {
		return retry, err
	}
	inUse := map[string]bool{}
	for _, use := range uses {
		inUse[use.KeyID] = true
	}
	k.logger.InfoContext(ctx, "key-encryption keys checked", slog.Int("in_use", len(inUse)))
	return false, nil
}

// checkKeys tries one value of each key and table. retry tells a key that cannot be
// asked at the moment from one that is missing or wrong.
func checkKeys(ctx context.Context, sealer *seal.Sealer, uses []store.KeyUse) (retry bool, err error) {
	for _, use := range uses {
		err := sealer.CheckKey(ctx, use.Sample.Sealed, use.Sample.Place)
		switch fault.ReasonOf(err) {
		case "":
			if err != nil {
				return true, err
			}
		case seal.ReasonKeyUnknown:
			var values int64
			for _, u := range uses {
				if u.KeyID == use.KeyID {
					values += u.Count
				}
			}
			return false, rotate.MissingKey(use.KeyID, values)
		default:
			return false, fault.Wrap(fault.Precondition, err, "values under the key-encryption key "+use.KeyID+
				" do not open, although that key is given: rows were changed or moved. `tokenbroker keys rotate` names one; see docs/operations.md").
				WithReason(fault.ReasonOf(err), "key_id", use.KeyID)
		}
	}
	return false, nil
}

// Ready is the readiness check.
func (k *keyCheck) Ready(context.Context) error {
	if !k.passed.Load() {
		return fault.New(fault.Precondition, "the key-encryption keys have not been checked against the database yet")
	}
	return nil
}
