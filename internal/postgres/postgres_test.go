package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/pgtest"
	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/internal/secret"
)

func open(t *testing.T, cfg postgres.Config) *pgxpool.Pool {
	t.Helper()
	pool, err := postgres.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func TestADatabaseThatIsDownIsNoReasonNotToStart(t *testing.T) {
	t.Parallel()
	pool := open(t, postgres.Config{URL: secret.New("postgres://user:hunter2@127.0.0.1:1/none?sslmode=disable")})
	err := postgres.Ping(pool)(t.Context())
	if fault.ReasonOf(err) != "database_unavailable" || strings.Contains(fault.Detail(err), "hunter2") {
		t.Errorf("Ping = %s", fault.Detail(err))
	}
	if err := version1().Check(pool)(t.Context()); fault.ReasonOf(err) != "database_unavailable" {
		t.Errorf("Check = %s", fault.Detail(err))
	}
}

func TestAWrongURLIsNotRepeated(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"", "postgres://user:hunter2@[bad", "postgres://u:hunter2@h/x?sslmode=maybe", "mysql://u:hunter2@h", "host=h port=hunter2"} {
		_, err := postgres.Open(t.Context(), postgres.Config{URL: secret.New(url)})
		if fault.KindOf(err) != fault.Invalid || fault.ReasonOf(err) != "database_url" || strings.Contains(fault.Detail(err), "hunter2") {
			t.Errorf("%q: %s", url, fault.Detail(err))
		}
	}
}

func TestAURLOfAnotherMachineSaysWhetherItIsEncrypted(t *testing.T) {
	t.Parallel()
	for url, ok := range map[string]bool{
		"postgres://u:hunter2@db/x":                            false,
		"postgres://u:hunter2@db/x?sslmode=prefer":             false,
		"postgres://u:hunter2@db/x?sslmode=allow":              false,
		"postgres://u:hunter2@10.0.0.1/x":                      false,
		"postgres://u:hunter2@127.0.0.1,db/x":                  false,
		"host=db user=u password=hunter2":                      false,
		"host=db user=u password=hunter2 application_name=x":   false,
		"host=db user=u password=hunter2 sslmode=prefer":       false,
		"postgres://u:hunter2@db/x?sslmode=disable":            true,
		"postgres://u:hunter2@db/x?sslmode=require":            true,
		"postgres://u:hunter2@db/x?sslmode=verify-full":        true,
		"host=db user=u password=hunter2 sslmode=verify-full":  true,
		"host=db user=u password=hunter2 sslmode = 'require' ": true,
		"postgres://u:hunter2@127.0.0.1/x":                     true,
		"postgres://u:hunter2@[::1]:5432/x":                    true,
		"postgres://u:hunter2@localhost/x":                     true,
		"postgres://u:hunter2@/x?host=/run/postgresql":         true,
		"host=/run/postgresql user=u":                          true,
	} {
		err := postgres.CheckTransport(secret.New(url))
		if (err == nil) != ok || strings.Contains(fault.Detail(err), "hunter2") {
			t.Errorf("%q: %s", url, fault.Detail(err))
		}
		if pool, err := postgres.Open(t.Context(), postgres.Config{URL: secret.New(url)}); ok != (err == nil) {
			t.Errorf("%q opens: %v", url, err)
		} else if err == nil {
			pool.Close()
		}
	}
}

func TestTheServerEnforcesTheTimeouts(t *testing.T) {
	t.Parallel()
	pool := open(t, postgres.Config{URL: pgtest.URL(t), StatementTimeout: 100 * time.Millisecond, Application: "ledgerd"})
	if _, err := pool.Exec(t.Context(), `SELECT pg_sleep(30)`); fault.ReasonOf(postgres.Fault(err)) != "database_timeout" {
		t.Errorf("a slow statement: %v", err)
	}
	var name string
	if err := pool.QueryRow(t.Context(), `SHOW application_name`).Scan(&name); err != nil || name != "ledgerd" {
		t.Errorf("application %q, %v", name, err)
	}
}

func TestSpansAndLogsHoldNoArguments(t *testing.T) {
	t.Parallel()
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	pool := open(t, postgres.Config{URL: pgtest.URL(t), Tracer: provider})
	ctx, parent := provider.Tracer("test").Start(t.Context(), "request")
	var got string
	if err := pool.QueryRow(ctx, `SELECT $1::text`, "hunter2").Scan(&got); err != nil {
		t.Fatal(err)
	}
	// A failure whose message quotes the argument.
	_, err := pool.Exec(ctx, `SELECT $1::text::int`, "hunter2")
	if err == nil || !strings.Contains(err.Error(), "hunter2") {
		t.Fatalf("the failure does not quote its argument any more: %v", err)
	}
	if f := postgres.Fault(err); strings.Contains(fault.Detail(f), "hunter2") || !strings.Contains(fault.Detail(f), "22P02") {
		t.Errorf("a log would hold an argument: %s", fault.Detail(f))
	}
	parent.End()
	seen := false
	for _, span := range recorder.Ended() {
		text := fmt.Sprint(span.Name(), span.Status(), span.Events())
		for _, a := range span.Attributes() {
			text += string(a.Key) + "=" + a.Value.String()
		}
		seen = seen || strings.Contains(text, "SELECT $1")
		if strings.Contains(text, "hunter2") {
			t.Errorf("span %s holds an argument: %s", span.Name(), text)
		}
	}
	if !seen {
		t.Error("no span shows the statement")
	}
}

func TestPasswordsInFlagsAreFound(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]bool{
		"postgres://app@db:5432/chatelaine?sslmode=verify-full": false,
		"postgresql://db/x":                   false,
		"postgres:///x?host=/run/postgresql":  false,
		"host=db user=app dbname=x":           false,
		"postgres://app:pw@db/x":              true,
		"postgres://app:@db/x":                true,
		"postgres://app@db/x?password=pw":     true,
		"postgres://app@db/x?a=b&PASSWORD=pw": true,
		"postgres://app@db/x?pass%77ord=pw":   true,
		"postgres://app@db/x?sslpassword=pw":  true,
		"postgres://app@db/x?a;password=pw":   true,
		"postgres://app:pw%zz@db/x":           true,
		"host=db password=pw":                 true,
		"password = 'pw' host=db":             true,
		"host='db'password=pw":                true,
		"host=db\tPassword=pw":                true,
	} {
		if got := postgres.HasPassword(url); got != want {
			t.Errorf("HasPassword(%q) = %v", url, got)
		}
	}
}

func TestReadURLFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if got, err := postgres.ReadURLFile(write("good", "postgres://u:hunter2@h/x\n")); err != nil || got.Reveal() != "postgres://u:hunter2@h/x" {
		t.Errorf("a good file: %v", err)
	}
	for name, path := range map[string]string{
		"empty": write("empty", "\n"), "large": write("large", strings.Repeat("hunter2", 1000)), "missing": filepath.Join(dir, "none"),
	} {
		if _, err := postgres.ReadURLFile(path); fault.KindOf(err) != fault.Invalid || strings.Contains(fault.Detail(err), "hunter2") {
			t.Errorf("%s: %s", name, fault.Detail(err))
		}
	}
}

func TestDriverErrorsBecomeTheirKind(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	exec := func(sql string) error { _, err := pool.Exec(t.Context(), sql); return err }
	if err := exec(`CREATE TABLE parent (id int CONSTRAINT parent_key PRIMARY KEY); CREATE TABLE child (id int CONSTRAINT child_fk REFERENCES parent);
		INSERT INTO parent VALUES (1)`); err != nil {
		t.Fatal(err)
	}
	expired, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	gone, cancelGone := context.WithCancel(t.Context())
	cancelGone()
	_, late := pool.Exec(expired, `SELECT 1`)
	_, canceled := pool.Exec(gone, `SELECT 1`)
	slow, cancelSlow := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancelSlow()
	_, cut := pool.Exec(slow, `SELECT pg_sleep(30)`)
	duplicate := exec(`INSERT INTO parent VALUES (1)`)
	orphan := exec(`INSERT INTO child VALUES (2)`)
	var x int
	none := pool.QueryRow(t.Context(), `SELECT 1 WHERE false`).Scan(&x)
	killed := func() error {
		return pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), `SELECT pg_terminate_backend(pg_backend_pid())`)
			return err
		})
	}()
	raise := func(sqlstate string) error {
		return exec(`DO $$ BEGIN RAISE EXCEPTION 'made up' USING ERRCODE = '` + sqlstate + `'; END $$`)
	}
	own := fault.New(fault.Denied, "not yours")

	for name, tt := range map[string]struct {
		err  error
		want fault.Kind
	}{
		"no rows": {none, fault.NotFound}, "duplicate": {duplicate, fault.Conflict}, "orphan": {orphan, fault.Internal},
		"deadline before": {late, fault.Timeout}, "deadline during": {cut, fault.Timeout}, "canceled": {canceled, fault.Canceled},
		"connection killed": {killed, fault.Unavailable}, "syntax": {exec(`SELEKT`), fault.Internal},
		"disk full": {raise("53100"), fault.Unavailable}, "too many connections": {raise("53300"), fault.Unavailable},
		"I/O error": {raise("58030"), fault.Unavailable}, "read only": {raise("25006"), fault.Unavailable},
		"a fault": {own, fault.Denied}, "a wrapped fault": {fmt.Errorf("tx: %w", own), fault.Denied},
	} {
		got := postgres.Fault(tt.err)
		if fault.KindOf(got) != tt.want || !errors.Is(got, tt.err) && name != "a wrapped fault" {
			t.Errorf("%s: %v is of kind %s, want %s", name, tt.err, fault.KindOf(got), tt.want)
		}
	}
	if postgres.Fault(nil) != nil {
		t.Error("Fault(nil) is an error")
	}
	if !postgres.IsForeignKeyViolation(orphan, "child_fk") || postgres.IsForeignKeyViolation(duplicate) {
		t.Error("IsForeignKeyViolation does not tell violations apart")
	}
}

func TestTransactionsThatLoseARaceAreRunAgain(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	if _, err := pool.Exec(t.Context(), `CREATE TABLE counter (n int); INSERT INTO counter VALUES (0)`); err != nil {
		t.Fatal(err)
	}
	const workers = 2 // of two, one loses each round: three attempts are enough
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			err := postgres.InTx(t.Context(), pool, pgx.TxOptions{IsoLevel: pgx.Serializable}, func(tx pgx.Tx) error {
				var n int
				if err := tx.QueryRow(t.Context(), `SELECT n FROM counter`).Scan(&n); err != nil {
					return err
				}
				_, err := tx.Exec(t.Context(), `UPDATE counter SET n = $1`, n+1)
				return err
			})
			if err != nil {
				t.Errorf("InTx = %v", err)
			}
		})
	}
	wg.Wait()
	var n int
	if err := pool.QueryRow(t.Context(), `SELECT n FROM counter`).Scan(&n); err != nil || n != workers {
		t.Errorf("n = %d, %v: an update was lost", n, err)
	}
}

func TestATransactionThatFailsLeavesNothing(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t)
	if _, err := pool.Exec(t.Context(), `CREATE TABLE kept (n int)`); err != nil {
		t.Fatal(err)
	}
	insert := func(tx pgx.Tx) {
		if _, err := tx.Exec(t.Context(), `INSERT INTO kept VALUES (1)`); err != nil {
			t.Error(err)
		}
	}
	broken := errors.New("broken")
	attempts := 0
	if err := postgres.InTx(t.Context(), pool, pgx.TxOptions{}, func(tx pgx.Tx) error {
		attempts++
		insert(tx)
		return broken
	}); !errors.Is(err, broken) || attempts != 1 {
		t.Errorf("InTx = %v after %d attempts", err, attempts)
	}
	func() {
		defer func() { _ = recover() }()
		_ = postgres.InTx(t.Context(), pool, pgx.TxOptions{}, func(tx pgx.Tx) error { insert(tx); panic("broken") })
	}()
	gone, cancel := context.WithCancel(t.Context())
	if err := postgres.InTx(gone, pool, pgx.TxOptions{}, func(tx pgx.Tx) error { insert(tx); cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("InTx whose caller left = %v", err)
	}
	var n int
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM kept`).Scan(&n); err != nil || n != 0 {
		t.Errorf("%d rows stayed, %v", n, err)
	}
	if stat := pool.Stat(); stat.AcquiredConns() != 0 {
		t.Errorf("%d connections were not given back", stat.AcquiredConns())
	}
}
