package app_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"chatelaine.dev/internal/pgtest"
	"chatelaine.dev/internal/secret"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/tokenbroker/internal/app"
	"chatelaine.dev/services/tokenbroker/internal/reason"
)

// program runs a command of the broker's against a database.
func program(t *testing.T, url secret.String, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "database-url")
	must(t, os.WriteFile(file, []byte(url.Reveal()), 0o600))
	var out, errs bytes.Buffer
	status = app.Program().Run(append(args, "--database-url-file="+file), &out, &errs)
	return status, out.String(), errs.String()
}

// watcher hears of sessions that end, as a gateway does.
func (b *broker) watcher() (next func() string) {
	b.t.Helper()
	watch, err := b.credentials.WatchSessions(b.t.Context(), &brokerv1.WatchSessionsRequest{})
	must(b.t, err)
	receive := func() *brokerv1.WatchSessionsResponse {
		m, err := watch.Recv()
		must(b.t, err)
		return m
	}
	for receive().GetSnapshotComplete() == nil {
	}
	return func() string {
		for {
			if ended := receive().GetSessionEnded(); ended != nil {
				return ended.GetSessionId()
			}
		}
	}
}

// audited returns the sessions that the log says were ended by an operator.
func audited(t *testing.T, log string) (ids []string) {
	t.Helper()
	for line := range strings.Lines(log) {
		var record struct {
			Msg, Action, Outcome, Peer string
			SessionID                  string `json:"session_id"`
		}
		must(t, json.Unmarshal([]byte(line), &record))
		if record.Msg != "audit" || record.Action != "session.ended" || record.Outcome != "OPERATOR" || record.Peer != "operator" {
			t.Errorf("log line %s", line)
		}
		ids = append(ids, record.SessionID)
	}
	return ids
}

// Whoever was ended by an operator must not go on with what a running broker or a
// gateway remembers.
func TestSessionsThatAnOperatorEndsAreRefusedByARunningBroker(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	session, active := b.complete("octocat")
	g := b.gateway(session, active.GetUserId())
	g.header()
	next := b.watcher()

	status, stdout, stderr := program(t, b.url, "sessions", "end", "--user="+active.GetUserId())
	if want := "1 sessions ended so far\ndone: 1 sessions ended, 0 logins under way given up\n"; status != 0 || stdout != want {
		t.Fatalf("status %d, %q, %q", status, stdout, stderr)
	}
	if ids := audited(t, stderr); !slices.Equal(ids, []string{session}) {
		t.Errorf("the log tells of %v", ids)
	}
	if got := next(); got != session {
		t.Errorf("gateways were told that %q ended", got)
	}
	b.eventually("the session to be refused", func() bool {
		_, err := g.get(t.Context())
		return err != nil
	})
	_, err := g.get(t.Context())
	wantReason(t, err, reason.SessionEnded)
}

func TestAnOperatorEndsEverybodysSessionsAndLoginsUnderWay(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	session, active := b.complete("octocat")
	pending := b.begin()
	if status, stdout, stderr := program(t, b.url, "sessions", "end", "--user=usr_nobody"); status != 1 || stdout != "" || !strings.Contains(stderr, "no user of this id") {
		t.Errorf("of a stranger: status %d, %q", status, stdout)
	}
	b.gateway(session, active.GetUserId()).header()
	status, stdout, stderr := program(t, b.url, "sessions", "end", "--all")
	if status != 0 || !strings.HasSuffix(stdout, "done: 1 sessions ended, 1 logins under way given up\n") {
		t.Fatalf("status %d, %q, %q", status, stdout, stderr)
	}
	ids := audited(t, stderr)
	slices.Sort(ids)
	want := []string{session, pending}
	slices.Sort(want)
	if !slices.Equal(ids, want) {
		t.Errorf("the log tells of %v, want %v", ids, want)
	}
	_, err := b.activate(pending)
	wantReason(t, err, reason.SessionEnded)
}

// A slip of the hand must end nothing.
func TestEndingSessionsWantsToKnowWhose(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	session, active := b.complete("octocat")
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"nobody":        {nil, "--user=ID"},
		"an empty user": {[]string{"--user="}, "--user=ID"},
		"not all":       {[]string{"--all=false"}, "--user=ID"},
		"both":          {[]string{"--all", "--user=" + active.GetUserId()}, "can't be used together"},
	} {
		status, stdout, stderr := program(t, b.url, append([]string{"sessions", "end"}, c.args...)...)
		if status != 2 || stdout != "" || !strings.Contains(stderr, c.want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: status %d, %q, %q", name, status, stdout, stderr)
		}
	}
	b.gateway(session, active.GetUserId()).header() // it still lives
}

func TestEndingSessionsOfAnOldSchemaSaysWhichCommandToRun(t *testing.T) {
	t.Parallel()
	status, stdout, stderr := program(t, pgtest.URL(t), "sessions", "end", "--all")
	if status != 1 || stdout != "" || !strings.Contains(stderr, "run `tokenbroker migrate`") || strings.Count(stderr, "\n") != 1 {
		t.Errorf("status %d, %q, %q", status, stdout, stderr)
	}
}
