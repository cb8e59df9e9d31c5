package app

import (
	"context"
	"fmt"
	"io"
	"time"

	"chatelaine.dev/internal/cli"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/internal/telemetry"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/schema"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

// commands are those that only this service has.
type commands struct {
	Sessions struct {
		End endSessions `cmd:"" help:"End people's sessions in the database; brokers that run tell the gateways. It asks nothing, and may be interrupted and run again."`
	} `cmd:"" help:"People's sessions."`
	Keys struct {
		Status keysStatus `cmd:"" help:"Show what each key-encryption key protects in the database."`
		Rotate rotateKeys `cmd:"" help:"Wrap everything that is stored anew with the newest key-encryption key, while brokers run. It may be interrupted and run again."`
	} `cmd:"" help:"Key-encryption keys."`
}

// endSessions ends sessions without a running broker, and without its keys: it
// needs the database alone, as after a restore.
type endSessions struct {
	cli.DatabaseServer
	cli.Log

	// Neither is read from the environment, where it could be left over.
	User string `env:"-" xor:"whose" placeholder:"ID" help:"End the sessions of the user with this id."`
	All  bool   `env:"-" xor:"whose" help:"End everybody's sessions."`
}

// endedByOperator is why these sessions ended, and the outcome of their records.
const endedByOperator = "OPERATOR"

// batchTimeout bounds each statement of a command: nobody waits for an answer
// meanwhile.
const batchTimeout = time.Minute

// Run is the command.
func (c *endSessions) Run(ctx context.Context, stdout, stderr io.Writer) error {
	if c.All == (c.User != "") {
		return fault.New(fault.Invalid, "say whose sessions: those of one user with --user=ID, everybody's with --all")
	}
	logger, err := telemetry.NewLogger(stderr, c.LogFormat, c.LogLevel)
	if err != nil {
		return err
	}
	database, err := c.Options("tokenbroker sessions end")
	if err != nil {
		return err
	}
	database.MaxConns, database.StatementTimeout = 1, batchTimeout
	pool, err := postgres.Open(ctx, database)
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := schema.Migrations().Check(pool)(ctx); err != nil {
		return err
	}
	sessions := store.New(pool)
	if !c.All {
		exists, err := sessions.UserExists(ctx, c.User)
		switch {
		case err != nil:
			return err
		case !exists:
			return fault.New(fault.NotFound, "there is no user of this id (GET /v1/users lists them)").WithReason(reason.UserNotFound)
		}
	}
	recorder := audit.NewRecorder(sessions, logger)
	ended := 0
	count, err := sessions.EndSessions(ctx, store.SessionsToEnd{
		UserID: c.User, Everybody: c.All, Reason: endedByOperator,
		Record: audit.Record{Action: audit.SessionEnded, Peer: "operator"},
		Each: func(batch []store.Ended) {
			for i := range batch {
				recorder.Log(ctx, batch[i].Record)
			}
			ended += len(batch)
			fmt.Fprintln(stdout, ended, "sessions ended so far")
		},
	})
	if err != nil {
		return interrupted(err, ended)
	}
	fmt.Fprintf(stdout, "done: %d sessions ended, %d logins under way given up\n", count.Active, count.Pending)
	return nil
}

// interrupted says how far it came.
func interrupted(err error, ended int) error {
	about := fmt.Sprintf("%d sessions ended, more may be left: run it again", ended)
	if fault.KindOf(err) == fault.Canceled {
		return fault.New(fault.Canceled, "interrupted: "+about)
	}
	return fault.From(err).WithPrefix(about)
}
