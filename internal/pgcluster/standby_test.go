package pgcluster

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
)

func execute(t *testing.T, url secret.String, sql string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, url.Reveal())
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, sql)
	return err
}

func TestAPromotedStandbyHasEveryAcknowledgedWrite(t *testing.T) {
	t.Parallel()
	primary := begin(t, Config{Dir: folder(t), Settings: Replicated()})
	if err := execute(t, primary.URL("postgres"), `CREATE TABLE writes (n int)`); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Dir: folder(t), Port: freePort(t), Password: secret.New("of the primary"), Settings: Replicated()}
	standby, err := primary.Standby(t.Context(), cfg)
	if err != nil {
		t.Fatal(fault.Detail(err))
	}
	t.Cleanup(func() { _ = standby.Stop() })
	if err := execute(t, primary.URL("postgres"), `INSERT INTO writes VALUES (1)`); err != nil {
		t.Fatal(err)
	}
	if got, err := query(t, standby.URL("postgres"), `SELECT count(*)::text FROM writes`); err != nil || got != "1" {
		t.Errorf("the standby has %q rows, %v; the primary has acknowledged 1", got, err)
	}
	if err := execute(t, standby.URL("postgres"), `INSERT INTO writes VALUES (2)`); err == nil {
		t.Error("a standby takes writes")
	}
	if err := primary.Crash(); err != nil {
		t.Fatal(err)
	}
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(fault.Detail(err))
	}
	if err := execute(t, standby.URL("postgres"), `INSERT INTO writes VALUES (3)`); err != nil {
		t.Errorf("the promoted standby takes no writes: %v", err)
	}
	if err := standby.Stop(); err != nil {
		t.Fatal(err)
	}
	standby = begin(t, cfg) // as any other cluster
	if got, err := query(t, standby.TCPURL("postgres"), `SELECT string_agg(n::text, ',' ORDER BY n) FROM writes`); err != nil || got != "1,3" {
		t.Errorf("the promoted standby has %q, %v", got, err)
	}
}

func TestACrashedServerRecovers(t *testing.T) {
	t.Parallel()
	cfg := Config{Dir: folder(t), Settings: map[string]string{"checkpoint_timeout": "1h"}}
	c := begin(t, cfg)
	if err := execute(t, c.URL("postgres"), `CREATE TABLE kept AS SELECT 1 AS n`); err != nil {
		t.Fatal(err)
	}
	if got, err := query(t, c.URL("postgres"), `SHOW checkpoint_timeout`); err != nil || got != "1h" {
		t.Errorf("a setting of the caller's: %q, %v", got, err)
	}
	if err := c.Crash(); err != nil {
		t.Fatal(err)
	}
	if _, err := query(t, c.URL("postgres"), `SELECT 'x'`); err == nil {
		t.Error("the server answers after its crash")
	}
	c = begin(t, cfg)
	if got, err := query(t, c.URL("postgres"), `SELECT n::text FROM kept`); err != nil || got != "1" {
		t.Errorf("after the crash: %q, %v", got, err)
	}
}
