package vault

import (
	"crypto/rand"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"chatelaine.dev/e2e/smalldisk"
	"chatelaine.dev/examples/stack"
	"chatelaine.dev/internal/pgcluster"
	"chatelaine.dev/internal/secret"
)

// database is the name of the broker's database in clusters of these tests.
const database = "vault"

// clusterConfig is a cluster on a port of its own, whose data survives a crash.
func clusterConfig(t *testing.T, dir string, settings map[string]string) pgcluster.Config {
	t.Helper()
	ports, err := stack.FreePorts(t.Context())
	must(t, err)
	return pgcluster.Config{Dir: dir, Port: ports.Broker, Password: secret.New("password-of-postgres"), Settings: settings}
}

func startCluster(t *testing.T, cfg pgcluster.Config) *pgcluster.Cluster {
	t.Helper()
	c, err := pgcluster.Start(t.Context(), cfg)
	must(t, err)
	t.Cleanup(func() { must(t, c.Stop()) })
	return c
}

func clusterDir(t *testing.T) string {
	t.Helper()
	return filepath.Join(shared.dir, "pg-"+rand.Text()[:8])
}

func newLedger(t *testing.T, cfg houseConfig) *ledger {
	t.Helper()
	return &ledger{
		house: newHouse(t, cfg), t: t,
		failures: map[string]int{}, done: map[string]time.Time{},
	}
}

// busy waits until so many more logins were acknowledged.
func (l *ledger) busy(more int) {
	l.t.Helper()
	want := l.count() + more
	eventually(l.t, time.Minute, func() string {
		if n := l.count(); n < want {
			return fmt.Sprintf("%d logins, want %d", n, want)
		}
		return ""
	})
}

// What a person was told is done is done, whatever becomes of the database, and
// nobody needs to restart a broker.
func TestNoAcknowledgedWriteIsLostWhenPostgresIsRestarted(t *testing.T) {
	cfg := clusterConfig(t, clusterDir(t), nil)
	c := startCluster(t, cfg)
	must(t, c.CreateDatabase(t.Context(), database))
	l := newLedger(t, houseConfig{url: c.TCPURL(database), args: leaseArgs})
	stop := l.load()
	defer stop()
	for _, end := range []struct {
		name string
		do   func() error
	}{{"stopped", func() error { return c.Stop() }}, {"crashed", func() error { return c.Crash() }}} {
		l.busy(20)
		failures := l.failureCount()
		must(t, end.do())
		l.failedSome(failures)
		c = startCluster(t, cfg)
		t.Logf("Postgres was %s and started again", end.name)
		l.resumed(time.Now())
	}
	l.busy(20)
	stop()
	l.check()
}

func TestNoAcknowledgedWriteIsLostInAFailover(t *testing.T) {
	first := clusterConfig(t, clusterDir(t), pgcluster.Replicated())
	primary := startCluster(t, first)
	must(t, primary.CreateDatabase(t.Context(), database))
	second := clusterConfig(t, clusterDir(t), pgcluster.Replicated())
	standby, err := primary.Standby(t.Context(), second)
	must(t, err)
	t.Cleanup(func() { must(t, standby.Stop()) })
	url := fmt.Sprintf("postgres://postgres:%s@%s,%s/%s?sslmode=disable&target_session_attrs=read-write",
		first.Password.Reveal(), hostPort(first.Port), hostPort(second.Port), database)
	l := newLedger(t, houseConfig{url: secret.New(url), args: leaseArgs})
	stop := l.load()
	defer stop()
	l.busy(40)
	failures := l.failureCount()
	must(t, primary.Crash())
	l.failedSome(failures)
	must(t, standby.Promote(t.Context()))
	l.resumed(time.Now())
	l.busy(20)
	stop()
	l.check()
}

func TestNoAcknowledgedWriteIsLostWhenTheDiskIsFull(t *testing.T) {
	disk := filepath.Join(shared.dir, "disk")
	smalldisk.Mount(t, disk, 192<<20)
	cfg := clusterConfig(t, filepath.Join(disk, "pg"), map[string]string{"max_wal_size": "32MB", "min_wal_size": "32MB"})
	c := startCluster(t, cfg)
	must(t, c.CreateDatabase(t.Context(), database))
	l := newLedger(t, houseConfig{url: c.TCPURL(database), args: leaseArgs})
	stop := l.load()
	defer stop()
	l.busy(20)
	failures := l.failureCount()
	room := smalldisk.Fill(t, disk)
	l.failedSome(failures + 20)
	room()
	eventually(t, 30*time.Second, func() string { // one that had to stop is started again, as its supervisor would
		if err := c.Ping(t.Context()); err == nil {
			return ""
		}
		if c.Ended() {
			t.Log("Postgres had to stop, and is started again")
			c = startCluster(t, cfg)
		}
		return "Postgres does not answer"
	})
	l.resumed(time.Now())
	l.busy(20)
	stop()
	l.check()
}
