package stack

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"github.com/jackc/pgx/v5"

	"chatelaine.dev/internal/pgcluster"
	"chatelaine.dev/internal/secret"
)

// database is the name of the one database; each service owns a schema in it.
const database = "chatelaine"

// startPostgres starts the private cluster and makes the database with one role
// for each service that has a schema, which can create and so own nothing else.
func startPostgres(ctx context.Context, dir string, throwaway bool) (*pgcluster.Cluster, error) {
	data, err := PostgresDir(dir)
	if err != nil {
		return nil, err
	}
	cluster, err := pgcluster.Start(ctx, pgcluster.Config{Dir: data, Throwaway: throwaway})
	if err != nil {
		return nil, err
	}
	if err := prepareDatabase(ctx, cluster); err != nil {
		_ = cluster.Stop()
		return nil, fmt.Errorf("prepare the database: %w", err)
	}
	return cluster, nil
}

func prepareDatabase(ctx context.Context, cluster *pgcluster.Cluster) error {
	if err := cluster.CreateDatabase(ctx, database); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, cluster.URL(database).Reveal())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, `REVOKE ALL ON SCHEMA public FROM PUBLIC`); err != nil {
		return err
	}
	for _, role := range []string{"authserver", "tokenbroker"} {
		if err := ensureRole(ctx, conn, role); err != nil {
			return fmt.Errorf("role %s: %w", role, err)
		}
	}
	return nil
}

func ensureRole(ctx context.Context, conn *pgx.Conn, role string) error {
	var exists bool
	if err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)`, role).Scan(&exists); err != nil {
		return err
	}
	name := pgx.Identifier{role}.Sanitize()
	if !exists {
		if _, err := conn.Exec(ctx, `CREATE ROLE `+name+` LOGIN`); err != nil {
			return err
		}
	}
	_, err := conn.Exec(ctx, `GRANT CONNECT, CREATE ON DATABASE `+pgx.Identifier{database}.Sanitize()+` TO `+name)
	return err
}

// databaseURL is the URL that the given role connects with.
func databaseURL(cluster *pgcluster.Cluster, role string) (secret.String, error) {
	u, err := url.Parse(cluster.URL(database).Reveal())
	if err != nil {
		return secret.String{}, fmt.Errorf("database URL: %w", err)
	}
	u.User = url.User(role)
	return secret.New(u.String()), nil
}

// writeDatabaseURL keeps a role's URL where people find it, for psql and the
// services' commands. It has no password: who may enter Postgres' folder, may
// connect.
func (s *Stack) writeDatabaseURL(role, url string) error {
	dir := s.path("database-url")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, role), []byte(url+"\n"), 0o600)
}
