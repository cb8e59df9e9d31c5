package store_test

import (
	"testing"
	"time"

	"chatelaine.dev/services/authserver/internal/store"
)

func TestEveryReplicaSeesEachKeyThatStillVerifies(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	one := store.SigningKey{KID: "one", JWK: []byte(`{"kid":"one"}`), MAC: []byte("mac")}
	two := store.SigningKey{KID: "two", JWK: []byte(`{"kid":"two"}`), MAC: []byte("mac")}
	_, err := f.PublishKeys(t.Context(), []store.SigningKey{one}, time.Hour)
	f.must(err)
	all, err := f.PublishKeys(t.Context(), []store.SigningKey{two}, time.Hour)
	f.must(err)
	if len(all) != 2 {
		t.Fatalf("%d keys, want both", len(all))
	}
	// A shorter promise does not take back a longer one.
	_, err = f.PublishKeys(t.Context(), []store.SigningKey{one, two}, time.Second)
	f.must(err)
	if n := f.count(`SELECT count(*) FROM authserver.signing_keys WHERE keep_until > now() + interval '59 minutes'`); n != 2 {
		t.Errorf("%d keys kept for an hour, want 2", n)
	}
	f.exec(`UPDATE authserver.signing_keys SET keep_until = now() WHERE kid = 'one'`)
	swept, err := f.Sweep(t.Context(), policy)
	f.must(err)
	all, err = f.PublishKeys(t.Context(), nil, time.Hour)
	f.must(err)
	if swept.Keys != 1 || len(all) != 1 || all[0].KID != "two" {
		t.Errorf("swept %d, left %+v", swept.Keys, all)
	}
}
