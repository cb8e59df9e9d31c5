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
	Recover recoverState `cmd:"" help:"After a restore, or a failover that lost transactions: end everybody's sessions and make gateways forget what they have cached. It may be interrupted and run again."`
	Keys    struct {
		Status keysStatus `cmd:"" help:"Show what each key-encryption key protects in the database."`
		Rotate rotateKeys `cmd:"" help:"Wrap everything that is stored anew with the newest key-encryption key, while brokers run. It may be interrupted and run again."`
	} `cmd:"" help:"Key-encryption keys."`
}

// sessionsCommand is what commands about sessions need: the database alone, as after
// a restore, without a running broker and without its keys.
type sessionsCommand struct {
	cli.DatabaseServer
	cli.Log
}

// open returns the database, and a recorder for what is done to it; done closes it.
func (c *sessionsCommand) open(ctx context.Context, application string, stderr io.Writer) (s *store.Store, r *audit.Recorder, done func(), err error) {
	logger, err := telemetry.NewLogger(stderr, c.LogFormat, c.LogLevel)
	if err != nil {
		return nil, nil, nil, err
	}
	database, err := c.Options(application)
	if err != nil {
		return nil, nil, nil, err
	}
	database.MaxConns, database.StatementTimeout = 1, batchTimeout
	pool, err := postgres.Open(ctx, database)
	if err != nil {
		return nil, nil, nil, err
	}
	if err := schema.Migrations().Check(pool)(ctx); err != nil {
		pool.Close()
		return nil, nil, nil, err
	}
	s = store.New(pool)
	return s, audit.NewRecorder(s, logger), pool.Close, nil
}

// endSessions ends sessions.
type endSessions struct {
	sessionsCommand

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
	sessions, recorder, done, err := c.open(ctx, "tokenbroker sessions end", stderr)
	if err != nil {
		return err
	}
	defer done()
	if !c.All {
		exists, err := sessions.UserExists(ctx, c.User)
		switch {
		case err != nil:
			return err
		case !exists:
			return fault.New(fault.NotFound, "there is no user of this id (GET /v1/users lists them)").WithReason(reason.UserNotFound)
		}
	}
	return end(ctx, sessions, recorder, store.SessionsToEnd{UserID: c.User, Everybody: c.All}, stdout)
}

// end ends sessions and tells how many.
func end(ctx context.Context, sessions *store.Store, recorder *audit.Recorder, which store.SessionsToEnd, stdout io.Writer) error {
	ended := 0
	which.Reason, which.Record = endedByOperator, audit.Record{Action: audit.SessionEnded, Peer: "operator"}
	which.Each = func(batch []store.Ended) {
		for i := range batch {
			recorder.Log(ctx, batch[i].Record)
		}
		ended += len(batch)
		fmt.Fprintln(stdout, ended, "sessions ended so far")
	}
	count, err := sessions.EndSessions(ctx, which)
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
