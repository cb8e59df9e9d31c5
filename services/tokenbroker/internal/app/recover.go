package app

import (
	"context"
	"fmt"
	"io"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

// recoverState puts a database to rights that has lost its newest transactions: a
// restore, or a failover to a replica that lagged. What was ended in them is alive
// again, and readers know event positions that are given out anew.
type recoverState struct {
	sessionsCommand
}

// Run is the command.
func (c *recoverState) Run(ctx context.Context, stdout, stderr io.Writer) error {
	sessions, recorder, done, err := c.open(ctx, "tokenbroker recover", stderr)
	if err != nil {
		return err
	}
	defer done()
	// First: whoever reads events hears of the ends below only from a known position.
	position, err := sessions.SkipPositions(ctx)
	if err != nil {
		return fault.From(err).WithPrefix("nothing was changed")
	}
	fmt.Fprintf(stdout, "events go on after position %d: gateways forget what they have cached\n", position)
	return end(ctx, sessions, recorder, store.SessionsToEnd{Everybody: true}, stdout)
}
