package store_test

import (
	"io/fs"
	"testing"
	"testing/fstest"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/pgtest"
	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/services/authserver/internal/store"
)

// firstSchema is the schema as it was first made.
func firstSchema(t *testing.T) postgres.Migrations {
	t.Helper()
	const name = "00001_authserver.sql"
	all := store.Migrations()
	data, err := fs.ReadFile(all.FS, name)
	if err != nil {
		t.Fatal(err)
	}
	all.FS = fstest.MapFS{name: &fstest.MapFile{Data: data}}
	return all
}

func TestADatabaseOfAnEarlierVersionKeepsItsLogins(t *testing.T) {
	t.Parallel()
	for name, edits := range map[string][]string{
		"the first schema": nil,
		"a snapshot between the versions": {
			`ALTER TABLE authserver.authorization_requests ADD COLUMN version bigint NOT NULL DEFAULT 0`,
			`ALTER TABLE authserver.legs DROP COLUMN expires_at`,
			`ALTER TABLE authserver.signing_keys ADD COLUMN mac bytea NOT NULL DEFAULT 'mac'`,
			`CREATE INDEX ON authserver.refresh_tokens (expires_at) WHERE used_at IS NOT NULL`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := pgtest.URL(t, firstSchema(t))
			pool, err := postgres.Open(t.Context(), postgres.Config{URL: url, Application: "test", MaxConns: 4})
			if err != nil {
				t.Fatal(fault.Detail(err))
			}
			t.Cleanup(pool.Close)
			f := &fixture{Store: store.New(pool), t: t, pool: pool}
			f.client("client-1")
			f.client("waiting") // registered two days ago; whether it began a login nobody has noted
			f.exec(`UPDATE authserver.clients SET created_at = now() - interval '2 days' WHERE id = 'waiting'`)
			// As the version that left the house with it has stored it.
			f.exec(`INSERT INTO authserver.grants (id, session_id, user_id, client_id, status, scopes, resources, expires_at, tokens_until)
				VALUES ('old', 'session-old', 'user-1', 'client-1', 'active', '{tools}', '{https://gw.example/mcp}', now() + interval '1 day', now() + interval '1 hour')`)
			f.exec(`INSERT INTO authserver.authorization_codes (signature_hash, grant_id, redirect_uri, code_challenge, requested_at, expires_at, used_at)
				VALUES ($1, 'old', '', 'challenge', now(), now() + interval '1 minute', now())`, store.Digest("code-old"))
			f.must(f.CreateRefreshToken(t.Context(), "rt-old", "old", time.Now().Add(2*time.Hour)))
			f.exec(`INSERT INTO authserver.authorization_requests (id, client_id, browser_hash, phase, session_id, params, progress, expires_at)
				VALUES ('r1', 'client-1', $1, 'legs', 's', '{"resources":[]}', '{"providers":[]}', now() + interval '5 minutes')`, browser)
			f.exec(`INSERT INTO authserver.signing_keys (kid, jwk, keep_until) VALUES ('old', '{}', now() + interval '1 hour')`)
			for _, edit := range edits {
				f.exec(edit)
			}
			if _, err := store.Migrations().Up(t.Context(), url, nil); err != nil {
				t.Fatal(fault.Detail(err))
			}
			f.must(store.Migrations().Check(pool)(t.Context()))
			if c, _, err := f.Code(t.Context(), "code-old"); err != nil || len(c.Legs) != 0 {
				t.Errorf("its code: %+v, %v", c, err)
			}

			f.must(f.RotateRefreshToken(t.Context(), "old", rotation("rt-old", "rt-2")))
			if _, err := f.Request(t.Context(), "r1", browser); err != nil {
				t.Errorf("the login under way: %v", err)
			}
			keys, err := f.PublishKeys(t.Context(), nil, time.Hour)
			f.must(err)
			if len(keys) != 1 || keys[0].KID != "old" {
				t.Errorf("keys %+v", keys)
			}
			_, err = f.Sweep(t.Context(), policy)
			f.must(err)
			if _, err := f.Client(t.Context(), "waiting"); err != nil {
				t.Errorf("the client that waits: %v", err)
			}
		})
	}
}

func TestAReleasedMigrationIsNeverEditedAndANewOneServesTheVersionBefore(t *testing.T) {
	t.Parallel()
	released := map[string]string{ // by SHA-256; a change is a new file, and a new line here
		"00001_authserver.sql":  "b16a82f0acc71a4e26d3c606a9da54e1268fc150e9ed107bc9ec62bd7de964f4",
		"00002_retries.sql":     "9d7852b854fecd6e3717533bbcc2072bd214c3f1078dc2d5ee1a46b1dc45ed0d",
		"00003_failed_legs.sql": "455b2f4aa89f8cf94f017e3c8292d15ca4b5869fdde273079db76fe0345feb16",
		"00004_used_tokens.sql": "c797dcb66dcf9bcb0ac81ad8a1831b9acbd3a77a9a4bcc16b20678e662cd5e7e",
		"00005_code_legs.sql":   "37718e4227f051a07c3b25342edf7e50d0533e52cf46ec23ec9cc92f0a1772aa",
	}
	pgtest.HoldMigrations(t, store.Migrations(), released, map[string]string{
		"00002_retries.sql": "older than the first release: no version before it was ever rolled out",
	})
}
