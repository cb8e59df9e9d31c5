package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"chatelaine.dev/examples/journey"
	brokerv1 "chatelaine.dev/proto/broker/v1"
)

// eventually waits until the condition holds; what says why it does not.
func eventually(t *testing.T, what func() string) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		problem := what()
		if problem == "" {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatal(problem)
		}
	}
}

// names says which spans there are.
func names(spans []span) string {
	text := make([]string, len(spans))
	for i, s := range spans {
		text[i] = s.Service + " " + s.Name
	}
	return strings.Join(text, ", ")
}

func TestOneTraceSpansClientGatewayBrokerUpstreamAndBackend(t *testing.T) {
	needProcesses(t)
	t.Parallel()
	login := newPerson(t).logIn(t)
	// One request without a session before it, as a stateless client makes it: the first to payroll of this login, so
	// that it needs an exchange: gateway → broker → corp, and gateway → payroll.
	ctx, traceID := journey.WithTrace(t.Context())
	session, err := login.Connect(ctx, journey.ConnectOptions{Endpoint: shared.stack.MCPURL() + "/payroll"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close() })
	if _, err := journey.Call(ctx, session, "whoami", nil); err != nil {
		t.Fatal(err)
	}
	var spans []span
	eventually(t, func() string {
		spans = shared.collector.trace(traceID)
		var services []string
		for _, s := range spans {
			services = append(services, s.Service)
		}
		for _, want := range []string{"gateway", "tokenbroker", "corp", "payroll"} {
			if !slices.Contains(services, want) {
				return "no span of " + want + " in the client's trace; there are " + strings.Join(services, ", ")
			}
		}
		return ""
	})
	if !slices.ContainsFunc(spans, func(s span) bool { return s.Service == "corp" && strings.Contains(s.Name, "/oauth/token") }) {
		t.Errorf("corp was not asked to exchange a token in the client's trace: %s", names(spans))
	}
	ids := map[string]bool{}
	for _, s := range spans {
		ids[s.ID] = true
	}
	for _, s := range spans {
		// The client's own span is the root, and was never exported.
		if !ids[s.Parent] && s.Service != "gateway" {
			t.Errorf("span %s of %s hangs in the air: its parent %s is in no service", s.Name, s.Service, s.Parent)
		}
	}
}

func TestEveryLegAndCredentialIsOnRecord(t *testing.T) {
	t.Parallel()
	login := newPerson(t).logIn(t)
	checkSession := connect(t, login, journey.ConnectOptions{})
	for _, tool := range []string{"repos_whoami", "payroll_whoami"} {
		call(t, checkSession, tool, nil)
	}
	answer, err := operator(t).ListAuditRecords(t.Context(), &brokerv1.ListAuditRecordsRequest{SessionId: login.Claims.SessionID, PageSize: 200})
	if err != nil {
		t.Fatal(err)
	}
	type key struct{ action, provider, backend, strategy, outcome string }
	var got []key
	leg := "" // the trace of corp's
	for _, r := range answer.GetRecords() {
		got = append(got, key{r.GetAction(), r.GetProvider(), r.GetBackend(), r.GetStrategy(), r.GetOutcome()})
		if r.GetAction() == "leg.redeemed" && r.GetProvider() == "corp" {
			leg = r.GetTraceId()
		}
		if r.GetTraceId() == "" || r.GetClientId() != login.Client.ID || r.GetPeer() == "" || !r.GetTime().IsValid() {
			t.Errorf("incomplete record: %v", r)
		}
	}
	for _, want := range []key{
		{"leg.redeemed", "corp", "", "", "success"},
		{"leg.redeemed", "octohub", "", "", "success"},
		{"session.activated", "", "", "", "success"},
		{"credential.issued", "octohub", "repos", "upstreamInject", "success"},
		{"credential.issued", "corp", "payroll", "tokenExchange", "success"},
	} {
		if !slices.Contains(got, want) {
			t.Errorf("no record %+v; there are %+v", want, got)
		}
	}
	if shared.stack.Attached() {
		return // traces go elsewhere
	}
	// From the record to everything that happened: the person comes back to the authorization server, the broker redeems
	// the code at the provider.
	eventually(t, func() string {
		spans := shared.collector.trace(leg)
		for service, part := range map[string]string{"authserver": "/oauth/callback", "tokenbroker": "RedeemCode", "corp": "/oauth/token"} {
			if !slices.ContainsFunc(spans, func(s span) bool { return s.Service == service && strings.Contains(s.Name, part) }) {
				return fmt.Sprintf("no span %s of %s in the trace of corp's leg; there are %s", part, service, names(spans))
			}
		}
		return ""
	})
}
