package app

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"chatelaine.dev/internal/cli"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/rotate"
	"chatelaine.dev/services/tokenbroker/internal/schema"
	"chatelaine.dev/services/tokenbroker/internal/seal"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

// keyCommand is what the commands about key-encryption keys need: the keys as a
// broker has them, and its database.
type keyCommand struct {
	cli.DatabaseServer
	KeyFlags
}

// open returns the keys in the order of the flags, and the database.
func (c *keyCommand) open(ctx context.Context, application string) ([]seal.Key, *pgxpool.Pool, error) {
	keys, err := c.list(secret.NewResolver())
	if err != nil {
		return nil, nil, err
	}
	database, err := c.Options(application)
	if err != nil {
		return nil, nil, err
	}
	database.MaxConns, database.StatementTimeout = 1, batchTimeout
	pool, err := postgres.Open(ctx, database)
	if err != nil {
		return nil, nil, err
	}
	if err := schema.Migrations().Check(pool)(ctx); err != nil {
		pool.Close()
		return nil, nil, err
	}
	return keys, pool, nil
}

// keysStatus shows which keys are still needed.
type keysStatus struct{ keyCommand }

// Run is the command.
func (c *keysStatus) Run(ctx context.Context, stdout, _ io.Writer) error {
	keys, pool, err := c.open(ctx, "tokenbroker keys status")
	if err != nil {
		return err
	}
	defer pool.Close()
	set, err := seal.NewKeys(keys...)
	if err != nil {
		return err
	}
	uses, err := store.New(pool).KeysInUse(ctx)
	if err != nil {
		return err
	}
	values := map[string]int64{}
	for _, u := range uses {
		values[u.KeyID] += u.Count
	}
	table := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "KEY\tSECRET\tVALUES\tROLE")
	for i, key := range keys {
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\n", key.ID, c.KeyEncryptionKey[i], values[key.ID], roleOf(i, values[key.ID]))
	}
	for _, u := range uses {
		if !set.Has(u.KeyID) && values[u.KeyID] > 0 {
			fmt.Fprintf(table, "%s\t-\t%d\tnot given\n", u.KeyID, values[u.KeyID])
			values[u.KeyID] = 0 // once for all tables
		}
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err = checkKeys(ctx, seal.NewSealer(set), uses)
	return err
}

func roleOf(i int, values int64) string {
	switch {
	case i == 0:
		return "newest: wraps what is new"
	case values == 0:
		return "not needed, once every broker has the newest first"
	}
	return "needed"
}

// rotateKeys wraps everything anew with the newest key.
type rotateKeys struct{ keyCommand }

// progressEvery is how often a long rotation says how far it is.
const progressEvery = 2 * time.Second

// Run is the command.
func (c *rotateKeys) Run(ctx context.Context, stdout, _ io.Writer) error {
	keys, pool, err := c.open(ctx, "tokenbroker keys rotate")
	if err != nil {
		return err
	}
	defer pool.Close()
	set, err := seal.NewKeys(keys...)
	if err != nil {
		return err
	}
	var told time.Time
	rotation := rotate.New(rotate.Config{
		Store: store.New(pool), Sealer: seal.NewSealer(set),
		Progress: func(done, of int64) {
			if now := time.Now(); now.Sub(told) >= progressEvery {
				told = now
				fmt.Fprintf(stdout, "%d of %d values wrapped anew so far\n", done, of)
			}
		},
	})
	done, err := rotation.Run(ctx)
	if err != nil {
		return rotationStopped(err, done)
	}
	fmt.Fprintf(stdout, "done: %d values wrapped anew; key %s (%s) wraps everything\n", done, set.Newest(), c.KeyEncryptionKey[0])
	return nil
}

// rotationStopped says how far it came.
func rotationStopped(err error, done int64) error {
	about := fmt.Sprintf("%d values wrapped anew", done)
	switch fault.KindOf(err) {
	case fault.Canceled:
		return fault.New(fault.Canceled, "interrupted: "+about+", more are left: run it again")
	case fault.Unavailable:
		about += ", more may be left: run it again"
	}
	return fault.From(err).WithPrefix(about)
}
