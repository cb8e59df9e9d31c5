package store_test

import (
	"context"
	"testing"
	"time"

	"chatelaine.dev/services/authserver/internal/store"
)

// After a day without a sweep one sweep must take all that is over, however much it
// is: otherwise the tables grow for good.
func TestASweepCatchesUpWithABacklog(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.active("g1")
	f.exec(`INSERT INTO authserver.refresh_tokens (signature_hash, grant_id, expires_at, used_at)
		SELECT sha256(n::text::bytea), 'g1', now() - interval '1 hour', now() - interval '2 hours' FROM generate_series(1, 5200) n`)
	f.exec(`INSERT INTO authserver.refresh_tokens (signature_hash, grant_id, expires_at, used_at, sealed_answer)
		SELECT sha256(('a' || n)::bytea), 'g1', now() + interval '1 hour', now() - interval '2 minutes', 'sealed' FROM generate_series(1, 700) n`)
	f.exec(`INSERT INTO authserver.signing_keys (kid, jwk, mac, keep_until)
		SELECT 'k' || n, '{}', '', now() FROM generate_series(1, 700) n`)
	swept, err := f.Sweep(t.Context(), policy)
	f.must(err)
	if left := f.count(`SELECT count(*) FROM authserver.refresh_tokens WHERE used_at IS NOT NULL AND expires_at <= now()`); left != 0 {
		t.Errorf("%d used tokens are left", left)
	}
	if left := f.count(`SELECT count(*) FROM authserver.refresh_tokens WHERE sealed_answer IS NOT NULL`); left != 0 {
		t.Errorf("%d answers are left", left)
	}
	if swept.Keys != 700 {
		t.Errorf("%d keys swept", swept.Keys)
	}
}

// A refresh that is under way must not hold up the sweep, and so not the tokens of others.
func TestASweepDoesNotWaitForWhoUsesARow(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.active("g1")
	f.exec(`UPDATE authserver.refresh_tokens SET used_at = now() - interval '2 minutes', sealed_answer = 'sealed'`)
	f.exec(`INSERT INTO authserver.signing_keys (kid, jwk, mac, keep_until) VALUES ('k', '{}', '', now())`)
	tx, err := f.pool.Begin(t.Context())
	f.must(err)
	defer func() { f.must(tx.Rollback(context.WithoutCancel(t.Context()))) }()
	_, err = tx.Exec(t.Context(), `SELECT 1 FROM authserver.refresh_tokens, authserver.signing_keys FOR UPDATE`)
	f.must(err)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := f.Sweep(ctx, policy); err != nil {
		t.Errorf("the sweep waits for a locked row: %v", err)
	}
}

// Whoever opens an authorization link has a registration kept for as long as the
// page is good, and only a person's consent for longer.
func TestOnlyConsentLengthensTheLifeOfARegistration(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.client("asked")
	f.client("wanted")
	for _, id := range []string{"asked", "wanted"} {
		f.must(f.CreateRequest(t.Context(), &store.AuthorizationRequest{ID: "r-" + id, ClientID: id, BrowserHash: browser}, time.Minute))
	}
	f.exec(`UPDATE authserver.clients SET created_at = now() - interval '25 hours' WHERE id IN ('asked', 'wanted')`)
	_, err := f.Sweep(t.Context(), policy)
	f.must(err)
	_, err = f.Client(t.Context(), "asked")
	f.must(err) // its page is still open
	_, err = f.ApproveRequest(t.Context(), "r-wanted", browser, "s")
	f.must(err)
	f.exec(`UPDATE authserver.authorization_requests SET expires_at = now()`)
	_, err = f.Sweep(t.Context(), policy)
	f.must(err)
	if n := f.count(`SELECT count(*) FROM authserver.clients WHERE id = 'asked'`); n != 0 {
		t.Error("a registration that nobody approved is kept")
	}
	if n := f.count(`SELECT count(*) FROM authserver.clients WHERE id = 'wanted'`); n != 1 {
		t.Error("a registration whose login a person approved an hour ago is gone")
	}
}
