package metrics_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/pgtest"
	"chatelaine.dev/internal/telemetry"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/authserver/internal/metrics"
	"chatelaine.dev/services/authserver/internal/store"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// scrape returns the lines of ours that Prometheus gets.
func scrape(t *testing.T, tel *telemetry.Telemetry) []string {
	t.Helper()
	answer := httptest.NewRecorder()
	tel.MetricsHandler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", http.NoBody))
	var lines []string
	for line := range strings.Lines(answer.Body.String()) {
		if strings.HasPrefix(line, "chatelaine_authserver_") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// value returns the value of the series that has all these words, or "".
func value(lines []string, name string, words ...string) string {
next:
	for _, line := range lines {
		end := strings.LastIndexByte(line, ' ')
		series, v := line[:end], line[end+1:]
		if got, _, _ := strings.Cut(series, "{"); got != name {
			continue
		}
		for _, word := range words {
			if !strings.Contains(series, word) {
				continue next
			}
		}
		return v
	}
	return ""
}

func TestWhatOperatorsAlertOnIsCounted(t *testing.T) { //nolint:paralleltest // telemetry.Start sets globals
	tel, err := telemetry.Start(t.Context(), telemetry.Config{Service: "authserver", LogOutput: io.Discard})
	if err != nil {
		t.Fatal(fault.Detail(err))
	}
	pool := pgtest.New(t, store.Migrations())
	s := store.New(pool)
	r, err := metrics.New(tel.Meter, s)
	if err != nil {
		t.Fatal(fault.Detail(err))
	}
	ctx := t.Context()
	if err := s.QueueSessionEnd(ctx, "s1", brokerv1.SessionEndReason_SESSION_END_REASON_EXPIRED); err != nil {
		t.Fatal(fault.Detail(err))
	}
	if _, err := pool.Exec(ctx, `UPDATE authserver.session_ends SET created_at = now() - interval '1 hour'`); err != nil {
		t.Fatal(err)
	}
	c := &store.Client{ID: "c", AuthMethod: "none", RedirectURIs: []string{}, GrantTypes: []string{}, Scopes: []string{}}
	if err := s.CreateClient(ctx, c); err != nil {
		t.Fatal(fault.Detail(err))
	}
	if err := s.CreateRequest(ctx, &store.AuthorizationRequest{ID: "r", ClientID: "c", BrowserHash: []byte("b")}, time.Minute); err != nil {
		t.Fatal(fault.Detail(err))
	}

	r.LoginStarted(ctx)
	r.LoginFinished(ctx, metrics.Completed, 1)
	r.LoginFinished(ctx, metrics.Abandoned, 3)
	r.LoginFinished(ctx, "never", 0)
	r.RequestRefused(ctx, "client_unknown")
	r.Leg(ctx, "corp", "linked")
	r.Tokens(ctx, "authorization_code", metrics.Issued)
	r.Tokens(ctx, "something a stranger sent", "unsupported_grant_type")
	r.Registration(ctx, metrics.Registered)
	r.SessionEnded(ctx, "refresh_token_reused")
	lines := scrape(t, tel)
	for _, want := range []struct {
		name, value string
		labels      []string
	}{
		{"chatelaine_authserver_logins_started_total", "1", nil},
		{"chatelaine_authserver_logins_finished_total", "1", []string{`outcome="completed"`}},
		{"chatelaine_authserver_logins_finished_total", "3", []string{`outcome="abandoned"`}},
		{"chatelaine_authserver_logins_finished_total", "", []string{`outcome="never"`}},
		{"chatelaine_authserver_requests_refused_total", "1", []string{`reason="client_unknown"`}},
		{"chatelaine_authserver_legs_total", "1", []string{`provider="corp"`, `outcome="linked"`}},
		{"chatelaine_authserver_tokens_total", "1", []string{`grant_type="authorization_code"`, `outcome="issued"`}},
		{"chatelaine_authserver_tokens_total", "1", []string{`grant_type="other"`}},
		{"chatelaine_authserver_registrations_total", "1", []string{`outcome="registered"`}},
		{"chatelaine_authserver_sessions_ended_total", "1", []string{`reason="refresh_token_reused"`}},
		{"chatelaine_authserver_outbox_length", "1", nil},
		{"chatelaine_authserver_logins_pending", "1", []string{`phase="consent"`}},
		{"chatelaine_authserver_logins_pending", "0", []string{`phase="legs"`}},
	} {
		if got := value(lines, want.name, want.labels...); got != want.value {
			t.Errorf("%s%v is %q, want %q", want.name, want.labels, got, want.value)
		}
	}
	if age := value(lines, "chatelaine_authserver_outbox_oldest_age_seconds"); !strings.HasPrefix(age, "36") || strings.Contains(age, "e") {
		t.Errorf("the oldest end has waited %q seconds, want an hour", age)
	}
	if strings.Contains(strings.Join(lines, "\n"), "stranger") {
		t.Error("a stranger's words are a label")
	}

	pool.Close()
	lines = scrape(t, tel)
	for _, name := range []string{"chatelaine_authserver_outbox_length", "chatelaine_authserver_outbox_oldest_age_seconds", "chatelaine_authserver_logins_pending"} {
		if got := value(lines, name); got != "" {
			t.Errorf("%s is %q without a database", name, got)
		}
	}
	if value(lines, "chatelaine_authserver_logins_started_total") != "1" {
		t.Error("what was counted is gone with the database")
	}
}

func TestWhoHasNoRecorderCountsNothing(t *testing.T) {
	t.Parallel()
	var r *metrics.Recorder
	ctx := t.Context()
	r.LoginStarted(ctx)
	r.LoginFinished(ctx, metrics.Completed, 1)
	r.RequestRefused(ctx, "x")
	r.Leg(ctx, "x", "x")
	r.Tokens(ctx, "x", "x")
	r.Registration(ctx, "x")
	r.SessionEnded(ctx, "x")
}
