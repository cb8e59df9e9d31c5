package pgtest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/internal/secret"
)

// DatabaseURLEnv names a server to use instead of a private one. Its role must
// be allowed to create databases.
const DatabaseURLEnv = "CHATELAINE_TEST_DATABASE_URL"

// server is the one of this test binary; Main sets it, New reads it. A test
// binary has no place to keep it but here.
var server *instance

// Main runs the tests with a server and exits.
func Main(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) (code int) {
	s, err := start()
	if err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", fault.Detail(err))
		return 1
	}
	defer func() {
		if err := s.close(); err != nil {
			fmt.Fprintln(os.Stderr, "pgtest:", fault.Detail(err))
			code = max(code, 1)
		}
	}()
	server = s
	return m.Run()
}

// New returns a pool on a fresh database with the migrations applied; the
// database is dropped when the test ends.
func New(t testing.TB, migrations ...postgres.Migrations) *pgxpool.Pool {
	t.Helper()
	pool, err := postgres.Open(context.Background(), postgres.Config{
		URL: URL(t, migrations...), Application: "pgtest", MaxConns: 10,
	})
	if err != nil {
		t.Fatalf("pgtest: %s", fault.Detail(err))
	}
	t.Cleanup(pool.Close)
	return pool
}

// URL returns the URL of a fresh database with the migrations applied.
func URL(t testing.TB, migrations ...postgres.Migrations) secret.String {
	t.Helper()
	if server == nil {
		t.Fatal("pgtest: this package needs func TestMain(m *testing.M) { pgtest.Main(m) }")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	template, err := server.template(ctx, migrations)
	if err != nil {
		t.Fatalf("pgtest: %s", fault.Detail(err))
	}
	name := "chatelaine_test_" + strings.ToLower(rand.Text()[:16])
	if err := server.create(ctx, name, template); err != nil {
		t.Fatalf("pgtest: %s", fault.Detail(err))
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := server.drop(ctx, name); err != nil {
			t.Errorf("pgtest: %s", fault.Detail(err))
		}
	})
	return server.url(name)
}

// instance is a server and the template databases made on it.
type instance struct {
	admin *pgxpool.Pool
	url   func(database string) secret.String
	stop  func() error

	mu        sync.Mutex
	templates map[string]string // digest of the migrations → database
}

func start() (*instance, error) {
	s := &instance{templates: map[string]string{}}
	if given := os.Getenv(DatabaseURLEnv); given != "" {
		u, err := url.Parse(given)
		if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") {
			return nil, fault.New(fault.Invalid, DatabaseURLEnv+" is not a postgres:// URL")
		}
		s.url = func(database string) secret.String {
			v := *u
			v.Path = "/" + database
			return secret.New(v.String())
		}
		s.stop = func() error { return nil }
		return s, s.connect(secret.New(given))
	}
	private, err := startPrivate()
	if err != nil {
		return nil, err
	}
	s.url, s.stop = private.URL, private.remove
	if err := s.connect(private.URL("postgres")); err != nil {
		_ = private.remove()
		return nil, err
	}
	return s, nil
}

func (s *instance) connect(u secret.String) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	pool, err := postgres.Open(context.Background(), postgres.Config{
		URL: u, Application: "pgtest", MaxConns: 4, StatementTimeout: time.Minute,
	})
	if err != nil {
		return err
	}
	s.admin = pool
	return postgres.Ping(pool)(ctx)
}

func (s *instance) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for _, name := range s.templates {
		if err := s.drop(ctx, name); err != nil {
			fmt.Fprintln(os.Stderr, "pgtest:", fault.Detail(err))
		}
	}
	s.admin.Close()
	return s.stop()
}

// template returns a database with the migrations applied, from which those of
// the tests are copied: migrating once is faster than once a test.
func (s *instance) template(ctx context.Context, migrations []postgres.Migrations) (string, error) {
	if len(migrations) == 0 {
		return "", nil
	}
	digest, err := digestOf(migrations)
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if name, ok := s.templates[digest]; ok {
		return name, nil
	}
	name := "chatelaine_template_" + strings.ToLower(rand.Text()[:12])
	if err := s.create(ctx, name, ""); err != nil {
		return "", err
	}
	s.templates[digest] = name
	for _, m := range migrations {
		if _, err := m.Up(ctx, s.url(name), nil); err != nil {
			delete(s.templates, digest)
			_ = s.drop(ctx, name)
			return "", err
		}
	}
	return name, nil
}

func (s *instance) create(ctx context.Context, name, template string) error {
	statement := `CREATE DATABASE ` + pgx.Identifier{name}.Sanitize()
	if template != "" {
		statement += ` TEMPLATE ` + pgx.Identifier{template}.Sanitize()
	}
	_, err := s.admin.Exec(ctx, statement)
	return postgres.Fault(err)
}

func (s *instance) drop(ctx context.Context, name string) error {
	_, err := s.admin.Exec(ctx, `DROP DATABASE IF EXISTS `+pgx.Identifier{name}.Sanitize()+` WITH (FORCE)`)
	return postgres.Fault(err)
}

// digestOf tells sets of migrations apart by schema, file names and contents.
func digestOf(migrations []postgres.Migrations) (string, error) {
	h := sha256.New()
	for _, m := range migrations {
		fmt.Fprintf(h, "%q\n", m.Schema)
		err := fs.WalkDir(m.FS, ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			f, err := m.FS.Open(path)
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }() // it was only read
			fmt.Fprintf(h, "%q\n", path)
			_, err = io.Copy(h, f)
			return err
		})
		if err != nil {
			return "", fault.Wrap(fault.Internal, err, "cannot read the migrations")
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
