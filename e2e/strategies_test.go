package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"chatelaine.dev/examples/journey"
	"chatelaine.dev/examples/stack"
)

// The strategies that the demo's resources do not use, on the whole house.

// record puts a recorder in front of a server of a house that is not started yet.
// The broker, or the gateway, gets there by --dial.
func record(t *testing.T, cfg *stack.Config, process string, port int) *recorder {
	t.Helper()
	r := recorderOf(t, fmt.Sprintf("127.0.0.1:%d", port))
	if cfg.Env == nil {
		cfg.Env = map[string][]string{}
	}
	cfg.Env[process] = append(cfg.Env[process], "CHATELAINE_DIAL="+local(port)+"="+r.address)
	return r
}

func recorderOf(t *testing.T, target string) *recorder {
	t.Helper()
	r, err := startRecorder(context.WithoutCancel(t.Context()), target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.server.Close() })
	return r
}

// keyed is an MCP server that answers nobody but who sends one value in one header. It
// keeps what came.
type keyed struct {
	*recorder
	header, value string
}

func startKeyed(t *testing.T, header, value string) keyed {
	t.Helper()
	server := mcp.NewServer(&mcp.Implementation{Name: "keyed", Version: "1"}, nil)
	mcp.AddTool(server, &mcp.Tool{Name: "open", Description: "Says that the door is open."},
		func(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, any, error) {
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: "the door is open"}}}, nil, nil
		})
	serve := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server }, nil)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Values(header); len(got) != 1 || got[0] != value {
			http.Error(w, "wrong key", http.StatusUnauthorized)
			return
		}
		serve.ServeHTTP(w, r)
	}))
	t.Cleanup(backend.Close)
	return keyed{recorderOf(t, backend.Listener.Addr().String()), header, value}
}

// url is where the server is found through the recorder.
func (k keyed) url() string { return "http://" + k.address + "/mcp" }

// check says what is wrong with what came: every request must have the value, and
// nothing else that opens something. forbidden are what no request may hold.
func (k keyed) check(t *testing.T, forbidden ...string) {
	t.Helper()
	calls := 0
	for _, e := range k.seen("/mcp") {
		if got := e.RequestHeader.Values(k.header); len(got) != 1 || got[0] != k.value {
			t.Errorf("%s %s came with %s %q, want the configured value", e.Method, e.URL, k.header, got)
		}
		if k.header != "Authorization" && e.RequestHeader.Get("Authorization") != "" {
			t.Errorf("%s %s came with an Authorization, too", e.Method, e.URL)
		}
		for name, values := range e.RequestHeader {
			for _, f := range forbidden {
				if strings.Contains(strings.Join(values, " "), f) {
					t.Errorf("%s %s came with what is for others in %s", e.Method, e.URL, name)
				}
			}
		}
		if bytes.Contains(e.RequestBody, []byte("tools/call")) {
			calls++
		}
	}
	if calls == 0 {
		t.Error("no tool was called")
	}
}

// entry is the resources of one more backend, with how it is reached: the spec of an
// MCPExternalAuthConfig.
func entry(name, target, spec string) string {
	return fmt.Sprintf(`
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPExternalAuthConfig
metadata: {name: for-%[1]s}
spec: {%[3]s}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPServerEntry
metadata: {name: %[1]s}
spec: {groupRef: {name: demo}, remoteUrl: "%[2]s", transport: streamable-http, externalAuthConfigRef: {name: for-%[1]s}}
`, name, target, spec)
}

// payrollEntry is a backend that gets tokens of corp without one of corp's to exchange.
func payrollEntry(ports stack.Ports, name string) string {
	return entry(name, "http://"+local(ports.Payroll)+"/mcp", `type: tokenExchange, tokenExchange: {tokenUrl: "`+tokenURL(ports)+`", clientId: broker,
    clientSecretRef: {name: corp-sts, key: client-secret}, audience: payroll, scopes: ["payroll:read"]}`)
}

func tokenURL(ports stack.Ports) string { return "http://" + local(ports.Corp) + "/oauth/token" }

// link makes corp believe that a subject of an issuer that it trusts is one of its people.
func (h *house) link(t *testing.T, issuer, subject, username string) {
	t.Helper()
	body, err := json.Marshal(map[string]string{"issuer": issuer, "subject": subject, "username": username})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+local(h.stack.Ports().CorpFaults)+"/links", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
		t.Fatalf("link: %s %s", resp.Status, text)
	}
}

// exchanged returns the subject tokens that a token service was sent.
func exchanged(t *testing.T, corp *recorder) (tokens []string) {
	t.Helper()
	for _, e := range corp.seen("/oauth/token") {
		form, err := url.ParseQuery(string(e.RequestBody))
		if err != nil {
			t.Fatal(err)
		}
		if form.Get("grant_type") == "urn:ietf:params:oauth:grant-type:token-exchange" {
			tokens = append(tokens, form.Get("subject_token"))
		}
	}
	return tokens
}

// part is the header (0) or the claims (1) of a JWT, unverified.
func part(t *testing.T, token string, i int) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatal("what was exchanged is no JWT")
	}
	raw, err := base64.RawURLEncoding.DecodeString(parts[i])
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]any{}
	if err := json.Unmarshal(raw, &found); err != nil {
		t.Fatal(err)
	}
	return found
}

func TestEachBackendGetsWhatItsStrategySaysAndNothingElse(t *testing.T) {
	needProcesses(t)
	t.Parallel()
	const secret, token = "key-of-the-vault-0a7f", "token-of-the-desk-91c2"
	vault, desk := startKeyed(t, "X-Api-Key", secret), startKeyed(t, "Authorization", "Bearer "+token)
	var corp *recorder
	h := newHouse(t, func(cfg *stack.Config) {
		corp = record(t, cfg, "tokenbroker", cfg.Ports.Corp)
		cfg.Env["tokenbroker"] = append(cfg.Env["tokenbroker"], "VAULT_KEY="+secret, "DESK_TOKEN="+token)
		ports := cfg.Ports
		cfg.Resources = func(text string) string {
			return strings.Replace(text, "source: inline", "source: discovered", 1) + payrollEntry(ports, "payroll-own") +
				entry("vault", vault.url(), `type: headerInjection, headerInjection: {headerName: X-Api-Key, valueSecretRef: {name: vault, key: key}}`) +
				entry("desk", desk.url(), `type: bearerToken, bearerToken: {tokenSecretRef: {name: desk, key: token}}`)
		}
	})
	p := h.person()
	login := h.logIn(t, p)
	bearer := login.Token.AccessToken
	h.link(t, h.stack.Issuer(), login.Claims.Subject, p.Username)

	for _, version := range eras {
		session := connect(t, login, journey.ConnectOptions{ProtocolVersion: version})
		if got := call(t, session, "payroll-own_whoami", nil); !strings.Contains(got, p.Name) {
			t.Errorf("%s: payroll-own says %q is calling, want %s", version, got, p.Name)
		}
		for _, tool := range []string{"vault_open", "desk_open"} {
			if got := call(t, session, tool, nil); !strings.Contains(got, "the door is open") {
				t.Errorf("%s: %s answers %q", version, tool, got)
			}
		}
		checkCalls(t, session, p)
		// The narrow endpoints pass on what a client says, so they have more to leave out.
		for backend, tool := range map[string]string{"payroll-own": "whoami", "vault": "open", "desk": "open"} {
			narrow := connect(t, login, journey.ConnectOptions{ProtocolVersion: version, Endpoint: h.stack.MCPURL() + "/" + backend})
			call(t, narrow, tool, nil)
		}
	}
	if resp, body := rawCall(t, h.stack.MCPURL()+"/vault", bearer, initialize, "X-Api-Key", "key-of-the-client"); resp.StatusCode != http.StatusOK {
		t.Errorf("a client that sends a key of its own gets %s %s", resp.Status, body)
	}
	vault.check(t, bearer, token)
	desk.check(t, bearer, secret)

	// Beside corp's own token, exchanged for payroll, corp saw one that was made for this
	// exchange alone.
	var minted []string
	for _, subject := range exchanged(t, corp) {
		if subject == bearer {
			t.Error("corp was shown the token that opens the gateway")
		}
		if strings.Count(subject, ".") == 2 {
			minted = append(minted, subject)
		}
	}
	if len(minted) != 1 {
		t.Fatalf("corp saw %d minted subject tokens, want one for all calls", len(minted))
	}
	claims := part(t, minted[0], 1)
	if claims["iss"] != h.stack.Issuer() || claims["sub"] != login.Claims.Subject || fmt.Sprint(claims["aud"]) != fmt.Sprint([]string{tokenURL(h.stack.Ports())}) {
		t.Errorf("the subject token's claims are %v, want this issuer and person, for the token endpoint alone", claims)
	}
	if tsid, ok := claims["tsid"]; ok {
		t.Errorf("the subject token names the session %v", tsid)
	}
	expires, _ := claims["exp"].(float64)
	issued, _ := claims["iat"].(float64)
	if life := expires - issued; life <= 0 || life > 120 {
		t.Errorf("the subject token lives %v s, want two minutes at most", life)
	}
	if typ := part(t, minted[0], 0)["typ"]; typ == "at+jwt" {
		t.Error("the subject token has the type of an access token")
	}
	if resp, body := rawCall(t, h.stack.MCPURL(), minted[0], initialize); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("the subject token opens the gateway: %s %s", resp.Status, body)
	}

	// Whom corp does not know gets nothing there, and all the rest.
	q := h.person()
	other := h.logIn(t, q)
	session := connect(t, other, journey.ConnectOptions{})
	if got, err := journey.Call(t.Context(), session, "payroll-own_whoami", nil); err == nil || !strings.Contains(err.Error(), "the token service refuses to exchange a token for backend payroll-own") {
		t.Errorf("payroll-own says %q, %v to somebody without a link, want that the token service refuses", got, err)
	}
	checkCalls(t, session, q)
	call(t, session, "vault_open", nil)
}
