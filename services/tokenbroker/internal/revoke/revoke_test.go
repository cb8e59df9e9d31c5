package revoke_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/pgtest"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/revoke"
	"chatelaine.dev/services/tokenbroker/internal/rotate"
	"chatelaine.dev/services/tokenbroker/internal/schema"
	"chatelaine.dev/services/tokenbroker/internal/seal"
	"chatelaine.dev/services/tokenbroker/internal/store"
	"chatelaine.dev/services/tokenbroker/internal/upstream"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// world is a provider, and a database with one person.
type world struct {
	t      *testing.T
	pool   *pgxpool.Pool
	store  *store.Store
	sealer *seal.Sealer
	key    seal.Key

	mu      sync.Mutex
	revoked []string
	// answer says what the provider makes of a token; nil takes it.
	answer func(ctx context.Context, token string) error
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, pool: pgtest.New(t, schema.Migrations())}
	w.store = store.New(w.pool)
	w.key = newKey(t)
	w.sealer = newSealer(t, w.key)
	w.exec(`INSERT INTO tokenbroker.users (id, realm, subject_field, subject) VALUES ('u', 'r', 'sub', 'alice')`)
	return w
}

func newKey(t *testing.T) seal.Key {
	t.Helper()
	text := make([]byte, seal.KeySize)
	rand.Read(text)
	key, err := seal.FileKey(secret.NewBytes(text))
	must(t, err)
	return key
}

func newSealer(t *testing.T, keys ...seal.Key) *seal.Sealer {
	t.Helper()
	set, err := seal.NewKeys(keys...)
	must(t, err)
	return seal.NewSealer(set)
}

func (w *world) Revoke(ctx context.Context, token secret.String, hint upstream.TokenHint) error {
	w.mu.Lock()
	answer := w.answer
	w.mu.Unlock()
	if answer != nil {
		if err := answer(ctx, token.Reveal()); err != nil {
			return err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.revoked = append(w.revoked, string(hint)+" "+token.Reveal())
	return nil
}

func (w *world) set(answer func(ctx context.Context, token string) error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer = answer
}

// want checks what the provider has heard, in this order.
func (w *world) want(want ...string) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(w.revoked, want) {
		w.t.Errorf("the provider heard %v, want %v", w.revoked, want)
	}
}

func (w *world) exec(sql string, args ...any) {
	w.t.Helper()
	_, err := w.pool.Exec(w.t.Context(), sql, args...)
	must(w.t, err)
}

func (w *world) revoker(change ...func(*revoke.Config)) *revoke.Revoker {
	log := slog.New(slog.DiscardHandler)
	cfg := revoke.Config{
		Queue: w.store, Opener: w.sealer, Audit: audit.NewRecorder(w.store, log), Logger: log,
		Find: func(string, string) (revoke.Provider, error) { return w, nil },
	}
	for _, c := range change {
		c(&cfg)
	}
	return revoke.New(cfg)
}

// connection stores one whose access token is "at-" and its id.
func (w *world) connection(id, subject, refreshToken string) {
	w.t.Helper()
	sealed, err := w.sealer.SealTokens(w.t.Context(), seal.Tokens{
		AccessToken: secret.New("at-" + id), RefreshToken: secret.New(refreshToken),
	}, store.ConnectionPlace(id, 3))
	must(w.t, err)
	w.exec(`INSERT INTO tokenbroker.connections (id, user_id, provider, realm, subject, status, version, refreshable, tokens_at, key_id, wrapped_key, sealed_tokens)
		VALUES ($1, 'u', 'hub', 'hub-realm', $2, 'active', 3, true, now(), $3, $4, $5)`, id, subject, sealed.KeyID, sealed.WrappedKey, sealed.Ciphertext)
}

func (w *world) disconnect(id string) {
	w.t.Helper()
	_, _, err := w.store.Disconnect(w.t.Context(), id, audit.Record{Action: audit.ConnectionDisconnected, Outcome: audit.Success})
	must(w.t, err)
}

func (w *world) flush(r *revoke.Revoker) {
	w.t.Helper()
	for more := true; more; {
		var err error
		more, err = r.Flush(w.t.Context())
		must(w.t, err)
	}
}

// due makes what waits due.
func (w *world) due() { w.exec(`UPDATE tokenbroker.revocations SET due_at = now()`) }

func (w *world) waiting() int64 {
	w.t.Helper()
	q, err := w.store.CountRevocations(w.t.Context())
	must(w.t, err)
	return q.Count
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(fault.Detail(err))
	}
}

func down(context.Context, string) error {
	return fault.New(fault.Unavailable, "down").WithReason(reason.UpstreamUnavailable)
}

func TestADisconnectionIsToldToAProviderThatWasDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.connection("a", "alice", "rt")
	w.disconnect("a")
	w.set(down)
	first := w.revoker()
	for range 3 {
		w.flush(first)
		w.due()
	}
	w.flush(first)
	w.flush(first) // back-off: not due
	var attempts int
	must(t, w.pool.QueryRow(t.Context(), `SELECT attempts FROM tokenbroker.revocations WHERE due_at > now()`).Scan(&attempts))
	if attempts != 4 {
		t.Errorf("%d attempts", attempts)
	}
	w.set(nil)
	w.due()
	w.flush(w.revoker()) // another process
	w.want("refresh_token rt", "access_token at-a")
	if n := w.waiting(); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

// The broker that erased the tokens, or had claimed them, is gone: its work is not.
func TestTheWorkOfADeadProcessIsTakenOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.connection("a", "alice", "rt")
	w.disconnect("a")
	claimed, err := w.store.ClaimRevocations(t.Context(), 10, time.Hour)
	must(t, err)
	if len(claimed) != 1 {
		t.Fatalf("claimed %d", len(claimed))
	}
	other := w.revoker()
	w.flush(other)
	w.want() // the lease holds
	w.due()
	w.flush(other)
	w.want("refresh_token rt", "access_token at-a")
	// The dead one was only asleep: it must not end what is not its own any more.
	w.connection("b", "bob", "rt-b")
	w.disconnect("b")
	stale, err := w.store.ClaimRevocations(t.Context(), 10, 0)
	must(t, err)
	_, err = w.store.ClaimRevocations(t.Context(), 10, time.Hour)
	must(t, err)
	if finished, err := w.store.FinishRevocation(t.Context(), &stale[0], nil); err != nil || finished || w.waiting() != 1 {
		t.Errorf("finished %v, %v", finished, err)
	}
}

func TestSixHundredAtOnceAreEachToldOnceByThreeReplicas(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n = 600
	for i := range n {
		w.connection(fmt.Sprintf("c%d", i), fmt.Sprintf("s%d", i), fmt.Sprintf("rt-%d", i))
	}
	w.exec(`INSERT INTO tokenbroker.sessions (id, state, client_id, user_id, expires_at) VALUES ('x', 'pending', 'c', 'u', now())`)
	w.exec(`UPDATE tokenbroker.connections SET unlinked_at = now() - interval '1 hour'`)
	gone, err := w.store.EraseUnlinked(t.Context(), time.Minute, n)
	must(t, err)
	if len(gone) != n || w.waiting() != n {
		t.Fatalf("erased %d, %d wait", len(gone), w.waiting())
	}
	var wg sync.WaitGroup
	for range 3 {
		r := w.revoker()
		wg.Go(func() {
			for more := true; more; {
				var err error
				if more, err = r.Flush(t.Context()); err != nil {
					t.Error(fault.Detail(err))
				}
			}
		})
	}
	wg.Wait()
	slices.Sort(w.revoked)
	if told := len(slices.Compact(slices.Clone(w.revoked))); told != 2*n || len(w.revoked) != 2*n || w.waiting() != 0 {
		t.Errorf("%d tokens told, %d calls, %d rows left", told, len(w.revoked), w.waiting())
	}
}

func TestWhatTheProviderDoesNotKnowAnyMoreIsDone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.connection("a", "alice", "rt")
	w.disconnect("a")
	w.set(func(_ context.Context, token string) error {
		if strings.HasPrefix(token, "at-") { // it ended with the refresh token
			return fault.New(fault.Precondition, "no").WithReason(reason.UpstreamRefused, reason.OAuthError, "invalid_token")
		}
		return nil
	})
	w.flush(w.revoker())
	w.want("refresh_token rt")
	if n := w.waiting(); n != 0 {
		t.Errorf("%d rows are left", n)
	}
}

func TestAGrantThatIsInUseIsLeftAlone(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		staged bool
		status string
		want   []string
	}{
		"another account of a person who gives one up":  {false, "active", []string{"refresh_token rt", "access_token at-a"}},
		"another account after a login that failed":     {true, "active", nil},
		"a connection that asks for a login after that": {true, "reauthentication_required", []string{"refresh_token rt", "access_token at-a"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.connection("a", "alice", "rt")
			w.disconnect("a")
			w.connection("b", "other", "rt-b")
			w.exec(`UPDATE tokenbroker.connections SET status = $1 WHERE id = 'b'`, tt.status)
			w.exec(`UPDATE tokenbroker.revocations SET staged = $1`, tt.staged)
			w.flush(w.revoker())
			w.want(tt.want...)
			if n := w.waiting(); n != 0 {
				t.Errorf("%d rows are left", n)
			}
		})
	}
	t.Run("the account itself, connected again", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.connection("a", "alice", "rt")
		w.disconnect("a")
		w.exec(`UPDATE tokenbroker.connections SET provider = 'old-name'`)
		w.connection("b", "alice", "rt-b")
		w.flush(w.revoker())
		w.want()
	})
}

func TestAProviderThatNeverHearsIsGivenUpOnRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.connection("a", "alice", "rt")
	w.disconnect("a")
	w.set(down)
	r := w.revoker(func(c *revoke.Config) { c.GiveUpAfter = time.Hour })
	w.flush(r)
	if n := w.waiting(); n != 1 {
		t.Fatalf("given up at once: %d rows", n)
	}
	w.exec(`UPDATE tokenbroker.revocations SET created_at = now() - interval '2 hours'`)
	w.due()
	w.flush(r)
	records, err := w.store.ListAudit(t.Context(), store.AuditFilter{Action: string(audit.RevocationFailed), Limit: 10})
	must(t, err)
	if w.waiting() != 0 || len(records) != 1 || records[0].ConnectionID != "a" || records[0].UserID != "u" ||
		records[0].Outcome != reason.UpstreamUnavailable {
		t.Errorf("%d rows left, records %+v", w.waiting(), records)
	}
}

func TestAStopGivesBackWhatItHasNotDone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.connection("a", "alice", "rt")
	w.disconnect("a")
	called := make(chan struct{})
	w.set(func(ctx context.Context, _ string) error {
		close(called)
		<-ctx.Done()
		return ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	r := w.revoker()
	go func() { done <- r.Run(ctx) }()
	<-called
	cancel()
	must(t, <-done)
	w.set(nil)
	w.flush(w.revoker())
	w.want("refresh_token rt", "access_token at-a")
}

// Sealed where they came from, and moved by a statement that has no key.
func TestQueuedTokensStaySealedAndAreRotated(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.connection("a", "alice", "planted-refresh-token")
	w.disconnect("a")
	newest := newKey(t)
	both := newSealer(t, newest, w.key)
	rotation := rotate.New(rotate.Config{Store: w.store, Sealer: both, Progress: func(int64, int64) {}})
	if n, err := rotation.Run(t.Context()); err != nil || n != 1 {
		t.Fatalf("wrapped %d anew, %v", n, err)
	}
	var row string
	must(t, w.pool.QueryRow(t.Context(), `SELECT key_id || encode(wrapped_key, 'escape') || encode(sealed_tokens, 'escape') FROM tokenbroker.revocations`).Scan(&row))
	if !strings.HasPrefix(row, newest.ID) || strings.Contains(row, "planted") || strings.Contains(row, "at-a") {
		t.Errorf("row %q", row)
	}
	w.sealer = newSealer(t, newest) // the old key is gone
	w.flush(w.revoker())
	w.want("refresh_token planted-refresh-token", "access_token at-a")
	var tokens int
	must(t, w.pool.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM tokenbroker.revocations)
		+ (SELECT count(*) FROM tokenbroker.connections WHERE sealed_tokens IS NOT NULL)`).Scan(&tokens))
	if tokens != 0 {
		t.Errorf("%d sealed values are left", tokens)
	}
}
