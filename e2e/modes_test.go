package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"golang.org/x/oauth2"

	"chatelaine.dev/examples/journey"
	"chatelaine.dev/examples/stack"
)

// Deployments without an authorization server of ours: broker and gateway alone.

// gateOnly are the resources of one, up to the backends: incoming says who may call.
func gateOnly(incoming string) string {
	return `apiVersion: chatelaine.dev/v1alpha1
kind: VirtualMCPServer
metadata: {name: demo}
spec:
  groupRef: {name: demo}
  incomingAuth: {` + incoming + `}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPGroup
metadata: {name: demo}
`
}

// statusEntry is a backend that answers an error when it gets a credential.
func statusEntry(ports stack.Ports) string {
	return entry("status", "http://"+local(ports.Status)+"/mcp", "type: unauthenticated")
}

// foreign is an issuer of somebody else's.
type foreign struct {
	*httptest.Server
	key *ecdsa.PrivateKey
}

func startForeign(t *testing.T) *foreign {
	t.Helper()
	f := &foreign{key: newKey(t)}
	mux := http.NewServeMux()
	answer := func(path string, document func() any) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(document())
		})
	}
	answer("/.well-known/openid-configuration", func() any {
		return map[string]any{"issuer": f.URL, "jwks_uri": f.URL + "/keys"}
	})
	answer("/keys", func() any {
		return jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: f.key.Public(), KeyID: "1", Algorithm: "ES256", Use: "sig"}}}
	})
	f.Server = httptest.NewServer(mux)
	t.Cleanup(f.Close)
	return f
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// token is one of the issuer's, signed with a key that need not be its own.
func (f *foreign) token(t *testing.T, key *ecdsa.PrivateKey, subject string, issued time.Time, audience ...string) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "1"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	claims, err := json.Marshal(map[string]any{
		"iss": f.URL, "sub": subject, "aud": audience, "client_id": "desk", "iat": issued.Unix(), "exp": issued.Add(5 * time.Minute).Unix(),
	})
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// holder is a client that got its token elsewhere.
func holder(h *house, token string) *journey.Login {
	return &journey.Login{
		Client: &journey.Client{Name: "Desk assistant", Discovery: &journey.Discovery{MCPURL: h.stack.MCPURL()}, HTTP: http.DefaultClient},
		Token:  &oauth2.Token{AccessToken: token},
	}
}

func TestSomebodyElsesIssuerOpensTheGatewayAndItsTokenIsExchanged(t *testing.T) {
	needProcesses(t)
	t.Parallel()
	const secret = "key-of-the-vault-5be1"
	issuer, vault := startForeign(t), startKeyed(t, "X-Api-Key", secret)
	var corp *recorder
	h := newHouse(t, func(cfg *stack.Config) {
		cfg.Omit = []string{"authserver", "octohub", "repos"}
		corp = record(t, cfg, "tokenbroker", cfg.Ports.Corp)
		cfg.Env["tokenbroker"] = append(cfg.Env["tokenbroker"], "VAULT_KEY="+secret)
		cfg.Args = map[string][]string{"corp": {"--trusted-issuer", issuer.URL + "=" + issuer.URL + "/keys"}}
		ports := cfg.Ports
		cfg.Resources = func(string) string {
			return gateOnly(`type: oidc, oidcConfigRef: {name: demo, audience: "http://`+local(ports.Gateway)+`/mcp"}`) + `---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPOIDCConfig
metadata: {name: demo}
spec: {type: inline, inline: {issuer: "` + issuer.URL + `"}}
` + payrollEntry(ports, "payroll") + statusEntry(ports) +
				entry("vault", vault.url(), `type: headerInjection, headerInjection: {headerName: X-Api-Key, valueSecretRef: {name: vault, key: key}}`)
		}
	})
	p, now := h.person(), time.Now()
	h.link(t, issuer.URL, "desk-7", p.Username)
	gate, sts := h.stack.MCPURL(), tokenURL(h.stack.Ports())

	good := issuer.token(t, issuer.key, "desk-7", now, gate, sts)
	for _, version := range eras {
		session := connect(t, holder(h, good), journey.ConnectOptions{ProtocolVersion: version})
		if got := call(t, session, "payroll_whoami", nil); !strings.Contains(got, p.Name) {
			t.Errorf("%s: payroll says %q is calling, want %s", version, got, p.Name)
		}
		call(t, session, "vault_open", nil)
		call(t, session, "status_service_status", map[string]any{"service": "corp"})
		narrow := connect(t, holder(h, good), journey.ConnectOptions{ProtocolVersion: version, Endpoint: gate + "/vault"})
		call(t, narrow, "open", nil)
	}
	vault.check(t, good)
	if sent := exchanged(t, corp); len(sent) != 1 || sent[0] != good {
		t.Errorf("corp was sent %d subject tokens, want the caller's once", len(sent))
	}

	t.Run("a token that corp does not take", func(t *testing.T) {
		for name, token := range map[string]string{
			"not for corp":    issuer.token(t, issuer.key, "desk-7", now, gate),
			"of nobody there": issuer.token(t, issuer.key, "desk-8", now, gate, sts),
		} {
			session := connect(t, holder(h, token), journey.ConnectOptions{})
			if got, err := journey.Call(t.Context(), session, "payroll_whoami", nil); err == nil || !strings.Contains(err.Error(), "the token service refuses to exchange a token for backend payroll") {
				t.Errorf("%s: payroll says %q, %v, want that the token service refuses", name, got, err)
			}
			call(t, session, "vault_open", nil) // the others do not suffer
		}
	})
	before := len(exchanged(t, corp))
	for name, c := range map[string]struct{ url, token string }{
		"for somebody else":      {gate, issuer.token(t, issuer.key, "desk-7", now, "https://elsewhere.example/mcp", sts)},
		"for one other backend":  {gate + "/payroll", issuer.token(t, issuer.key, "desk-7", now, gate+"/status", sts)},
		"for one, at all":        {gate, issuer.token(t, issuer.key, "desk-7", now, gate+"/payroll", sts)},
		"signed by somebody":     {gate, issuer.token(t, newKey(t), "desk-7", now, gate, sts)},
		"that has expired":       {gate, issuer.token(t, issuer.key, "desk-7", now.Add(-time.Hour), gate, sts)},
		"that never was a token": {gate, "nonsense"},
	} {
		t.Run("a token "+name, func(t *testing.T) {
			resp, body := rawCall(t, c.url, c.token, initialize)
			challenge := resp.Header.Get("WWW-Authenticate")
			if resp.StatusCode != http.StatusUnauthorized || !strings.Contains(challenge, `error="invalid_token"`) || !strings.Contains(challenge, "resource_metadata=") {
				t.Errorf("%s, %q, %s", resp.Status, challenge, body)
			}
		})
	}
	if n := len(exchanged(t, corp)) - before; n != 0 {
		t.Errorf("%d tokens that open nothing were sent to corp", n)
	}
	if resp, body := rawCall(t, gate+"/payroll", issuer.token(t, issuer.key, "desk-7", now, gate+"/payroll", sts), initialize); resp.StatusCode != http.StatusOK {
		t.Errorf("a token for one backend is refused there: %s %s", resp.Status, body)
	}
}

func TestAnybodyMayCallWhereTheDeploymentSaysSo(t *testing.T) {
	needProcesses(t)
	t.Parallel()
	const token = "token-of-the-desk-77d0"
	desk := startKeyed(t, "Authorization", "Bearer "+token)
	var status *recorder
	h := newHouse(t, func(cfg *stack.Config) {
		cfg.Omit = []string{"authserver", "octohub", "repos", "payroll"}
		status = record(t, cfg, "gateway", cfg.Ports.Status)
		cfg.Env["tokenbroker"] = []string{"DESK_TOKEN=" + token}
		ports := cfg.Ports
		cfg.Resources = func(string) string {
			return gateOnly("type: anonymous") + statusEntry(ports) +
				entry("desk", desk.url(), `type: bearerToken, bearerToken: {tokenSecretRef: {name: desk, key: token}}`)
		}
	})
	for _, version := range eras {
		client := mcp.NewClient(&mcp.Implementation{Name: "anybody", Version: "1"}, nil)
		session, err := client.Connect(t.Context(), &mcp.StreamableClientTransport{Endpoint: h.stack.MCPURL(), DisableStandaloneSSE: true},
			&mcp.ClientSessionOptions{ProtocolVersion: version})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = session.Close() })
		if got := call(t, session, "desk_open", nil); !strings.Contains(got, "the door is open") {
			t.Errorf("%s: desk answers %q", version, got)
		}
		call(t, session, "status_service_status", map[string]any{"service": "corp"})
	}
	// What a client shows without being asked is nobody's business.
	own := "token-of-the-client-itself"
	for _, version := range eras {
		session := connect(t, holder(h, own), journey.ConnectOptions{ProtocolVersion: version})
		call(t, session, "desk_open", nil)
		call(t, session, "status_service_status", map[string]any{"service": "corp"})
		for backend, tool := range map[string]string{"desk": "open", "status": "service_status"} {
			narrow := connect(t, holder(h, own), journey.ConnectOptions{ProtocolVersion: version, Endpoint: h.stack.MCPURL() + "/" + backend})
			call(t, narrow, tool, nil)
		}
	}
	desk.check(t, own)
	calls := status.seen("/mcp")
	for _, e := range calls {
		if got := e.RequestHeader.Values("Authorization"); len(got) != 0 {
			t.Errorf("status got an Authorization with %s %s", e.Method, e.URL)
		}
	}
	if len(calls) == 0 {
		t.Error("status was never called")
	}
}
