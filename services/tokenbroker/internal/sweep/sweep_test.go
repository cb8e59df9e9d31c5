package sweep_test

import (
	"log/slog"
	"testing"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/pgtest"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/schema"
	"chatelaine.dev/services/tokenbroker/internal/store"
	"chatelaine.dev/services/tokenbroker/internal/sweep"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// One sweep over a database with one row of each kind that time has run out for,
// and one of each that must stay.
func TestASweepTakesWhatIsOverAndNothingElse(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t, schema.Migrations())
	st := store.New(pool)
	exec := func(sql string) {
		t.Helper()
		if _, err := pool.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	exec(`INSERT INTO tokenbroker.users (id, realm, subject_field, subject, last_login_at) VALUES ('u', 'r', 'sub', 's', now())`)
	exec(`INSERT INTO tokenbroker.sessions (id, state, client_id, user_id, activated_at, ends_at, expires_at) VALUES
		('alive', 'active', 'c', 'u', now(), now() + interval '1 day', now() + interval '1 day'),
		('idle', 'active', 'c', 'u', now(), now() + interval '1 day', now() - interval '1 second'),
		('chain', 'pending', 'c', 'u', NULL, NULL, now() + interval '1 minute'),
		('abandoned', 'pending', 'c', 'u', NULL, NULL, now() - interval '1 second')`)
	exec(`INSERT INTO tokenbroker.connections (id, user_id, provider, realm, subject, status, version, refreshable, tokens_at,
		key_id, wrapped_key, sealed_tokens, unlinked_at) VALUES
		('linked', 'u', 'p', 'r', '1', 'active', 1, true, now(), 'k', 'w', 's', NULL),
		('resting', 'u', 'p', 'r', '2', 'active', 1, true, now(), 'k', 'w', 's', now() - interval '1 hour'),
		('forgotten', 'u', 'p', 'r', '3', 'active', 1, true, now(), 'k', 'w', 's', now() - interval '200 hours'),
		('gone', 'u', 'p', 'r', '4', 'disconnected', 1, false, now(), NULL, NULL, NULL, now() - interval '200 hours')`)
	exec(`INSERT INTO tokenbroker.session_links (session_id, provider, connection_id) VALUES ('alive', 'p', 'linked')`)
	exec(`INSERT INTO tokenbroker.staged_legs (id, session_id, provider, realm, subject, refreshable, key_id, wrapped_key, sealed_tokens, created_at) VALUES
		('l1', 'chain', 'p', 'r', '5', true, 'k', 'w', 's', now()),
		('l2', 'abandoned', 'p', 'r', '6', true, 'k', 'w', 's', now()),
		('l3', 'alive', 'p', 'r', '7', true, 'k', 'w', 's', now() - interval '1 hour')`)

	sweeper := sweep.New(sweep.Config{
		Sessions: st, Connections: st,
		Audit: audit.NewRecorder(st, slog.New(slog.DiscardHandler)), Logger: slog.New(slog.DiscardHandler),
		ConnectionRetention: func() time.Duration { return 168 * time.Hour },
		Retention: func() store.Retention {
			return store.Retention{Sessions: time.Hour, Events: time.Hour, Records: 24 * time.Hour, Users: time.Hour}
		},
		PendingLifetime: 10 * time.Minute,
	})
	for range 2 { // a second sweep finds nothing more
		if err := sweeper.Once(t.Context()); err != nil {
			t.Fatal(fault.Detail(err))
		}
	}
	for sql, want := range map[string]string{
		`SELECT string_agg(id, ',' ORDER BY id) FROM tokenbroker.sessions WHERE state <> 'ended'`:                                "alive,chain",
		`SELECT string_agg(id, ',' ORDER BY id) FROM tokenbroker.connections`:                                                    "linked,resting",
		`SELECT string_agg(id, ',' ORDER BY id) FROM tokenbroker.staged_legs`:                                                    "l1",
		`SELECT string_agg(user_id || ':' || origin_row || ':' || staged, ',' ORDER BY origin_row) FROM tokenbroker.revocations`: "u:forgotten:false,u:l2:true,u:l3:true",
		`SELECT string_agg(session_id, ',') FROM tokenbroker.events`:                                                             "idle",
		`SELECT string_agg(action || '/' || outcome, ',' ORDER BY action, outcome) FROM tokenbroker.audit`:                       "connection.disconnected/RETENTION,session.ended/EXPIRED,session.ended/EXPIRED",
	} {
		var got string
		if err := pool.QueryRow(t.Context(), sql).Scan(&got); err != nil || got != want {
			t.Errorf("%s\n  = %q, %v; want %q", sql, got, err, want)
		}
	}
}
