package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"chatelaine.dev/examples/journey"
)

// eras are the protocol versions that a client may ask for.
var eras = []string{"2025-06-18", "2025-11-25", "2026-07-28"}

func connect(t *testing.T, login *journey.Login, opts journey.ConnectOptions) *mcp.ClientSession {
	t.Helper()
	session, err := login.Connect(t.Context(), opts)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() { _ = session.Close() })
	return session
}

func call(t *testing.T, session *mcp.ClientSession, tool string, arguments map[string]any) string {
	t.Helper()
	answer, err := journey.Call(t.Context(), session, tool, arguments)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

// checkCalls calls a tool of each backend and checks who each says is calling.
func checkCalls(t *testing.T, session *mcp.ClientSession, p person) {
	t.Helper()
	if got := call(t, session, "repos_whoami", nil); !strings.Contains(got, p.Login) {
		t.Errorf("repos says %q is calling, want %s", got, p.Login)
	}
	if got := call(t, session, "payroll_my_payslip", nil); !strings.Contains(got, p.Net) {
		t.Errorf("payroll shows %q, want the payslip of %s with %s", got, p.Username, p.Net)
	}
	if got := call(t, session, "payroll_whoami", nil); !strings.Contains(got, p.Name) {
		t.Errorf("payroll says %q is calling, want %s", got, p.Name)
	}
	// status answers an error when it gets a credential.
	call(t, session, "status_service_status", nil)
}

func TestOneLoginReachesEveryBackendInBothEras(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	login := p.logIn(t)
	for _, version := range eras {
		t.Run(version, func(t *testing.T) {
			session := connect(t, login, journey.ConnectOptions{ProtocolVersion: version})
			if got := session.InitializeResult().ProtocolVersion; got != version {
				t.Errorf("negotiated %s, asked for %s", got, version)
			}
			checkCalls(t, session, p)

			resources, err := session.ListResources(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, uri := range []string{"octohub://repositories", "payroll://policy", "status://incidents"} {
				if !slices.ContainsFunc(resources.Resources, func(r *mcp.Resource) bool { return r.URI == uri }) {
					t.Errorf("%s is not among the %d resources", uri, len(resources.Resources))
				}
			}
			prompts, err := session.ListPrompts(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"repos_review_repository", "payroll_explain_payslip", "status_incident_summary"} {
				if !slices.ContainsFunc(prompts.Prompts, func(p *mcp.Prompt) bool { return p.Name == name }) {
					t.Errorf("%s is not among the %d prompts", name, len(prompts.Prompts))
				}
			}
			for _, r := range resources.Resources {
				if _, err := session.ReadResource(t.Context(), &mcp.ReadResourceParams{URI: r.URI}); err != nil {
					t.Errorf("read %s: %v", r.URI, err)
				}
			}
		})
		t.Run(version+" one backend", func(t *testing.T) {
			session := connect(t, login, journey.ConnectOptions{ProtocolVersion: version, Endpoint: shared.stack.MCPURL() + "/repos"})
			tools, err := session.ListTools(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(tools.Tools, func(tool *mcp.Tool) bool { return tool.Name == "whoami" }) {
				t.Errorf("a passed-through backend's names are changed: %v", tools.Tools)
			}
			if got := call(t, session, "whoami", nil); !strings.Contains(got, p.Login) {
				t.Errorf("repos says %q is calling, want %s", got, p.Login)
			}
		})
	}
}

func TestTokenHasTheClaimsThatResourceServersNeed(t *testing.T) {
	t.Parallel()
	login := newPerson(t).logIn(t)
	c := login.Claims
	if c.Issuer != shared.stack.Issuer() || c.Subject == "" || c.ClientID != login.Client.ID || c.SessionID == "" || c.ID == "" {
		t.Errorf("claims: %+v", c)
	}
	if !slices.Equal(c.Audience, []string{shared.stack.MCPURL()}) {
		t.Errorf("aud = %v, want the resource that was asked for", c.Audience)
	}
	if got := c.Expiry - c.IssuedAt; got < 3600 || got > 3601 { // times are whole seconds
		t.Errorf("the token lives %d s, want an hour", got)
	}
}

func TestRefreshKeepsTheSessionGoing(t *testing.T) {
	t.Parallel()
	p := newPerson(t)
	login := p.logIn(t)
	fresh, err := login.Client.Refresh(t.Context(), login.Token.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	if fresh.RefreshToken == login.Token.RefreshToken || fresh.AccessToken == login.Token.AccessToken {
		t.Error("the tokens did not rotate")
	}
	claims, err := journey.ParseClaims(fresh.AccessToken)
	if err != nil {
		t.Fatal(err)
	}
	if claims.SessionID != login.Claims.SessionID || claims.Subject != login.Claims.Subject {
		t.Errorf("after refresh: %+v, before: %+v", claims, login.Claims)
	}
	login.Token = fresh
	checkCalls(t, connect(t, login, journey.ConnectOptions{}), p)
}
