package app_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"chatelaine.dev/internal/fault"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/upstream/optest"
)

const (
	linked  = brokerv1.SessionLinkState_SESSION_LINK_STATE_LINKED
	missing = brokerv1.SessionLinkState_SESSION_LINK_STATE_MISSING
	skipped = brokerv1.SessionLinkState_SESSION_LINK_STATE_SKIPPED
)

func states(links []*brokerv1.SessionLink) (list []brokerv1.SessionLinkState) {
	for _, l := range links {
		list = append(list, l.GetState())
	}
	return list
}

func wantStates(t *testing.T, links []*brokerv1.SessionLink, want ...brokerv1.SessionLinkState) {
	t.Helper()
	got := states(links)
	for i := range want {
		if len(got) != len(want) || got[i] != want[i] {
			t.Fatalf("links = %v, want %v", got, want)
		}
	}
}

func TestAChainThroughTwoProvidersEndsInOneUsableSession(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	ctx := t.Context()

	listed, err := b.login.ListProviders(ctx, &brokerv1.ListProvidersRequest{})
	must(t, err)
	if p := listed.GetProviders(); len(p) != 2 || !p[0].GetPrimary() || p[0].GetIssuer() != b.corp.Issuer ||
		p[0].GetAuthorizationEndpoint() == "" || p[0].GetUnavailableReason() != "" || !p[1].GetOptional() || len(listed.GetConfigDigest()) != 64 {
		t.Fatalf("providers = %v", listed)
	}
	session := b.begin()
	first := b.redeemCorp(session)
	if first.GetUserId() == "" || first.GetIdentity().GetSubject() != optest.Subject || first.GetAccountChange() != nil {
		t.Errorf("primary leg = %v", first)
	}
	wantStates(t, first.GetLinks(), linked, missing)
	second, err := b.redeemHub(session, "octocat")
	must(t, err)
	wantStates(t, second.GetLinks(), linked, linked)
	if second.GetIdentity().GetName() != "octocat-login" || second.GetUserId() != first.GetUserId() {
		t.Errorf("second leg = %v", second)
	}
	active, err := b.activate(session)
	must(t, err)
	again, err := b.activate(session)
	must(t, err)
	if again.GetUserId() != first.GetUserId() || !again.GetExpiresAt().AsTime().Equal(active.GetExpiresAt().AsTime()) {
		t.Errorf("activation is not idempotent: %v, then %v", active, again)
	}
	if left := time.Until(active.GetExpiresAt().AsTime()); left < 29*24*time.Hour || left > 31*24*time.Hour {
		t.Errorf("the session ends in %s", left)
	}
	touched, err := b.login.TouchSession(ctx, &brokerv1.TouchSessionRequest{SessionId: session, ClientId: "agent"})
	if err != nil || !touched.GetExpiresAt().AsTime().Equal(active.GetExpiresAt().AsTime()) {
		t.Errorf("touch = %v, %v", touched, err)
	}
	_, err = b.login.EndSession(ctx, &brokerv1.EndSessionRequest{
		SessionId: session, Reason: brokerv1.SessionEndReason_SESSION_END_REASON_CODE_REPLAYED,
	})
	must(t, err)
	_, err = b.login.TouchSession(ctx, &brokerv1.TouchSessionRequest{SessionId: session, ClientId: "agent"})
	wantReason(t, err, reason.SessionEnded)
}

func TestAChainThatIsNotCompleteOpensNothing(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	session := b.begin()
	_, err := b.redeemHub(session, "octocat")
	wantReason(t, err, reason.PrimaryRequired)
	_, err = b.activate(session)
	wantReason(t, err, reason.ProviderRequired)
	_, err = b.login.SkipProvider(t.Context(), &brokerv1.SkipProviderRequest{
		SessionId: session, Provider: "corp", Reason: brokerv1.SkipReason_SKIP_REASON_DECLINED,
	})
	wantReason(t, err, reason.ProviderRequired)
	b.redeemCorp(session)
	_, err = b.login.ActivateSession(t.Context(), &brokerv1.ActivateSessionRequest{SessionId: session, ClientId: "thief"})
	wantReason(t, err, reason.ClientMismatch)
	_, err = b.activate("ses_none")
	wantReason(t, err, reason.SessionNotFound)
	_, err = b.login.SkipProvider(t.Context(), &brokerv1.SkipProviderRequest{
		SessionId: session, Provider: "nobody", Reason: brokerv1.SkipReason_SKIP_REASON_DECLINED,
	})
	wantReason(t, err, reason.ProviderUnknown)
}

func TestAnOptionalProviderThatFailsCanBeLeftOut(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	session := b.begin()
	b.redeemCorp(session)
	b.hub.set(func(h *hub) { h.down = true })
	_, err := b.redeemHub(session, "octocat")
	wantReason(t, err, reason.UpstreamUnavailable)
	if got := fault.From(err).Metadata[reason.Provider]; got != "octohub" {
		t.Errorf("the error names provider %q", got)
	}
	skip, err := b.login.SkipProvider(t.Context(), &brokerv1.SkipProviderRequest{
		SessionId: session, Provider: "octohub", Reason: brokerv1.SkipReason_SKIP_REASON_UNAVAILABLE,
	})
	must(t, err)
	wantStates(t, skip.GetLinks(), linked, skipped)
	active, err := b.activate(session)
	must(t, err)
	wantStates(t, active.GetLinks(), linked, skipped)
}

func TestAChangeOfAccountIsTold(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	b.complete("octocat")
	session := b.begin()
	b.redeemCorp(session)
	resp, err := b.redeemHub(session, "hubber")
	must(t, err)
	if c := resp.GetAccountChange(); c.GetPreviousName() != "octocat-login" || c.GetNewName() != "hubber-login" {
		t.Errorf("account change = %v", c)
	}
}

func TestALoginWithoutARefreshTokenKeepsTheOneThatWorks(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	_, active := b.complete("octocat")
	b.hub.set(func(h *hub) { h.withoutRefresh = true })
	b.complete("octocat")
	list, err := b.connections.ListConnections(t.Context(), &brokerv1.ListConnectionsRequest{UserId: active.GetUserId()})
	must(t, err)
	for _, c := range list.GetConnections() {
		if !c.GetRefreshable() || c.GetVersion() != 2 {
			t.Errorf("%s: refreshable %v, version %d", c.GetProvider(), c.GetRefreshable(), c.GetVersion())
		}
	}
}

func TestReconnectingOneProviderLeavesTheSessionAlone(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	session, _ := b.complete("")
	resp, err := b.redeemHub(session, "octocat")
	must(t, err)
	wantStates(t, resp.GetLinks(), linked, linked)
	active, err := b.activate(session)
	must(t, err)
	wantStates(t, active.GetLinks(), linked, linked)
	if active.GetLinks()[1].GetConnectionId() == "" {
		t.Error("the reconnected provider has no connection")
	}
}

func TestOnlyTheNamedPeersMayCallEachService(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	calls := map[string]func(ctx context.Context, names ...string) error{
		"login": func(ctx context.Context, names ...string) error {
			_, err := brokerv1.NewLoginServiceClient(b.dial(names...)).ListProviders(ctx, &brokerv1.ListProvidersRequest{})
			return err
		},
		"credential": func(ctx context.Context, names ...string) error {
			_, err := brokerv1.NewCredentialServiceClient(b.dial(names...)).GetCredential(ctx, &brokerv1.GetCredentialRequest{
				Backend: "repos", ConfigDigest: strings.Repeat("0", 64), AccessToken: "x",
			})
			if fault.ReasonOf(err) == reason.ConfigUnknown {
				return nil
			}
			return err
		},
		"blobs": func(ctx context.Context, names ...string) error {
			_, err := brokerv1.NewMcpSessionServiceClient(b.dial(names...)).DeleteBlob(ctx, &brokerv1.DeleteBlobRequest{Key: "0123456789abcdef"})
			return err
		},
		"connections": func(ctx context.Context, names ...string) error {
			_, err := brokerv1.NewConnectionServiceClient(b.dial(names...)).ListUsers(ctx, &brokerv1.ListUsersRequest{})
			return err
		},
	}
	allowed := map[string][]string{
		"login": {"authserver"}, "credential": {"gateway"}, "blobs": {"gateway"}, "connections": {"operator", "authserver"},
	}
	for service, call := range calls {
		for _, peer := range []string{"authserver", "gateway", "operator", "tokenbroker", "somebody"} {
			err := call(t.Context(), peer)
			may := strings.Contains(strings.Join(allowed[service], " "), peer)
			if may && err != nil {
				t.Errorf("%s as %s: %v", service, peer, fault.Detail(err))
			}
			if !may && fault.KindOf(err) != fault.Denied {
				t.Errorf("%s as %s: %v, want denied", service, peer, err)
			}
		}
	}
}

func TestOperatorsSeeAndEndConnectionsOverREST(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	_, active := b.complete("octocat")
	connection := active.GetLinks()[1].GetConnectionId()

	if status, body := b.call("GET", "/v1/users", ""); status != 0 {
		t.Errorf("without a certificate: %d %s", status, body)
	}
	for _, path := range []string{"/v1/users", "/openapi.json"} {
		if status, body := b.call("GET", path, "", "gateway"); status != http.StatusForbidden {
			t.Errorf("%s as gateway, with a forged peer header: %d %s", path, status, body)
		}
	}
	status, body := b.call("GET", "/v1/users?page_size=1", "", "operator")
	if status != http.StatusOK || !strings.Contains(body, active.GetUserId()) {
		t.Fatalf("users: %d %s", status, body)
	}
	if status, body := b.call("GET", "/v1/users?page_token=nonsense", "", "operator"); status != http.StatusBadRequest || !strings.Contains(body, "page_token") {
		t.Errorf("bad page token: %d %s", status, body)
	}
	if status, body := b.call("GET", "/v1/users?page_size=9999", "", "operator"); status != http.StatusBadRequest || !strings.Contains(body, "page_size") {
		t.Errorf("bad page size: %d %s", status, body)
	}
	if status, body := b.call("GET", "/v1/connections/con_none", "", "operator"); status != http.StatusNotFound {
		t.Errorf("unknown connection: %d %s", status, body)
	}
	status, body = b.call("GET", "/v1/users/"+active.GetUserId()+"/sessions", "", "operator")
	if status != http.StatusOK || !strings.Contains(body, "SESSION_STATE_ACTIVE") || !strings.Contains(body, connection) {
		t.Errorf("sessions: %d %s", status, body)
	}
	for range 2 {
		if status, body := b.call("POST", "/v1/connections/"+connection+":disconnect", "{}", "operator"); status != http.StatusOK {
			t.Fatalf("disconnect: %d %s", status, body)
		}
	}
	status, body = b.call("GET", "/v1/connections/"+connection, "", "operator")
	if status != http.StatusOK || !strings.Contains(body, "CONNECTION_STATE_DISCONNECTED") {
		t.Errorf("after the disconnect: %d %s", status, body)
	}
	status, body = b.call("GET", "/v1/audit-records?action=connection.disconnected", "", "operator")
	var audit struct {
		Records []struct{ Peer, TraceID, ConnectionID, UserID string }
	}
	if err := json.Unmarshal([]byte(body), &audit); err != nil || status != http.StatusOK || len(audit.Records) != 1 {
		t.Fatalf("audit: %d %s", status, body)
	}
	if r := audit.Records[0]; r.Peer != "operator" || r.ConnectionID != connection || r.UserID != active.GetUserId() {
		t.Errorf("record = %+v: the caller of a REST request is not in it", r)
	}
	if status, body := b.call("GET", "/openapi.json", "", "operator"); status != http.StatusOK || !strings.Contains(body, "/v1/connections/{connectionId}:disconnect") {
		t.Errorf("openapi: %d %.200s", status, body)
	}
	if status, _ := b.call("POST", "/v1/connections/"+connection+":disconnect", `{"x":"`+strings.Repeat("a", 100<<10)+`"}`, "operator"); status != http.StatusBadRequest {
		t.Errorf("a huge body: %d", status)
	}
}

func TestPagesOfAuditRecordsAreWhole(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	b.complete("octocat")
	b.complete("octocat")
	seen := map[int64]bool{}
	token := ""
	for {
		page, err := b.connections.ListAuditRecords(t.Context(), &brokerv1.ListAuditRecordsRequest{PageSize: 2, PageToken: token})
		must(t, err)
		for _, r := range page.GetRecords() {
			seen[r.GetRecordId()] = true
			if r.GetPeer() != "authserver" || r.GetClientId() != "agent" {
				t.Errorf("record = %v", r)
			}
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	if len(seen) != 6 {
		t.Errorf("%d records of two chains with two legs and an activation each", len(seen))
	}
}

// What a stolen backup, a log or an error shows must open nothing.
func TestNoTokenIsLegibleInTheDatabaseOrTheLog(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	session, _ := b.complete("octocat")
	pending := b.begin()
	b.redeemCorp(pending)
	_, err := b.redeemHub(pending, "octocat")
	must(t, err)
	_, err = b.login.RedeemCode(t.Context(), &brokerv1.RedeemCodeRequest{
		SessionId: session, Provider: "octohub", Code: "bad-code-text", CodeVerifier: verifier, RedirectUri: "http://localhost:8080/x",
	})
	wantReason(t, err, reason.UpstreamRefused)
	if text := fault.Detail(err); strings.Contains(text, tokenMark) {
		t.Errorf("an error repeats what the upstream sent: %s", text)
	}

	rows, err := b.pool.Query(t.Context(), `
		SELECT c::text || encode(coalesce(c.sealed_tokens, ''), 'escape') FROM tokenbroker.connections c
		UNION ALL SELECT l::text || encode(l.sealed_tokens, 'escape') FROM tokenbroker.staged_legs l
		UNION ALL SELECT s::text FROM tokenbroker.sessions s UNION ALL SELECT u::text FROM tokenbroker.users u
		UNION ALL SELECT a::text FROM tokenbroker.audit a`)
	must(t, err)
	n := 0
	for rows.Next() {
		var text string
		must(t, rows.Scan(&text))
		n++
		if strings.Contains(text, tokenMark) {
			t.Errorf("a row shows a token: %.300s", text)
		}
	}
	must(t, rows.Err())
	if n < 8 {
		t.Errorf("looked at %d rows only", n)
	}
	logged := b.logs.String()
	if !strings.Contains(logged, `"msg":"audit"`) {
		t.Error("no audit record was logged")
	}
	for _, mark := range []string{tokenMark, "bad-code-text", verifier, optest.ClientSecret, "hub-client-secret", b.key} {
		if strings.Contains(logged, mark) {
			t.Errorf("the log shows %q", mark)
		}
	}
}

func TestAMissingKeyEndsTheStartWithItsName(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	b.complete("octocat")
	must(t, b.stop())
	other, _ := b.make(randomKey())
	err := other.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "--key-encryption-key") || !strings.Contains(err.Error(), "2 stored values") {
		t.Fatalf("err = %v", err)
	}
	// With a new key in front of the old one everything opens.
	b.start(randomKey(), b.key)
	b.complete("octocat")
}

func TestTheConfigurationIsSwappedWhileItRuns(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	before, err := b.login.ListProviders(t.Context(), &brokerv1.ListProvidersRequest{})
	must(t, err)
	text, err := os.ReadFile(b.configPath)
	must(t, err)
	must(t, os.WriteFile(b.configPath, []byte("nonsense: ["), 0o600))
	b.eventually("the bad set to be refused", func() bool { return strings.Contains(b.logs.String(), "keeping the last ones") })
	if !strings.Contains(b.metrics(), "\nchatelaine_config_current 0\n") {
		t.Error("the metric does not say that the files hold what is not in use")
	}
	must(t, os.WriteFile(b.configPath, []byte(strings.Replace(string(text), "scopes: [repo]", "scopes: [repo, gist]", 1)), 0o600))
	b.eventually("the new set", func() bool {
		now, err := b.login.ListProviders(t.Context(), &brokerv1.ListProvidersRequest{})
		must(t, err)
		return now.GetConfigDigest() != before.GetConfigDigest()
	})
	b.eventually("the metric", func() bool { return strings.Contains(b.metrics(), "\nchatelaine_config_current 1\n") })
}
