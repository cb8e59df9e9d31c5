package app

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"chatelaine.dev/internal/cli"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/pgtest"
	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/services/tokenbroker/internal/schema"
)

// writer calls a function with what is written.
type writer func(p []byte)

func (w writer) Write(p []byte) (int, error) { w(p); return len(p), nil }

// Ctrl-C must leave whole batches, say how far it came, and let the next run go on.
func TestEndingSessionsCanBeInterrupted(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t, schema.Migrations())
	pool, err := postgres.Open(t.Context(), postgres.Config{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if _, err := pool.Exec(t.Context(), `
		INSERT INTO tokenbroker.sessions (id, state, client_id, expires_at)
		SELECT 'ses_' || i, 'pending', 'c', now() + interval '1 day' FROM generate_series(1, 1200) i`); err != nil {
		t.Fatal(err)
	}
	end := endSessions{All: true}
	end.DatabaseServer = cli.DatabaseServer{DatabaseURL: url, DatabaseConnectTimeout: time.Minute}
	end.Log = cli.Log{LogFormat: "json"}

	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	err = end.Run(ctx, writer(func([]byte) { interrupt() }), io.Discard)
	if fault.KindOf(err) != fault.Canceled || !strings.Contains(err.Error(), "interrupted: 500 sessions ended") {
		t.Errorf("interrupted: %v", err)
	}
	var left int
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM tokenbroker.sessions WHERE state <> 'ended'`).Scan(&left); err != nil || left != 700 {
		t.Errorf("%d sessions are left, %v", left, err)
	}
	var stdout bytes.Buffer
	if err := end.Run(t.Context(), &stdout, io.Discard); err != nil || !strings.HasSuffix(stdout.String(), "0 sessions ended, 700 logins under way given up\n") {
		t.Errorf("again: %q, %v", &stdout, err)
	}
}
