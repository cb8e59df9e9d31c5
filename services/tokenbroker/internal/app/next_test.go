package app_test

import (
	"context"
	"strings"
	"testing"

	"chatelaine.dev/internal/pgtest"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/schema"
)

// During a rolling update, and after a rollback, this version works on the schema of
// the next one: it must be ready, its migrate must not fail, and nothing must depend on
// the columns that a table has.
func TestThisVersionServesOnTheSchemaOfTheNext(t *testing.T) {
	t.Parallel()
	b := newBrokerOn(t, pgtest.URL(t, pgtest.Next(t, schema.Migrations())))
	session, active := b.complete("octocat")
	g := b.gateway(session, active.GetUserId())
	first := g.header()
	c, err := g.get(t.Context())
	must(t, err)
	renewed, err := b.credentials.ReportRejected(t.Context(), &brokerv1.ReportRejectedRequest{
		AccessToken: g.token, Backend: "repos", ConfigDigest: g.digest, CredentialVersion: c.GetCredentialVersion(),
	})
	if err != nil || !renewed.GetRenewed() || g.header() == first {
		t.Errorf("a refresh: %v, %v", renewed, err)
	}
	for _, path := range []string{
		"/v1/users", "/v1/users/" + active.GetUserId() + "/sessions", "/v1/users/" + active.GetUserId() + "/connections", "/v1/audit-records",
	} {
		if status, body := b.call("GET", path, "", "operator"); status != 200 {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if status, stdout, stderr := program(t, b.url, "migrate"); status != 0 || !strings.Contains(stdout, "0 migrations applied") {
		t.Errorf("migrate: status %d, %q, %q", status, stdout, stderr)
	}
	if status, stdout, stderr := program(t, b.url, "sessions", "end", "--all"); status != 0 {
		t.Errorf("sessions end: status %d, %q, %q", status, stdout, stderr)
	}
	b.eventually("the session to be refused", func() bool {
		_, err := g.get(context.WithoutCancel(t.Context()))
		return err != nil
	})
	_, err = g.get(t.Context())
	wantReason(t, err, reason.SessionEnded)
}
