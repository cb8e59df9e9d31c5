package app_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"chatelaine.dev/internal/fault"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/store"
)

// A gateway that has read events which the database lost must not take those that
// came in their place for known: it would serve a session that has ended.
func TestRecoveryEndsSessionsAndMakesGatewaysStartAnew(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	session, active := b.complete("octocat")
	b.gateway(session, active.GetUserId()).header()
	events := store.New(b.pool)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	watch, err := b.credentials.WatchSessions(ctx, &brokerv1.WatchSessionsRequest{})
	must(t, err)
	_, err = watch.Recv()
	must(t, err)
	// As a failover leaves it: this gateway has seen three events more than there are.
	ahead, err := store.Head(t.Context(), b.pool)
	must(t, err)
	ahead += 3

	status, stdout, stderr := program(t, b.url, "recover")
	if status != 0 || !strings.HasPrefix(stdout, "events go on after position ") || !strings.HasSuffix(stdout, "done: 1 sessions ended, 0 logins under way given up\n") {
		t.Fatalf("status %d, %q, %q", status, stdout, stderr)
	}
	for err == nil { // a watch that was open ends, whatever it had read
		_, err = watch.Recv()
	}
	wantReason(t, err, reason.PositionUnknown)
	if _, _, err := events.EventsAfter(t.Context(), ahead, 10); fault.ReasonOf(err) != reason.PositionUnknown {
		t.Errorf("a reader of lost events goes on: %v", err)
	}
	if _, err := b.activate(session); fault.ReasonOf(err) != reason.SessionEnded {
		t.Errorf("the session lives: %v", err)
	}
	status, stdout, _ = program(t, b.url, "recover") // again, as after an interruption
	if status != 0 || !strings.HasSuffix(stdout, "done: 0 sessions ended, 0 logins under way given up\n") {
		t.Errorf("again: status %d, %q", status, stdout)
	}
}
