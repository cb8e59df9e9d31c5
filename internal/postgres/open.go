package postgres

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel/metric"
	noopmetric "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
)

// Defaults of Config.
const (
	DefaultMaxConns         = 16
	DefaultStatementTimeout = 10 * time.Second
	DefaultConnectTimeout   = 5 * time.Second
)

// Config makes a pool.
type Config struct {
	// URL is a postgres:// URL or a list of key=value. Required.
	URL secret.String
	// Application names the service in pg_stat_activity.
	Application string
	// MaxConns bounds the pool; zero means DefaultMaxConns.
	MaxConns int32
	// ConnectTimeout bounds making a connection; zero means DefaultConnectTimeout.
	// connect_timeout in the URL wins.
	ConnectTimeout time.Duration
	// StatementTimeout bounds each statement on the server; zero means
	// DefaultStatementTimeout. statement_timeout in the URL wins.
	StatementTimeout time.Duration
	// Tracer traces statements without their arguments; nil means none.
	Tracer trace.TracerProvider
	// Meter measures the pool; nil means none.
	Meter metric.MeterProvider
}

// Open makes a pool. It connects in the background: a server that is down shows
// in Ping and in each call, not here. Errors are Invalid (a bad URL).
func Open(ctx context.Context, cfg Config) (*pgxpool.Pool, error) {
	pc, err := poolConfig(cfg)
	if err != nil {
		return nil, err
	}
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, invalidURL()
	}
	if cfg.Meter != nil {
		if err := measure(pool, cfg.Meter); err != nil {
			pool.Close()
			return nil, err
		}
	}
	return pool, nil
}

func poolConfig(cfg Config) (*pgxpool.Config, error) {
	if cfg.URL.IsZero() {
		return nil, fault.New(fault.Invalid, "a database URL is required").WithReason("database_url")
	}
	pc, err := pgxpool.ParseConfig(cfg.URL.Reveal())
	if err != nil {
		return nil, invalidURL() // pgx's error may quote the URL
	}
	if err := CheckTransport(cfg.URL); err != nil {
		return nil, err
	}
	pc.MaxConns = DefaultMaxConns
	if cfg.MaxConns > 0 {
		pc.MaxConns = cfg.MaxConns
	}
	pc.MaxConnLifetime, pc.MaxConnLifetimeJitter = 30*time.Minute, 5*time.Minute
	pc.MaxConnIdleTime = 5 * time.Minute
	pc.HealthCheckPeriod = 30 * time.Second
	setConnect(pc.ConnConfig, cfg.ConnectTimeout)
	pc.PingTimeout = pc.ConnConfig.ConnectTimeout // of connections that were idle, before they are used
	setTimeouts(pc.ConnConfig, cfg.StatementTimeout)
	if cfg.Application != "" {
		pc.ConnConfig.RuntimeParams["application_name"] = cfg.Application
	}
	if cfg.Tracer != nil {
		pc.ConnConfig.Tracer = discreetTracer{otelpgx.NewTracer(
			otelpgx.WithTracerProvider(cfg.Tracer),
			otelpgx.WithMeterProvider(noopmetric.NewMeterProvider()),
			otelpgx.WithDisableConnectionDetailsInAttributes(),
		)}
	}
	return pc, nil
}

// CheckTransport refuses a URL that leaves it to the server whether the
// connection is encrypted, as drivers do when it has no sslmode: then whoever is
// on the way can ask for clear text. Unix sockets and loopback addresses may
// leave it out; sslmode=disable says that clear text is meant. Errors are Invalid.
func CheckTransport(databaseURL secret.String) error {
	cc, err := pgx.ParseConfig(databaseURL.Reveal())
	if err != nil {
		return invalidURL()
	}
	mode := sslMode(databaseURL.Reveal())
	switch mode {
	case "disable", "require", "verify-ca", "verify-full":
		return nil
	}
	hosts := []string{cc.Host}
	for _, f := range cc.Fallbacks {
		hosts = append(hosts, f.Host)
	}
	for _, host := range hosts {
		if !local(host) {
			return fault.New(fault.Invalid, "the database URL names another machine and needs sslmode=verify-full "+
				"(or verify-ca, require; disable for clear text)").WithReason("database_url")
		}
	}
	return nil
}

// local reports whether a host, as pgx has it, is a Unix socket or this machine.
func local(host string) bool {
	if strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// sslKeyword finds sslmode=… in a list of key=value.
var sslKeyword = regexp.MustCompile(`(?:^|\s)sslmode\s*=\s*'?([a-z-]+)`)

// sslMode returns what a URL that pgx takes, or PGSSLMODE, says; "" for nothing.
func sslMode(s string) string {
	mode := ""
	if strings.HasPrefix(s, "postgres://") || strings.HasPrefix(s, "postgresql://") {
		if u, err := url.Parse(s); err == nil {
			mode = u.Query().Get("sslmode")
		}
	} else if found := sslKeyword.FindStringSubmatch(s); found != nil {
		mode = found[1]
	}
	return cmp.Or(mode, os.Getenv("PGSSLMODE"))
}

// timeouts are settings of the server's: a statement's, that of the locks which it
// waits for, and a transaction's that does nothing.
var timeouts = [...]string{"statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"}

func setTimeouts(cc *pgx.ConnConfig, statement time.Duration) {
	if statement <= 0 {
		statement = DefaultStatementTimeout
	}
	for i, d := range []time.Duration{statement, statement / 2, 30 * time.Second} {
		name := timeouts[i]
		if _, set := cc.RuntimeParams[name]; !set { // the URL knows better
			cc.RuntimeParams[name] = strconv.FormatInt(max(1, d.Milliseconds()), 10) // 0 would mean none
		}
	}
}

func invalidURL() error {
	return fault.New(fault.Invalid, "the database URL is not valid (postgres://USER@HOST:PORT/NAME?sslmode=…)").
		WithReason("database_url")
}

// Ping is a readiness check: the database answers.
func Ping(pool *pgxpool.Pool) func(context.Context) error {
	return func(ctx context.Context) error { return Fault(pool.Ping(ctx)) }
}

// passwordKey finds password=… (also sslpassword) in a list of key=value.
var passwordKey = regexp.MustCompile(`(?i)(^|[\s'])(ssl)?password\s*=`)

// HasPassword reports whether the URL, or list of key=value, has a password in
// it. When in doubt it says yes.
func HasPassword(s string) bool {
	if !strings.HasPrefix(s, "postgres://") && !strings.HasPrefix(s, "postgresql://") {
		return passwordKey.MatchString(s)
	}
	u, err := url.Parse(s)
	if err != nil {
		return true
	}
	if _, has := u.User.Password(); has {
		return true
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return true
	}
	for key := range query {
		if k := strings.ToLower(key); k == "password" || k == "sslpassword" {
			return true
		}
	}
	return false
}

// ReadURLFile reads a URL from a file of at most 4 KiB, as a mounted secret.
func ReadURLFile(path string) (secret.String, error) {
	f, err := os.Open(path)
	if err != nil {
		return secret.String{}, fault.Wrap(fault.Invalid, err, "cannot read the database URL file "+path)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 4<<10+1))
	if err == nil && len(b) > 4<<10 {
		err = errors.New("larger than 4 KiB")
	}
	if err != nil {
		return secret.String{}, fault.Wrap(fault.Invalid, err, "cannot read the database URL file "+path)
	}
	text := strings.TrimSpace(string(b))
	if text == "" {
		return secret.String{}, fault.New(fault.Invalid, "the database URL file "+path+" is empty")
	}
	return secret.New(text), nil
}
