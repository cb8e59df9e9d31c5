package app_test

import (
	"bytes"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chatelaine.dev/internal/pgtest"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/authserver/internal/app"
	"chatelaine.dev/services/authserver/internal/store"
)

// During a rolling update, and after a rollback, this version works on the schema of
// the next one: it must be ready, its migrate must not fail, and nothing must depend on
// the columns that a table has.
func TestThisVersionServesOnTheSchemaOfTheNext(t *testing.T) {
	t.Parallel()
	next := pgtest.Next(t, store.Migrations())
	s := newSystemWith(t, options{schema: &next})
	s.must(store.Migrations().Check(s.pool)(t.Context()))
	s.must(s.server.Keys.Publish(t.Context()))
	c, got := s.connected()
	for range 2 { // the second time it is the same successor
		if second := c.refresh(got.RefreshToken); second.status != http.StatusOK {
			t.Fatalf("a refresh: %+v", second)
		}
	}
	wantStatus(t, c.post("/oauth/introspect", url.Values{"token": {got.AccessToken}}), http.StatusOK, `"active":true`)
	wantStatus(t, c.post("/oauth/revoke", url.Values{"token": {got.AccessToken}}), http.StatusOK)
	s.wantEnded(brokerv1.SessionEndReason_SESSION_END_REASON_CLIENT_REVOKED)
	_, err := store.New(s.pool).Sweep(t.Context(), store.SweepPolicy{EndedGrants: time.Hour, UnusedClients: time.Hour, IdleClients: time.Hour, Grace: time.Minute})
	s.must(err)

	file := filepath.Join(t.TempDir(), "database-url")
	s.must(os.WriteFile(file, []byte(s.pool.Config().ConnString()), 0o600))
	var stdout, stderr bytes.Buffer
	if status := app.Program().Run([]string{"migrate", "--database-url-file=" + file}, &stdout, &stderr); status != 0 ||
		!strings.Contains(stdout.String(), "0 migrations applied") {
		t.Errorf("migrate: status %d, %q, %q", status, &stdout, &stderr)
	}
}
