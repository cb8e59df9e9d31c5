package pgcluster

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"chatelaine.dev/internal/fault"
)

// Replicated returns the settings that a cluster needs to have standbys. A commit
// waits for a synchronous standby to have applied it, so that no acknowledged write
// is lost with the primary.
func Replicated() map[string]string {
	return map[string]string{"wal_level": "replica", "max_wal_senders": "4", "synchronous_commit": "remote_apply"}
}

// Standby starts a synchronous standby of a cluster that has the settings of
// [Replicated]: a copy of it in cfg.Dir, which is new, that follows it. It returns
// when the cluster's commits wait for it. Errors are those of [Start].
func (c *Cluster) Standby(ctx context.Context, cfg Config) (*Cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	s, err := start(ctx, cfg, c)
	if err != nil {
		return nil, err
	}
	if err := c.exec(ctx, func(conn *pgx.Conn) error { return c.awaitSync(ctx, conn) }); err != nil {
		_ = s.Stop()
		return nil, fault.Wrap(fault.Unavailable, err, "the standby does not follow").WithReason("postgres_failed")
	}
	return s, nil
}

// standbyName is what a primary knows its synchronous standby by.
const standbyName = "standby"

// awaitSync makes commits wait for the standby, and returns when it is in step. The
// setting is not part of the copy, where it would make commits wait for nobody.
func (c *Cluster) awaitSync(ctx context.Context, conn *pgx.Conn) error {
	if _, err := conn.Exec(ctx, `ALTER SYSTEM SET synchronous_standby_names = '`+standbyName+`'`); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, `SELECT pg_reload_conf()`); err != nil {
		return err
	}
	return poll(ctx, func() (bool, error) {
		var inStep bool
		err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM pg_stat_replication
			WHERE application_name = $1 AND state = 'streaming' AND sync_state = 'sync')`, standbyName).Scan(&inStep)
		return inStep, err
	})
}

// Promote makes a standby a primary of its own, and returns when it takes writes.
func (c *Cluster) Promote(ctx context.Context) error {
	err := c.exec(ctx, func(conn *pgx.Conn) error {
		var promoted bool
		if err := conn.QueryRow(ctx, `SELECT pg_promote(true, 60)`).Scan(&promoted); err != nil {
			return err
		}
		if !promoted {
			return fmt.Errorf("it is still in recovery")
		}
		return nil
	})
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "the standby was not promoted")
	}
	c.primary = nil
	return nil
}

// Crash ends the server at once, as a crash does: nothing is written, the next start
// recovers from the log. It returns when it has ended.
func (c *Cluster) Crash() error {
	_ = c.process.Signal(syscall.SIGQUIT) // immediate shutdown; it may have ended just now
	select {
	case <-c.exited:
		return nil
	case <-time.After(quickStop):
		return c.Stop()
	}
}

// Ended reports whether the server has ended, in whatever way.
func (c *Cluster) Ended() bool { return c.ended() }

// Ping asks the server whether it answers.
func (c *Cluster) Ping(ctx context.Context) error {
	return c.exec(ctx, func(conn *pgx.Conn) error { return conn.Ping(ctx) })
}

// copyPrimary makes the data of a standby.
func (c *Cluster) copyPrimary(ctx context.Context) error {
	err := c.tool(ctx, "pg_basebackup", "-D", c.dataDir(), "-d", c.conninfo(), "--checkpoint=fast", "--wal-method=stream", "--no-sync")
	if err != nil {
		return err
	}
	if err := c.user.touch(filepath.Join(c.dataDir(), "standby.signal")); err != nil {
		return fault.Wrap(fault.Precondition, err, "cannot write the data of the standby")
	}
	return nil
}

// conninfo is how a standby reaches its primary: over the socket, which asks for no
// password.
func (c *Cluster) conninfo() string {
	quoted := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(c.primary.socketDir)
	return fmt.Sprintf("host='%s' port=%d user=%s application_name=%s", quoted, c.primary.port(), Superuser, standbyName)
}

// poll looks until it is done, an error comes, or ctx ends.
func poll(ctx context.Context, look func() (done bool, err error)) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if done, err := look(); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
