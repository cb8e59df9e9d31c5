package postgres_test

import (
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/pgcluster"
	"chatelaine.dev/internal/pgtest"
	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/internal/secret"
)

// onTCP starts a server that is reached over TCP with the password hunter2.
func onTCP(t *testing.T) *pgcluster.Cluster {
	t.Helper()
	dir, err := os.MkdirTemp("", "postgres-test-") // t.TempDir's path is long, sockets want it short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o711); err != nil { // the user of Postgres passes through
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := ln.Addr().(*net.TCPAddr).Port
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	c, err := pgcluster.Start(t.Context(), pgcluster.Config{
		Dir: filepath.Join(dir, "pg"), Port: port, Password: secret.New("hunter2"), Throwaway: true,
	})
	if err != nil {
		t.Fatal(fault.Detail(err))
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(fault.Detail(err))
		}
	})
	return c
}

// with returns the URL changed.
func with(t *testing.T, from secret.String, change func(*url.URL)) secret.String {
	t.Helper()
	u, err := url.Parse(from.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	change(u)
	return secret.New(u.String())
}

// An operator who mistypes a role, a password or a name must read what is wrong;
// callers read the same text, so it must name neither server nor role.
func TestAServerThatTurnsUsAwayIsExplained(t *testing.T) {
	t.Parallel()
	c := onTCP(t)
	conn, err := pgx.Connect(t.Context(), c.URL("postgres").Reveal())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for _, sql := range []string{
		`CREATE ROLE crowded LOGIN CONNECTION LIMIT 0`, `CREATE ROLE stranger LOGIN`,
		`CREATE DATABASE closed`, `REVOKE CONNECT ON DATABASE closed FROM PUBLIC`,
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	as := func(role string, database string) secret.String {
		return with(t, c.URL(database), func(u *url.URL) { u.User = url.User(role) })
	}
	tcp := c.TCPURL("postgres")
	for name, tt := range map[string]struct {
		url       secret.String
		code, say string
	}{
		"wrong password": {with(t, tcp, func(u *url.URL) { u.User = url.UserPassword("postgres", "hunter3") }), "28P01", "role or the password"},
		"unknown role":   {as("nobody_here", "postgres"), "28000", "role or the password"},
		"no database":    {with(t, tcp, func(u *url.URL) { u.Path = "/missing" }), "3D000", "no database of that name"},
		"crowded":        {as("crowded", "postgres"), "53300", "--database-max-conns"},
		"not let in":     {as("stranger", "closed"), "42501", "grant it CONNECT"},
	} {
		pool := open(t, postgres.Config{URL: tt.url})
		_, migrated := version1().Up(t.Context(), tt.url, nil)
		for way, err := range map[string]error{
			"ping": postgres.Ping(pool)(t.Context()), "readiness": version1().Check(pool)(t.Context()), "migrate": migrated,
		} {
			f := fault.From(err)
			if f == nil || f.Kind != fault.Unavailable || f.Reason != "database_unavailable" || f.RetryAfter != 2*time.Second ||
				!strings.Contains(err.Error(), tt.say) {
				t.Errorf("%s, %s: %s", name, way, fault.Detail(err))
				continue
			}
			for _, secret := range []string{"nobody_here", "stranger", "postgres-test-", "127.0.0.1", "missing"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("%s, %s: callers are told %q: %v", name, way, secret, err)
				}
			}
			if line := fault.Terminal(err); !strings.Contains(line, tt.code) || strings.Contains(line, "\n") || strings.Contains(line, "hunter") {
				t.Errorf("%s, %s: operators are told %q", name, way, line)
			}
		}
	}
}

func TestAServerThatCannotBeReachedIsNamedOnOneLine(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"localhost:1":             "connection refused",
		"nowhere.invalid:5432":    "nowhere.invalid",
		"127.0.0.1:1,127.0.0.1:2": "127.0.0.1:2",
	} {
		_, err := version1().Up(t.Context(), secret.New("postgres://app:hunter2@"+address+"/x?sslmode=disable"), nil)
		first, _, _ := strings.Cut(address, ",")
		line := fault.Terminal(err)
		if fault.ReasonOf(err) != "database_unavailable" || strings.Contains(line, "\n") || strings.Contains(line, "hunter2") ||
			!strings.Contains(line, "cannot connect to "+first) || !strings.Contains(line, want) {
			t.Errorf("%s: %q", address, line)
		}
	}
}

// A server that takes connections and says nothing must not hold a start for long.
func TestMakingAConnectionIsBounded(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	cfg := postgres.Config{
		URL:            secret.New("postgres://app@" + silent.Addr().String() + "/x?sslmode=disable"),
		ConnectTimeout: 50 * time.Millisecond,
	}
	m := version1()
	m.ConnectTimeout = cfg.ConnectTimeout
	_, migrated := m.Up(t.Context(), cfg.URL, nil)
	for way, err := range map[string]error{"pool": postgres.Ping(open(t, cfg))(t.Context()), "migrate": migrated} {
		if fault.ReasonOf(err) != "database_unavailable" {
			t.Errorf("%s: %s", way, fault.Detail(err))
		}
	}
}

func TestTheURLsOwnTimeoutsWin(t *testing.T) {
	t.Parallel()
	slow := with(t, pgtest.URL(t), func(u *url.URL) {
		q := u.Query()
		q.Set("statement_timeout", "12345")
		q.Set("connect_timeout", "7")
		u.RawQuery = q.Encode()
	})
	pool := open(t, postgres.Config{URL: slow, StatementTimeout: time.Second, ConnectTimeout: time.Second})
	var statement, lock string
	if err := pool.QueryRow(t.Context(), `SELECT current_setting('statement_timeout'), current_setting('lock_timeout')`).Scan(&statement, &lock); err != nil ||
		statement != "12345ms" || lock != "500ms" {
		t.Errorf("statements %s, locks %s, %v", statement, lock, err)
	}
	if got := pool.Config().ConnConfig.ConnectTimeout; got != 7*time.Second {
		t.Errorf("connecting may take %s", got)
	}
}

// On a large table a migration takes long; the service's limits must not cut it.
func TestAMigrationMayTakeAsLongAsItNeeds(t *testing.T) {
	t.Parallel()
	hurried := with(t, pgtest.URL(t), func(u *url.URL) {
		q := u.Query()
		q.Set("statement_timeout", "50")
		q.Set("lock_timeout", "50")
		u.RawQuery = q.Encode()
	})
	m := version1()
	m.FS = fstest.MapFS{"0001_entries.sql": file(sqlOne + ` SELECT pg_sleep(0.3);`)}
	up(t, m, hurried, 1)
}

func TestMigrationsDoNotTravelInClearTextByAccident(t *testing.T) {
	t.Parallel()
	_, err := version1().Up(t.Context(), secret.New("postgres://app:hunter2@db.example/x"), nil)
	if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "sslmode") {
		t.Errorf("%s", fault.Detail(err))
	}
}

func TestARoleThatMayNotMakeItsSchemaIsToldSo(t *testing.T) {
	t.Parallel()
	owner := pgtest.URL(t)
	pool := open(t, postgres.Config{URL: owner})
	role := "role_" + strings.ReplaceAll(pool.Config().ConnConfig.Database, "chatelaine_test_", "")
	if _, err := pool.Exec(t.Context(), `CREATE ROLE `+role+` LOGIN`); err != nil {
		t.Fatal(err)
	}
	defer pool.Exec(t.Context(), `DROP ROLE `+role)
	_, err := version1().Up(t.Context(), with(t, owner, func(u *url.URL) { u.User = url.User(role) }), nil)
	if fault.ReasonOf(err) != "schema_missing" || !strings.Contains(err.Error(), "grant it CREATE") {
		t.Errorf("%s", fault.Detail(err))
	}
}

func TestThePoolIsMeasured(t *testing.T) {
	t.Parallel()
	reader := sdkmetric.NewManualReader()
	pool := open(t, postgres.Config{URL: pgtest.URL(t), MaxConns: 1, Meter: sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))})
	held, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- postgres.Ping(pool)(t.Context()) }() // waits
	deadline := time.Now().Add(10 * time.Second)
	for measured(t, reader)["chatelaine.database.connections{state=used}"] != 1 {
		if time.Now().After(deadline) {
			t.Fatal(measured(t, reader))
		}
		time.Sleep(time.Millisecond)
	}
	held.Release()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	got := measured(t, reader)
	if got["chatelaine.database.connections{state=idle}"] != 1 || got["chatelaine.database.connections.max"] != 1 ||
		got["chatelaine.database.waits"] < 1 || got["chatelaine.database.wait.duration"] <= 0 {
		t.Errorf("measured %v", got)
	}
}

// measured returns what a scrape sees.
func measured(t *testing.T, reader sdkmetric.Reader) map[string]float64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &all); err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	add := func(name string, set attribute.Set, value float64) {
		if set.Len() > 0 {
			name += "{" + set.Encoded(attribute.DefaultEncoder()) + "}"
		}
		got[name] = value
	}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Gauge[int64]:
				for _, p := range data.DataPoints {
					add(m.Name, p.Attributes, float64(p.Value))
				}
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					add(m.Name, p.Attributes, float64(p.Value))
				}
			case metricdata.Sum[float64]:
				for _, p := range data.DataPoints {
					add(m.Name, p.Attributes, p.Value)
				}
			}
		}
	}
	return got
}
