package e2e

import (
	"net/http"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"chatelaine.dev/examples/journey"
)

// TestABackendThatIsGoneCostsOnlyItsOwnTools: its process has ended, and nobody
// listens there; then it is back, with none of the sessions that it had. On a house
// without recorders, which would answer in its place.
func TestABackendThatIsGoneCostsOnlyItsOwnTools(t *testing.T) {
	needProcesses(t)
	t.Parallel()
	h := newHouse(t)
	p := h.person()
	login := h.logIn(t, p)
	sessions := map[string]*mcp.ClientSession{}
	shown := map[string]int{}
	for _, version := range eras {
		session := connect(t, login, journey.ConnectOptions{ProtocolVersion: version})
		checkCalls(t, session, p)
		sessions[version], shown[version] = session, len(listTools(t, session))
	}
	log := h.notebook(t)
	moved := h.counter(t, "gateway", "chatelaine_gateway_requests_total", `backend="repos"`, `outcome="failed"`)

	h.stop(t, "repos")
	for version, session := range sessions {
		_, err := journey.Call(t.Context(), session, "repos_whoami", nil)
		if err == nil || !strings.Contains(err.Error(), "repos") {
			t.Errorf("%s: a call answers %v, want an error that names the backend", version, err)
		}
		if got := call(t, session, "payroll_whoami", nil); !strings.Contains(got, p.Name) {
			t.Errorf("%s: payroll says %q is calling, want %s", version, got, p.Name)
		}
		call(t, session, "status_service_status", map[string]any{"service": "corp"})
		if now := listTools(t, session); len(now) != shown[version] {
			t.Errorf("%s: the client is shown %d tools, and was shown %d", version, len(now), shown[version])
		}
		// Who comes only now sees the others at least.
		late := connect(t, login, journey.ConnectOptions{ProtocolVersion: version})
		if got := call(t, late, "payroll_whoami", nil); !strings.Contains(got, p.Name) {
			t.Errorf("%s: payroll says %q is calling in a new session, want %s", version, got, p.Name)
		}
	}
	if a := h.call(t, login.Token.AccessToken, "repos_whoami"); a.Status != http.StatusOK || !strings.Contains(a.Body, `"isError":true`) {
		t.Errorf("a call answers %s, want a result that is an error", a)
	}
	h.expectReady(t, nil)
	log.any(t, "gateway", `"msg":"mcp request"`, `"backend":"repos"`, `"reason":"BACKEND_UNAVAILABLE"`)
	moved()

	h.start(t, "repos")
	for _, session := range sessions {
		checkCalls(t, session, p)
	}
}

func listTools(t *testing.T, session *mcp.ClientSession) []*mcp.Tool {
	t.Helper()
	list, err := session.ListTools(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return list.Tools
}
