package e2e

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"chatelaine.dev/examples/browse"
	"chatelaine.dev/examples/journey"
	brokerv1 "chatelaine.dev/proto/broker/v1"
)

func TestTwoPeopleAtOnceEachSeeTheirOwn(t *testing.T) {
	t.Parallel()
	a, b := newPerson(t), newPerson(t)
	logins := map[person]*journey.Login{a: a.logIn(t), b: b.logIn(t)}
	var wg sync.WaitGroup
	for p, login := range logins {
		for _, version := range eras {
			wg.Go(func() {
				session, err := login.Connect(t.Context(), journey.ConnectOptions{ProtocolVersion: version})
				if err != nil {
					t.Error(err)
					return
				}
				defer session.Close()
				for range 10 {
					who, err := journey.Call(t.Context(), session, "repos_whoami", nil)
					if err != nil || !strings.Contains(who, p.Login) {
						t.Errorf("repos says %q (%v) is calling, want %s", who, err, p.Login)
					}
					pay, err := journey.Call(t.Context(), session, "payroll_my_payslip", nil)
					if err != nil || !strings.Contains(pay, p.Net) {
						t.Errorf("payroll shows %q (%v), want %s", pay, err, p.Net)
					}
				}
			})
		}
	}
	wg.Wait()
}

// rawCall sends one JSON-RPC message and returns the answer's status and body.
func rawCall(t *testing.T, url, token, body string, header ...string) (*http.Response, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

const initialize = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"raw","version":"1"}}}`

func TestOnePersonsSessionIDIsWorthlessToAnother(t *testing.T) {
	t.Parallel()
	a, b := newPerson(t).logIn(t), newPerson(t).logIn(t)
	for _, endpoint := range []string{shared.stack.MCPURL(), shared.stack.MCPURL() + "/repos"} {
		resp, body := rawCall(t, endpoint, b.Token.AccessToken, initialize)
		id := resp.Header.Get("Mcp-Session-Id")
		if resp.StatusCode != http.StatusOK || id == "" {
			t.Fatalf("%s: initialize: %s %q %s", endpoint, resp.Status, id, body)
		}
		list := `{"jsonrpc":"2.0","id":2,"method":"tools/list"}`
		version := []string{"Mcp-Session-Id", id, "MCP-Protocol-Version", "2025-11-25"}
		if resp, body = rawCall(t, endpoint, a.Token.AccessToken, list, version...); resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: A with B's session id: %s %s, want 404", endpoint, resp.Status, body)
		}
		if resp, body = rawCall(t, endpoint, b.Token.AccessToken, list, version...); resp.StatusCode != http.StatusOK {
			t.Errorf("%s: B with B's session id afterwards: %s %s, want 200", endpoint, resp.Status, body)
		}
	}
}

func TestFailedAbandonedAndSecondLoginsLeaveTheFirstOneWorking(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	first := p.logIn(t)
	session := connect(t, first, journey.ConnectOptions{})
	checkCalls(t, session, p)
	before := connections(t, first.Claims.Subject)

	t.Run("refused at the primary provider", func(t *testing.T) {
		// The consent page is approved, then the person cancels at corp.
		client := newClient(t)
		r := client.Authorize()
		corp := local(shared.stack.Ports().Corp)
		cancel := pressing("cancel", "deny")
		result, err := p.browser(t, func(o *browse.Options) {
			cancel(o)
			press := o.Press
			o.Press = func(page browse.Page, form browse.Form) *browse.Button {
				if page.URL.Host != corp {
					return nil
				}
				return press(page, form)
			}
		}).Walk(t.Context(), r.URL, client.RedirectURI)
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.Callback(r, result.URL)
		var refused *oauth2.RetrieveError
		if !errors.As(err, &refused) || refused.ErrorCode != "access_denied" || !strings.Contains(refused.ErrorDescription, "corp") {
			t.Errorf("the client got %v, want access_denied that names corp", err)
		}
	})
	t.Run("abandoned after the first leg", func(t *testing.T) {
		// Octohub's page is never answered; corp's tokens are staged by then.
		client := newClient(t)
		stop := errors.New("closed the browser")
		r := client.Authorize()
		_, err := p.browser(t, func(o *browse.Options) {
			o.OnPage = func(page browse.Page) error {
				if page.URL.Host == local(shared.stack.Ports().Octohub) {
					return stop
				}
				return nil
			}
		}).Walk(t.Context(), r.URL, client.RedirectURI)
		if !errors.Is(err, stop) {
			t.Fatalf("the walk ended with %v", err)
		}
		var staged int
		query(t, `SELECT count(*) FROM tokenbroker.staged_legs l JOIN tokenbroker.sessions s ON s.id = l.session_id WHERE s.client_id = $1`, []any{client.ID}, &staged)
		if staged != 1 {
			t.Errorf("%d legs are staged, want that of corp", staged)
		}
	})
	t.Run("denied on the consent page", func(t *testing.T) {
		client := newClient(t)
		r := client.Authorize()
		walk, err := p.browser(t, pressing("deny", "cancel")).Walk(t.Context(), r.URL, client.RedirectURI)
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.Callback(r, walk.URL)
		var refused *oauth2.RetrieveError
		if !errors.As(err, &refused) || refused.ErrorCode != "access_denied" {
			t.Errorf("the client got %v, want access_denied", err)
		}
	})
	t.Run("second login", func(t *testing.T) {
		second := p.logIn(t)
		if second.Claims.Subject != first.Claims.Subject {
			t.Errorf("the same person became another user: %s and %s", first.Claims.Subject, second.Claims.Subject)
		}
		if second.Claims.SessionID == first.Claims.SessionID {
			t.Error("two logins share a session")
		}
		checkCalls(t, connect(t, second, journey.ConnectOptions{}), p)
	})
	checkCalls(t, session, p)
	after := connections(t, first.Claims.Subject)
	if len(after) != len(before) {
		t.Errorf("connections before: %v, after: %v", before, after)
	}
	for id := range before {
		if after[id] == nil || after[id].GetState() != brokerv1.ConnectionState_CONNECTION_STATE_ACTIVE {
			t.Errorf("connection %s did not survive: %v", id, after[id])
		}
	}
}

// pressing chooses the first button whose label has one of the words; where
// there is none, the main one.
func pressing(words ...string) func(*browse.Options) {
	return func(o *browse.Options) {
		o.Press = func(_ browse.Page, form browse.Form) *browse.Button {
			for i, button := range form.Buttons {
				for _, w := range words {
					if strings.Contains(strings.ToLower(button.Label), w) {
						return &form.Buttons[i]
					}
				}
			}
			return nil
		}
	}
}

// connections returns a user's connections by id, as an operator sees them.
func connections(t *testing.T, userID string) map[string]*brokerv1.Connection {
	t.Helper()
	answer, err := operator(t).ListConnections(t.Context(), &brokerv1.ListConnectionsRequest{UserId: userID})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]*brokerv1.Connection{}
	for _, c := range answer.GetConnections() {
		found[c.GetConnectionId()] = c
	}
	return found
}
