package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/services/tokenbroker/internal/seal"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

// rewrap replaces a connection's wrapped key, as read before.
func (f *fixture) rewrap(c *store.Connection) int64 {
	f.t.Helper()
	replaced, err := f.Rewrap(f.t.Context(), "connections", []store.Rewrapped{{
		Row: c.ID, Old: c.Sealed, New: seal.Sealed{KeyID: "key-2", WrappedKey: []byte("wrapped anew")},
	}})
	must(f.t, err)
	return replaced
}

// What was sealed since has another data key: the old one, wrapped anew, would make
// it unreadable.
func TestARotationDoesNotReplaceTheKeyOfATokenThatWasRenewedMeanwhile(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	old := f.connection(f.login("alice", "alice-hub").ID, "hub")
	next := sealedFor("renewed")
	next.WrappedKey = []byte("another data key")
	f.exec(`UPDATE tokenbroker.connections SET wrapped_key = $2, sealed_tokens = $3, version = version + 1 WHERE id = $1`,
		old.ID, next.WrappedKey, next.Ciphertext)
	if n := f.rewrap(old); n != 0 {
		t.Error("the key of a newer version was replaced")
	}
	now := f.stored(old.ID)
	if string(now.Sealed.WrappedKey) != "another data key" {
		t.Errorf("wrapped key %q", now.Sealed.WrappedKey)
	}
	if n := f.rewrap(now); n != 1 {
		t.Error("the present key was not replaced")
	}
	if again := f.stored(old.ID); again.Sealed.KeyID != "key-2" || again.Version != now.Version || !again.UpdatedAt.Equal(now.UpdatedAt) {
		t.Errorf("%+v", again)
	}
}

// A person's refresh must not wait for a rotation, nor the rotation for it.
func TestARotationPassesByRowsThatAreLocked(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	c := f.connection(f.login("alice", "alice-hub").ID, "hub")
	must(t, postgres.InTx(t.Context(), f.pool, pgx.TxOptions{}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), `SELECT 1 FROM tokenbroker.connections WHERE id = $1 FOR UPDATE`, c.ID); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		found, err := f.KeysToRewrap(ctx, "connections", "key-2", "", 10)
		must(t, err)
		if len(found) != 2 {
			t.Errorf("found %+v", found)
		}
		if n := f.rewrap(c); n != 0 {
			t.Error("a locked row was changed")
		}
		return nil
	}))
	if n := f.rewrap(c); n != 1 {
		t.Error("afterwards it was not changed")
	}
}
