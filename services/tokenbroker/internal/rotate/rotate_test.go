package rotate_test

import (
	"context"
	"crypto/rand"
	"fmt"
	mathrand "math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/pgtest"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/rotate"
	"chatelaine.dev/services/tokenbroker/internal/schema"
	"chatelaine.dev/services/tokenbroker/internal/seal"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func newKey(t *testing.T) seal.Key {
	t.Helper()
	text := make([]byte, seal.KeySize)
	rand.Read(text)
	key, err := seal.FileKey(secret.NewBytes(text))
	must(t, err)
	return key
}

func sealer(t *testing.T, keys ...seal.Key) *seal.Sealer {
	t.Helper()
	set, err := seal.NewKeys(keys...)
	must(t, err)
	return seal.NewSealer(set)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(fault.Detail(err))
	}
}

// vault is a store with sealed rows.
type vault struct {
	*store.Store
	t    *testing.T
	pool *pgxpool.Pool
}

// newVault returns a store with connections con_0 … and staged legs leg_0 …, whose
// access tokens are their ids.
func newVault(t *testing.T, sealer *seal.Sealer, connections, legs int) *vault {
	t.Helper()
	v := &vault{t: t, pool: pgtest.New(t, schema.Migrations())}
	v.Store = store.New(v.pool)
	v.exec(`INSERT INTO tokenbroker.users (id, realm, subject_field, subject) VALUES ('usr_1', 'r', 'sub', 'alice')`)
	v.exec(`INSERT INTO tokenbroker.sessions (id, state, client_id, user_id, expires_at) VALUES ('ses_1', 'pending', 'c', 'usr_1', now() + interval '1 day')`)
	for i := range connections {
		id := fmt.Sprintf("con_%d", i)
		s := v.seal(sealer, id, store.ConnectionPlace(id, 1))
		v.exec(`INSERT INTO tokenbroker.connections (id, user_id, provider, realm, subject, status, version, refreshable, tokens_at, key_id, wrapped_key, sealed_tokens)
			VALUES ($1, 'usr_1', 'hub', 'r', $1, 'active', 1, true, now(), $2, $3, $4)`, id, s.KeyID, s.WrappedKey, s.Ciphertext)
	}
	for i := range legs {
		id := fmt.Sprintf("leg_%d", i)
		s := v.seal(sealer, id, store.StagedPlace(id))
		v.exec(`INSERT INTO tokenbroker.staged_legs (id, session_id, provider, realm, subject, refreshable, key_id, wrapped_key, sealed_tokens)
			VALUES ($1, 'ses_1', $1, 'r', $1, true, $2, $3, $4)`, id, s.KeyID, s.WrappedKey, s.Ciphertext)
	}
	return v
}

func (v *vault) exec(sql string, args ...any) {
	v.t.Helper()
	_, err := v.pool.Exec(v.t.Context(), sql, args...)
	must(v.t, err)
}

func (v *vault) seal(sealer *seal.Sealer, token string, at seal.Place) seal.Sealed {
	v.t.Helper()
	sealed, err := sealer.SealTokens(v.t.Context(), seal.Tokens{AccessToken: secret.New(token)}, at)
	must(v.t, err)
	return sealed
}

// opens returns the access token of a connection.
func (v *vault) opens(sealer *seal.Sealer, id string) (string, error) {
	c, err := v.Connection(v.t.Context(), id)
	if err != nil {
		return "", err
	}
	tokens, err := sealer.OpenTokens(v.t.Context(), c.Sealed, c.Place())
	return tokens.AccessToken.Reveal(), err
}

// renew does what a refresh does: open, seal, compare-and-set. It returns false
// when somebody else was faster.
func (v *vault) renew(sealer *seal.Sealer, id, token string) (bool, error) {
	c, err := v.Connection(v.t.Context(), id)
	if err != nil {
		return false, err
	}
	if _, err := sealer.OpenTokens(v.t.Context(), c.Sealed, c.Place()); err != nil {
		return false, err
	}
	sealed, err := sealer.SealTokens(v.t.Context(), seal.Tokens{AccessToken: secret.New(token)}, store.ConnectionPlace(id, c.Version+1))
	if err != nil {
		return false, err
	}
	return v.CommitRenewal(v.t.Context(), store.Renewal{
		ConnectionID: id, PresentedVersion: c.Version, Grant: store.Grant{Refreshable: true, Sealed: sealed},
		Record: audit.Record{Action: audit.ConnectionRefreshed, Outcome: audit.Success, ConnectionID: id},
	})
}

func (v *vault) rotate(ctx context.Context, sealer *seal.Sealer, progress func(done, of int64)) (int64, error) {
	return rotate.New(rotate.Config{Store: v, Sealer: sealer, Progress: progress}).Run(ctx)
}

func quiet(int64, int64) {}

// A rotation that is cut off half way, while tokens are renewed, must leave every
// token readable, and the next one must finish the work.
func TestRotationUnderRefreshesLosesNothing(t *testing.T) {
	t.Parallel()
	before, after := newKey(t), newKey(t)
	v := newVault(t, sealer(t, before), 1300, 20)
	const writers, each = 4, 325 // each writer has connections of its own
	brokers := sealer(t, after, before)
	latest := make([]string, writers*each)
	var stop atomic.Bool
	var renewals atomic.Int64
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for n := 0; !stop.Load(); n++ {
				i := w*each + mathrand.N(each)
				token := fmt.Sprintf("con_%d renewed %d", i, n)
				ok, err := v.renew(brokers, fmt.Sprintf("con_%d", i), token)
				if err != nil || !ok {
					t.Errorf("a renewal lost against the rotation: %v, %v", ok, err)
					return
				}
				latest[i] = token
				renewals.Add(1)
			}
		})
	}

	ctx, cut := context.WithCancel(t.Context())
	done, err := v.rotate(ctx, brokers, func(int64, int64) { cut() })
	if fault.KindOf(err) != fault.Canceled || done == 0 || done >= 1300 {
		t.Fatalf("cut off: %d wrapped, %v", done, err)
	}
	again, err := v.rotate(t.Context(), brokers, quiet)
	must(t, err)
	stop.Store(true)
	wg.Wait()
	if renewals.Load() == 0 {
		t.Fatal("nothing was renewed meanwhile")
	}
	t.Logf("%d and %d values wrapped anew among %d renewals", done, again, renewals.Load())

	only := sealer(t, after)
	for i := range latest {
		id := fmt.Sprintf("con_%d", i)
		want := latest[i]
		if want == "" {
			want = id
		}
		if got, err := v.opens(only, id); err != nil || got != want {
			t.Fatalf("%s with the new key alone: %q, %v; want %q", id, got, err, want)
		}
	}
	uses, err := v.KeysInUse(t.Context())
	must(t, err)
	if len(uses) != 2 || uses[0].KeyID != after.ID || uses[1].KeyID != after.ID {
		t.Errorf("keys in use: %+v", uses)
	}
	if n, err := v.rotate(t.Context(), brokers, quiet); n != 0 || err != nil {
		t.Errorf("nothing was left to do: %d, %v", n, err)
	}
}

// Whoever removes a key too early must be told which one, and how much it holds.
func TestARotationNamesWhatItCannotWrap(t *testing.T) {
	t.Parallel()
	lost, before, after := newKey(t), newKey(t), newKey(t)
	v := newVault(t, sealer(t, before), 3, 1)
	foreign := v.seal(sealer(t, lost), "x", store.ConnectionPlace("con_0", 1))
	v.exec(`UPDATE tokenbroker.connections SET key_id = $1, wrapped_key = $2, sealed_tokens = $3 WHERE id = 'con_0'`,
		foreign.KeyID, foreign.WrappedKey, foreign.Ciphertext)
	done, err := v.rotate(t.Context(), sealer(t, after, before), quiet)
	if done != 3 || fault.ReasonOf(err) != seal.ReasonKeyUnknown || !strings.Contains(err.Error(), lost.ID+" protects 1 ") {
		t.Errorf("a key that is missing: %d wrapped, %v", done, err)
	}
	v.exec(`UPDATE tokenbroker.connections SET key_id = $1 WHERE id = 'con_0'`, before.ID)
	done, err = v.rotate(t.Context(), sealer(t, after, before), quiet)
	if done != 0 || fault.ReasonOf(err) != seal.ReasonInvalid || !strings.Contains(err.Error(), "con_0") {
		t.Errorf("a value that does not open: %d wrapped, %v", done, err)
	}
}

// forgotten is a store in which a broker goes on to seal with the old key.
type forgotten struct {
	*vault
	sealer *seal.Sealer
}

func (f *forgotten) KeysInUse(ctx context.Context) ([]store.KeyUse, error) {
	if ok, err := f.renew(f.sealer, "con_0", "x"); err != nil || !ok {
		f.t.Errorf("renewed %v, %v", ok, err)
	}
	return f.vault.KeysInUse(ctx)
}

// A broker that was forgotten seals with the old key: to remove that key would lose
// what it seals.
func TestABrokerThatSealsWithTheOldKeyIsNoticed(t *testing.T) {
	t.Parallel()
	before, after := newKey(t), newKey(t)
	v := &forgotten{newVault(t, sealer(t, before), 10, 0), sealer(t, before, after)}
	done, err := rotate.New(rotate.Config{Store: v, Sealer: sealer(t, after, before), Progress: quiet}).Run(t.Context())
	if done < 10 || fault.KindOf(err) != fault.Conflict || !strings.Contains(err.Error(), "1 values are still sealed with key-encryption key "+before.ID) {
		t.Errorf("%d wrapped, error %v", done, err)
	}
}
