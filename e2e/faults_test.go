package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"chatelaine.dev/examples/browse"
	"chatelaine.dev/examples/journey"
	brokerv1 "chatelaine.dev/proto/broker/v1"
)

// The tests of this file switch faults on in servers that all tests share, so
// none of them is parallel: they run before those that are.

// fault switches a fault of an example on until the test ends.
func fault(t *testing.T, port int, settings any) {
	t.Helper()
	body, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	switchFault(t, http.MethodPut, port, body)
	t.Cleanup(func() { switchFault(t, http.MethodDelete, port, nil) })
}

func switchFault(t *testing.T, method string, port int, body []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "http://"+local(port)+"/faults", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		t.Fatalf("fault switch: %s %s", resp.Status, text)
	}
}

// walk goes through the login and returns what the client was told.
func walk(t *testing.T, p person, client *journey.Client, change ...func(*browse.Options)) error {
	t.Helper()
	r := client.Authorize()
	result, err := p.browser(t, append(change, func(o *browse.Options) { o.Timeout = time.Minute })...).Walk(t.Context(), r.URL, client.RedirectURI)
	if err != nil {
		t.Fatalf("the browser got stuck: %v", err)
	}
	code, err := client.Callback(r, result.URL)
	if err != nil {
		return err
	}
	_, err = client.Redeem(t.Context(), r, code)
	return err
}

// pendingSessions counts what chains have left behind.
func pendingSessions(t *testing.T, clientID string) int {
	t.Helper()
	var n int
	query(t, `SELECT count(*) FROM tokenbroker.sessions WHERE client_id = $1 AND state <> 'ended'`, []any{clientID}, &n)
	return n
}

func TestRequiredProviderThatFailsEndsTheChainAndLeavesNothing(t *testing.T) {
	needProcesses(t)
	ports := shared.stack.Ports()
	const silent = "nothing for 10s"
	for name, settings := range map[string]any{
		"an error":       map[string]any{"token": map[string]any{"mode": "error", "error": "invalid_grant"}},
		"a 500":          map[string]any{"token": map[string]any{"mode": "status", "status": 500}},
		"garbage":        map[string]any{"token": map[string]any{"mode": "garbage"}},
		silent:           map[string]any{"token": map[string]any{"mode": "hang"}},
		"another nonce":  map[string]any{"wrongNonce": true},
		"a refusal":      map[string]any{"authorize": "access_denied"},
		"a server error": map[string]any{"authorize": "server_error"},
	} {
		t.Run(name, func(t *testing.T) {
			client := newClient(t)
			fault(t, ports.CorpFaults, settings)
			begun := time.Now()
			err := walk(t, newPerson(t), client)
			took := time.Since(begun)
			var refused *oauth2.RetrieveError
			if !errors.As(err, &refused) {
				t.Fatalf("the client got %v, want an OAuth error", err)
			}
			if name == silent && (took < 8*time.Second || took > 20*time.Second) {
				t.Errorf("the person waited %s for a provider that says nothing, want 10 s", took)
			}
			t.Logf("the client is told: %s: %s", refused.ErrorCode, refused.ErrorDescription)
			if refused.ErrorDescription == "" || !strings.Contains(refused.ErrorDescription, "corp") {
				t.Errorf("error_description %q does not name the provider", refused.ErrorDescription)
			}
			eventually(t, func() string {
				if n := pendingSessions(t, client.ID); n != 0 {
					return "a session of the failed chain is still there"
				}
				return ""
			})
			var staged int
			query(t, `SELECT count(*) FROM tokenbroker.staged_legs l JOIN tokenbroker.sessions s ON s.id = l.session_id WHERE s.client_id = $1`, []any{client.ID}, &staged)
			if staged != 0 {
				t.Errorf("%d staged legs are left", staged)
			}
			var records int
			query(t, `SELECT count(*) FROM tokenbroker.audit WHERE client_id = $1 AND action = 'leg.failed' AND provider = 'corp'`, []any{client.ID}, &records)
			if records != 1 {
				t.Errorf("%d audit records of the leg that failed, want 1", records)
			}
		})
	}
}

func TestOptionalProviderThatFailsIsSkipped(t *testing.T) {
	needProcesses(t)
	ports := shared.stack.Ports()
	for name, c := range map[string]struct {
		settings any
		outcome  string // of the record
	}{
		"an error":  {map[string]any{"token": map[string]any{"mode": "error", "error": "invalid_grant"}}, "FAILED"},
		"garbage":   {map[string]any{"token": map[string]any{"mode": "garbage"}}, "UNAVAILABLE"},
		"a refusal": {map[string]any{"authorize": "access_denied"}, "DECLINED"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPerson(t)
			client := newClient(t)
			fault(t, ports.OctohubFaults, c.settings)
			login, err := client.Login(t.Context(), p.browser(t))
			if err != nil {
				t.Fatal(err)
			}
			session := connect(t, login, journey.ConnectOptions{})
			if got := call(t, session, "payroll_whoami", nil); !strings.Contains(got, p.Name) {
				t.Errorf("payroll says %q", got)
			}
			_, err = journey.Call(t.Context(), session, "repos_whoami", nil)
			if err == nil || !strings.Contains(err.Error(), "octohub") {
				t.Errorf("a call that needs the skipped provider answers %v, want an error that names octohub", err)
			}
			answer, err := operator(t).ListSessions(t.Context(), &brokerv1.ListSessionsRequest{UserId: login.Claims.Subject})
			if err != nil {
				t.Fatal(err)
			}
			state := brokerv1.SessionLinkState_SESSION_LINK_STATE_UNSPECIFIED
			for _, link := range answer.GetSessions()[0].GetLinks() {
				if link.GetProvider() == "octohub" {
					state = link.GetState()
				}
			}
			if state != brokerv1.SessionLinkState_SESSION_LINK_STATE_SKIPPED {
				t.Errorf("octohub is %s in this session", state)
			}
			var records, right int
			query(t, `SELECT count(*), count(*) FILTER (WHERE outcome = $2) FROM tokenbroker.audit WHERE session_id = $1 AND action = 'leg.skipped' AND provider = 'octohub'`,
				[]any{login.Claims.SessionID, c.outcome}, &records, &right)
			if records != 1 || right != 1 {
				t.Errorf("%d audit records of the leg that was skipped, %d with the outcome %s; want 1", records, right, c.outcome)
			}
		})
	}
}

func TestBackendThatIsDownSlowOrUnauthorizedCostsOnlyItsOwnTools(t *testing.T) {
	needProcesses(t)
	ports := shared.stack.Ports()
	for _, version := range []string{"2025-11-25", "2026-07-28"} {
		p := newPerson(t) // each era its own: a credential that was just renewed is not renewed again
		login := p.logIn(t)
		session := connect(t, login, journey.ConnectOptions{ProtocolVersion: version})
		checkCalls(t, session, p)

		t.Run(version+" answers 401 once", func(t *testing.T) {
			before := len(shared.recorders["repos"].seen("/mcp"))
			fault(t, ports.ReposFaults, map[string]any{"unauthorized": 1})
			if got := call(t, session, "repos_whoami", nil); !strings.Contains(got, p.Login) {
				t.Errorf("after one 401 repos says %q", got)
			}
			calls := 0
			for _, e := range shared.recorders["repos"].seen("/mcp")[before:] {
				if bytes.Contains(e.RequestBody, []byte("tools/call")) {
					calls++
				}
			}
			if calls != 2 {
				t.Errorf("the backend got %d requests, want the refused one and one retry", calls)
			}
		})
		t.Run(version+" answers 401 always", func(t *testing.T) {
			fault(t, ports.ReposFaults, map[string]any{"unauthorized": -1})
			_, err := journey.Call(t.Context(), session, "repos_whoami", nil)
			if err == nil || !strings.Contains(err.Error(), "repos") {
				t.Errorf("the call answers %v, want an error that names the backend", err)
			}
			call(t, session, "status_service_status", nil)
			call(t, session, "payroll_whoami", nil)
		})
		t.Run(version+" is slow", func(t *testing.T) {
			const delay = 3 * time.Second
			fault(t, ports.PayrollFaults, map[string]any{"delayMs": delay.Milliseconds()})
			slow := make(chan error, 1)
			begun := time.Now()
			go func() {
				_, err := journey.Call(t.Context(), session, "payroll_whoami", nil)
				slow <- err
			}()
			eventually(t, func() string { // so that the others are called while it is slow
				for _, e := range shared.recorders["payroll"].seen("/mcp") {
					if bytes.Contains(e.RequestBody, []byte("tools/call")) && e.ResponseStatus == 0 {
						return ""
					}
				}
				return "the slow call has not reached its backend"
			})
			call(t, session, "repos_whoami", nil)
			call(t, session, "status_service_status", nil)
			if took := time.Since(begun); took >= delay {
				t.Errorf("two quick backends took %s beside a slow one", took)
			}
			if err := <-slow; err != nil {
				t.Errorf("the slow call fails: %v", err)
			}
			if took := time.Since(begun); took < delay {
				t.Errorf("the backend answered after %s: it was not slow", took)
			}
		})
		t.Run(version+" drops connections", func(t *testing.T) {
			fault(t, ports.PayrollFaults, map[string]any{"drop": true})
			_, err := journey.Call(t.Context(), session, "payroll_whoami", nil)
			if err == nil || !strings.Contains(err.Error(), "payroll") {
				t.Errorf("the call answers %v, want an error that names the backend", err)
			}
			call(t, session, "repos_whoami", nil)
			if _, err := session.ListTools(t.Context(), nil); err != nil {
				t.Errorf("one broken backend breaks the list: %v", err)
			}
		})
		checkCalls(t, session, p)
	}
}
