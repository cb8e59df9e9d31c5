package pgcluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
)

// Superuser is the role that owns the cluster.
const Superuser = "postgres"

const (
	startTimeout = 60 * time.Second
	fastStop     = 15 * time.Second
	quickStop    = 5 * time.Second
	// maxSocketDir leaves room for the file's name in sun_path (104 or 108 bytes).
	maxSocketDir = 80
	socketPort   = 5432 // names the socket file when there is no TCP
)

// Config says what to run.
type Config struct {
	// Dir is the folder of everything that the cluster has: data, socket, log.
	// It is made when it does not exist. See DataDir.
	Dir string
	// Port, when not zero, is also listened on at 127.0.0.1, with Password.
	Port int
	// Password of Superuser over TCP; required with Port. It is set anew at each
	// start. The socket asks for none: its folder is private.
	Password secret.String
	// Throwaway turns off what makes data survive a crash.
	Throwaway bool
	// Settings of the server, by name; they win over ours.
	Settings map[string]string
}

// Cluster is a running server.
type Cluster struct {
	cfg       Config
	user      *account
	binDir    string
	socketDir string
	ownSocket bool     // socketDir is a temporary folder outside Dir
	primary   *Cluster // of a standby, until it is promoted
	process   *os.Process
	exited    chan struct{} // closed when postgres has ended
	exitErr   error         // valid after exited
}

// Start makes or reuses the cluster and returns when it answers. It is bounded
// by ctx and by one minute. Errors are Precondition (no binaries, a folder that
// cannot be used) or Unavailable (it did not start; the log's last lines are in
// the cause).
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return start(ctx, cfg, nil)
}

// start makes the cluster anew, or as a copy of a primary that it follows.
func start(ctx context.Context, cfg Config, primary *Cluster) (*Cluster, error) {
	if cfg.Port != 0 && cfg.Password.IsZero() {
		return nil, fault.New(fault.Invalid, "a Postgres cluster on a TCP port needs a password")
	}
	c := &Cluster{cfg: cfg, primary: primary, exited: make(chan struct{})}
	var err error
	if c.cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, fault.Wrap(fault.Precondition, err, "cannot use the folder "+cfg.Dir)
	}
	if c.binDir, err = Binaries(); err != nil {
		return nil, err
	}
	if c.user, err = runAs(); err != nil {
		return nil, err
	}
	if err := c.prepare(ctx); err != nil {
		return nil, err
	}
	if err := c.launch(ctx); err != nil {
		return nil, err
	}
	if err := c.ready(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// URL returns the URL of a database over the Unix socket.
func (c *Cluster) URL(database string) secret.String {
	q := url.Values{"host": {c.socketDir}, "port": {strconv.Itoa(c.port())}, "sslmode": {"disable"}}
	u := url.URL{Scheme: "postgres", User: url.User(Superuser), Path: "/" + database, RawQuery: q.Encode()}
	return secret.New(u.String())
}

// TCPURL returns the URL of a database over TCP, password included.
func (c *Cluster) TCPURL(database string) secret.String {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(Superuser, c.cfg.Password.Reveal()),
		Host:     net.JoinHostPort("127.0.0.1", strconv.Itoa(c.cfg.Port)),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return secret.New(u.String())
}

// CreateDatabase makes a database unless it exists.
func (c *Cluster) CreateDatabase(ctx context.Context, name string) error {
	return c.exec(ctx, func(conn *pgx.Conn) error {
		var exists bool
		if err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1)`, name).Scan(&exists); err != nil || exists {
			return err
		}
		_, err := conn.Exec(ctx, `CREATE DATABASE `+pgx.Identifier{name}.Sanitize())
		return err
	})
}

// Run waits for ctx to end and stops the server; it is a task of a
// process.Group. The server ending by itself is an error.
func (c *Cluster) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return c.Stop()
	case <-c.exited:
		return fault.Wrap(fault.Unavailable, c.died(), "Postgres ended by itself")
	}
}

// Stop ends the server: transactions are rolled back and the data is written;
// when that takes too long, it is killed. The data folder stays.
func (c *Cluster) Stop() error {
	for _, step := range []struct {
		signal syscall.Signal // PostgreSQL manual, 19.5: shutting down the server
		wait   time.Duration
	}{{syscall.SIGINT, fastStop}, {syscall.SIGQUIT, quickStop}, {syscall.SIGKILL, quickStop}} {
		if c.ended() {
			break
		}
		_ = c.process.Signal(step.signal) // it may have ended just now
		select {
		case <-c.exited:
		case <-time.After(step.wait):
		}
	}
	if !c.ended() {
		return fault.Newf(fault.Timeout, "Postgres (process %d) did not end", c.process.Pid)
	}
	if c.ownSocket {
		return os.RemoveAll(c.socketDir)
	}
	return nil
}

func (c *Cluster) ended() bool {
	select {
	case <-c.exited:
		return true
	default:
		return false
	}
}

func (c *Cluster) dataDir() string { return filepath.Join(c.cfg.Dir, "data") }
func (c *Cluster) logPath() string { return filepath.Join(c.cfg.Dir, "postgres.log") }

func (c *Cluster) port() int {
	if c.cfg.Port != 0 {
		return c.cfg.Port
	}
	return socketPort
}

// prepare makes the folders and, in a new one, the data.
func (c *Cluster) prepare(ctx context.Context) error {
	if err := c.user.ownDir(c.cfg.Dir); err != nil {
		return err
	}
	c.socketDir = filepath.Join(c.cfg.Dir, "socket")
	if len(c.socketDir) > maxSocketDir {
		dir, err := os.MkdirTemp("/tmp", "chatelaine-pg-")
		if err != nil {
			return fault.Wrap(fault.Precondition, err, "cannot make a folder for the socket")
		}
		c.socketDir, c.ownSocket = dir, true
	}
	if err := c.user.ownDir(c.socketDir); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(c.dataDir(), "PG_VERSION")); err == nil {
		return nil
	}
	// An initdb that was killed leaves a folder that it would refuse.
	if err := os.RemoveAll(c.dataDir()); err != nil {
		return fault.Wrap(fault.Precondition, err, "cannot clear the data folder")
	}
	if c.primary != nil {
		return c.copyPrimary(ctx)
	}
	return c.initdb(ctx)
}

// initdb makes the data of a new cluster.
func (c *Cluster) initdb(ctx context.Context) error {
	args := []string{
		"-D", c.dataDir(), "-U", Superuser, "--encoding=UTF8", "--locale=C",
		"--auth-local=trust", "--auth-host=scram-sha-256", "--no-instructions",
	}
	if c.cfg.Throwaway {
		args = append(args, "--no-sync")
	}
	return c.tool(ctx, "initdb", args...)
}

// tool runs one of Postgres' programs as its user, to its end.
func (c *Cluster) tool(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(c.binDir, name), args...)
	cmd.Dir, cmd.Env = c.cfg.Dir, environment()
	cmd.SysProcAttr = c.user.attributes(syscall.SIGKILL)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fault.Wrap(fault.Unavailable, fmt.Errorf("%w: %s", err, lastLines(out)), name+" failed").
			WithReason("postgres_failed")
	}
	return nil
}

func (c *Cluster) args() []string {
	settings := map[string]string{
		"unix_socket_directories":          c.socketDir,
		"unix_socket_permissions":          "0700",
		"listen_addresses":                 "",
		"max_connections":                  "200",
		"logging_collector":                "off",
		"timezone":                         "UTC",
		"log_timezone":                     "UTC",
		"max_wal_senders":                  "0",
		"wal_level":                        "minimal",
		"password_encryption":              "scram-sha-256",
		"shared_buffers":                   "32MB",
		"dynamic_shared_memory_type":       "mmap", // /dev/shm is tiny in containers
		"log_min_messages":                 "warning",
		"log_min_error_statement":          "panic", // no statement text in the log
		"autovacuum_naptime":               "20s",
		"client_connection_check_interval": "10s",
	}
	if c.cfg.Port != 0 {
		settings["listen_addresses"] = "127.0.0.1"
	}
	if c.cfg.Throwaway {
		settings["fsync"], settings["synchronous_commit"], settings["full_page_writes"] = "off", "off", "off"
	}
	if c.primary != nil {
		settings["primary_conninfo"] = c.conninfo()
	}
	maps.Copy(settings, c.cfg.Settings)
	args := []string{"-D", c.dataDir(), "-p", strconv.Itoa(c.port())}
	for name, value := range settings {
		args = append(args, "-c", name+"="+value)
	}
	return args
}

// launch starts postgres from a thread that lives as long as it: the kernel
// sends the parent-death signal when the thread that forked ends, not the process.
func (c *Cluster) launch(ctx context.Context) error {
	if err := c.user.touch(c.logPath()); err != nil {
		return fault.Wrap(fault.Precondition, err, "cannot write the log of Postgres")
	}
	log, err := os.OpenFile(c.logPath(), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return fault.Wrap(fault.Precondition, err, "cannot write the log of Postgres")
	}
	onDeath := syscall.SIGINT
	if c.cfg.Throwaway {
		onDeath = syscall.SIGQUIT
	}
	// Stop ends it, not the context of the start.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), filepath.Join(c.binDir, "postgres"), c.args()...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = c.cfg.Dir, environment(), log, log
	cmd.SysProcAttr = c.user.attributes(onDeath)

	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer log.Close()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		c.exitErr = cmd.Wait()
		close(c.exited)
	}()
	if err := <-started; err != nil {
		return fault.Wrap(fault.Unavailable, err, "cannot start Postgres").WithReason("postgres_failed")
	}
	c.process = cmd.Process
	return nil
}

// ready waits until the server answers, and sets the password.
func (c *Cluster) ready(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := errNotOurs
		if c.holdsData() {
			err = c.exec(ctx, c.setPassword(ctx))
		}
		if err == nil {
			return nil
		}
		select {
		case <-c.exited:
			return fault.Wrap(fault.Unavailable, c.died(), "Postgres did not start").WithReason("postgres_failed")
		case <-ctx.Done():
			return fault.Wrap(fault.Unavailable, err, "Postgres did not answer in time").WithReason("postgres_failed")
		case <-tick.C:
		}
	}
}

// errNotOurs is what ready sees until our server has taken the data folder;
// another one there would answer on the same socket.
var errNotOurs = errors.New("the data folder is not in use by this server")

// holdsData reports whether the data folder's lock file names our server.
func (c *Cluster) holdsData() bool {
	b, err := os.ReadFile(filepath.Join(c.dataDir(), "postmaster.pid"))
	first, _, _ := strings.Cut(string(b), "\n")
	return err == nil && first == strconv.Itoa(c.process.Pid)
}

// setPassword gives Superuser the configured password, when there is one.
func (c *Cluster) setPassword(ctx context.Context) func(*pgx.Conn) error {
	return func(conn *pgx.Conn) error {
		if c.cfg.Password.IsZero() || c.primary != nil { // a standby has its primary's
			return conn.Ping(ctx)
		}
		// A parameter cannot stand here; format() quotes it on the server.
		var statement string
		if err := conn.QueryRow(ctx, `SELECT format('ALTER ROLE %I PASSWORD %L', $1::text, $2::text)`,
			Superuser, c.cfg.Password.Reveal()).Scan(&statement); err != nil {
			return err
		}
		_, err := conn.Exec(ctx, statement)
		return err
	}
}

func (c *Cluster) exec(ctx context.Context, fn func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, c.URL("postgres").Reveal())
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing was pending
	return fn(conn)
}

// died says how the server ended, with the end of its log.
func (c *Cluster) died() error {
	out, err := os.ReadFile(c.logPath())
	if err != nil {
		return c.exitErr
	}
	if c.exitErr == nil {
		return fmt.Errorf("postgres ended in order: %s", lastLines(out))
	}
	return fmt.Errorf("postgres: %w: %s", c.exitErr, lastLines(out))
}

// environment is small, so that PG* variables of a developer have no effect.
func environment() []string {
	return []string{"LC_ALL=C", "TZ=UTC", "PATH=" + os.Getenv("PATH")}
}

func lastLines(out []byte) string {
	lines := strings.Split(string(bytes.TrimSpace(out)), "\n")
	return strings.Join(lines[max(0, len(lines)-8):], " | ")
}
