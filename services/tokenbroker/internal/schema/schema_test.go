package schema_test

import (
	"context"
	"io/fs"
	"slices"
	"testing"
	"testing/fstest"

	"github.com/jackc/pgx/v5"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/pgtest"
	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/schema"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// upTo is the migrations with which a version of the broker left the house.
func upTo(t *testing.T, last string) fs.FS {
	t.Helper()
	all := schema.Migrations().FS
	files := fstest.MapFS{}
	names, err := fs.Glob(all, "*.sql")
	must(t, err)
	for _, name := range names {
		if name > last {
			break
		}
		data, err := fs.ReadFile(all, name)
		must(t, err)
		files[name] = &fstest.MapFile{Data: data}
	}
	return files
}

// Who reads the end reasons of sessions finds one name for each.
func TestOldEndReasonsHaveTheNamesOfNewOnes(t *testing.T) {
	t.Parallel()
	before := schema.Migrations()
	before.FS = upTo(t, "00002_session_changed.sql")
	url := pgtest.URL(t, before)
	conn, err := pgx.Connect(t.Context(), url.Reveal())
	must(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	_, err = conn.Exec(t.Context(), `INSERT INTO tokenbroker.sessions (id, state, client_id, expires_at, ended_at, end_reason) VALUES
		('a', 'ended', 'c', now(), now(), 'expired'), ('b', 'ended', 'c', now(), now(), 'OPERATOR')`)
	must(t, err)
	if _, err := schema.Migrations().Up(t.Context(), url, nil); err != nil {
		t.Fatal(fault.Detail(err))
	}
	var reasons string
	must(t, conn.QueryRow(t.Context(), `SELECT string_agg(end_reason, ',' ORDER BY id) FROM tokenbroker.sessions`).Scan(&reasons))
	if reasons != "EXPIRED,OPERATOR" {
		t.Errorf("the reasons are %s", reasons)
	}
}

// While replicas are replaced one after another, those of the version before read and
// write events on the new schema.
func TestBrokersOfTheFirstVersionWorkOnTheNewestSchema(t *testing.T) {
	t.Parallel()
	first := schema.Migrations()
	first.FS = upTo(t, "00001_initial.sql")
	url := pgtest.URL(t, first)
	conn, err := pgx.Connect(t.Context(), url.Reveal())
	must(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	exec := func(sql string, args ...any) {
		t.Helper()
		_, err := conn.Exec(t.Context(), sql, args...)
		must(t, err)
	}
	write := func(kind string, session, connection any) {
		t.Helper()
		exec(`UPDATE tokenbroker.event_head SET position = position + 1`)
		exec(`INSERT INTO tokenbroker.events (position, kind, session_id, connection_id)
			SELECT position, $1, $2, $3 FROM tokenbroker.event_head`, kind, session, connection)
	}
	write("session_ended", "ses_1", nil)
	write("connection_changed", nil, "con_1")
	if _, err := schema.Migrations().Up(t.Context(), url, nil); err != nil {
		t.Fatal(fault.Detail(err))
	}
	write("session_ended", "ses_2", nil)

	// Somebody is locked by a broker of the newest version.
	exec(`INSERT INTO tokenbroker.users (id, realm, subject_field, subject) VALUES ('u', 'r', 'sub', 's')`)
	exec(`INSERT INTO tokenbroker.sessions (id, state, client_id, user_id, activated_at, ends_at, expires_at)
		VALUES ('ses_3', 'active', 'c', 'u', now(), now() + interval '1 day', now() + interval '1 day')`)
	exec(`INSERT INTO tokenbroker.connections (id, user_id, provider, realm, subject, status, version, refreshable, tokens_at,
		key_id, wrapped_key, sealed_tokens) VALUES ('con_3', 'u', 'p', 'r', 's', 'active', 1, true, now(), 'k', 'w', 's')`)
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: url, MaxConns: 2})
	must(t, err)
	defer pool.Close()
	locked, err := store.New(pool).RequireReauthentication(t.Context(), store.Refusal{
		ConnectionID: "con_3", PresentedVersion: 1, LockUser: true,
		Record: audit.Record{Action: audit.ConnectionRefreshFailed, Outcome: "x"},
	})
	if err != nil || !locked {
		t.Fatal(locked, err)
	}

	// What the first version reads of it: no end of a session that goes on.
	rows, err := conn.Query(t.Context(), `
		SELECT coalesce(session_id, '') || coalesce(connection_id, '') FROM tokenbroker.events ORDER BY position`)
	must(t, err)
	got, err := pgx.CollectRows(rows, pgx.RowTo[string])
	must(t, err)
	if want := []string{"ses_1", "con_1", "ses_2", "", "con_3"}; !slices.Equal(got, want) {
		t.Errorf("events are about %q, want %q", got, want)
	}
}

func TestAReleasedMigrationIsNeverEditedAndANewOneServesTheVersionBefore(t *testing.T) {
	t.Parallel()
	released := map[string]string{ // by SHA-256; a change is a new file, and a new line here
		"00001_initial.sql":         "d711c57ccc43cb4411f40557a8dcfb84891dc7a9851c48dcb9259e12f8842219",
		"00002_session_changed.sql": "c98d3000f5af77caa9e1ca0a36e124c561a84b5dcdb03e82cef0d5ac828b8a32",
		"00003_end_reason.sql":      "dffc388f6a5865e2a209992bfce14368f3a7c18ebb14d417bd23a1117b625085",
		"00004_strangers.sql":       "ec15f640ce3a26222c45b84d5fca1ce284c879a12b34376bcfda6cce76c15b85",
		"00005_refresh_doubt.sql":   "75677e5b4a28159b4d9cd821af3c82158f496ff9116afb1bf7245565f5940d8f",
		"00006_revocations.sql":     "f1e01db0dc6f369bd7cba7438db9501007819f70109b2786a49b15a55be48cdb",
	}
	pgtest.HoldMigrations(t, schema.Migrations(), released, map[string]string{
		"00001_initial.sql":         "the first: nothing ran before it",
		"00002_session_changed.sql": "widens the kinds of events: what the first version writes still fits (see its test)",
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(fault.Detail(err))
	}
}
