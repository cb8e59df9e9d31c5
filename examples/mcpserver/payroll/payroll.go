package payroll

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/modelcontextprotocol/go-sdk/oauthex"
	"go.opentelemetry.io/otel/propagation"

	"chatelaine.dev/examples/internal/faults"
	"chatelaine.dev/examples/mcpserver"
	"chatelaine.dev/examples/people"
)

const (
	// Audience is who a token must be for.
	Audience = "payroll"
	// Scope is what a token must allow.
	Scope = "payroll:read"

	policyURI = "payroll://policy"
	policy    = "Payslips are shown to their owner only. Salaries are paid on the 25th. Questions: ask the payroll office, not an agent."
)

// Config is what the server is made of.
type Config struct {
	// Issuer is corp, e.g. http://localhost:5556.
	Issuer string
	// JWKSURL is where corp's keys are.
	JWKSURL string
	// PublicURL is where this server is reached, e.g. http://localhost:7002.
	PublicURL string
	People    *people.Directory
	// Client fetches the keys; it must have a deadline.
	Client     *http.Client
	Faults     *faults.Backend
	Propagator propagation.TextMapPropagator
	Log        *slog.Logger
}

type server struct {
	verifier *oidc.IDTokenVerifier
	people   *people.Directory
}

// New returns the server's HTTP handler.
func New(cfg Config) (http.Handler, error) {
	if cfg.Issuer == "" || cfg.JWKSURL == "" || cfg.PublicURL == "" || cfg.People == nil {
		return nil, errors.New("payroll: an issuer, the URL of its keys, a public URL and people are required")
	}
	// The key set keeps this context for its own requests. The verifier checks
	// any JWT; that it is an access token is checked below.
	ctx := oidc.ClientContext(context.Background(), cfg.Client)
	s := &server{
		people: cfg.People,
		verifier: oidc.NewVerifier(cfg.Issuer, oidc.NewRemoteKeySet(ctx, cfg.JWKSURL), &oidc.Config{
			ClientID: Audience, SupportedSigningAlgs: []string{oidc.RS256, oidc.ES256},
		}),
	}
	m := mcpserver.New("payroll", "Payroll of corp", "Shows the payslip of the person who calls, and of nobody else.")
	readOnly := &mcp.ToolAnnotations{ReadOnlyHint: true}
	mcp.AddTool(m, &mcp.Tool{
		Name: "whoami", Title: "Who am I at corp?", Annotations: readOnly,
		Description: "The employee that this call is made for, as corp's token says.",
	}, s.whoami)
	mcp.AddTool(m, &mcp.Tool{
		Name: "my_payslip", Title: "My payslip", Annotations: readOnly,
		Description: "The caller's latest payslip.",
	}, s.payslip)
	m.AddResource(&mcp.Resource{
		URI: policyURI, Name: "policy", Title: "Payroll policy", MIMEType: "text/plain", Description: "How corp pays.",
	}, readPolicy)
	m.AddPrompt(&mcp.Prompt{
		Name: "explain_payslip", Title: "Explain my payslip", Description: "Asks for an explanation of the caller's payslip.",
	}, explainPrompt)
	return mcpserver.Handler(mcpserver.Config{
		Name: "payroll", Server: m, Authenticate: s.authenticate, Faults: cfg.Faults, Propagator: cfg.Propagator, Log: cfg.Log,
		Metadata: &oauthex.ProtectedResourceMetadata{
			Resource: cfg.PublicURL + mcpserver.Path, ResourceName: "payroll",
			AuthorizationServers: []string{cfg.Issuer}, ScopesSupported: []string{Scope}, BearerMethodsSupported: []string{"header"},
		},
	}), nil
}

// claims are those of an access token (RFC 9068 section 2.2) that payroll reads.
type claims struct {
	ClientID string `json:"client_id"`
	Scope    string `json:"scope"`
	Username string `json:"preferred_username"`
	Name     string `json:"name"`
}

// Employee is the result of whoami.
type Employee struct {
	Subject  string `json:"subject"`
	Username string `json:"username"`
	Name     string `json:"name"`
}

// employeeKey is where an Employee is in auth.TokenInfo.Extra.
const employeeKey = "employee"

// authenticate verifies the request's token: RFC 9068 section 4.
func (s *server) authenticate(r *http.Request) (*auth.TokenInfo, error) {
	raw, ok := mcpserver.Bearer(r.Header)
	if !ok {
		refusal := mcpserver.NoToken()
		refusal.Scope = Scope
		return nil, refusal
	}
	token, err := s.verifier.Verify(r.Context(), raw)
	if err != nil {
		// Also when the keys cannot be fetched: go-oidc does not tell the two
		// apart, and what cannot be verified is refused.
		return nil, mcpserver.InvalidToken("the token does not verify")
	}
	var c claims
	if err := token.Claims(&c); err != nil || c.ClientID == "" || token.Subject == "" {
		return nil, mcpserver.InvalidToken("the token is no access token")
	}
	scopes := strings.Fields(c.Scope)
	if !slices.Contains(scopes, Scope) {
		return nil, &mcpserver.Refusal{
			Status: http.StatusForbidden, Code: "insufficient_scope", Description: "the token lacks a scope", Scope: Scope,
		}
	}
	return &auth.TokenInfo{
		UserID: token.Subject, Scopes: scopes, Expiration: token.Expiry,
		Extra: map[string]any{employeeKey: Employee{Subject: token.Subject, Username: c.Username, Name: c.Name}},
	}, nil
}

// caller is who authenticate found.
func caller(extra *mcp.RequestExtra) (Employee, error) {
	if extra == nil || extra.TokenInfo == nil {
		return Employee{}, errors.New("payroll: the request was not authenticated")
	}
	e, ok := extra.TokenInfo.Extra[employeeKey].(Employee)
	if !ok {
		return Employee{}, errors.New("payroll: the request was not authenticated")
	}
	return e, nil
}

func (s *server) whoami(_ context.Context, req *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, Employee, error) {
	e, err := caller(req.Extra)
	return nil, e, err
}

// Payslip is the result of my_payslip. Amounts are decimal text.
type Payslip struct {
	Name     string `json:"name"`
	Period   string `json:"period"`
	Currency string `json:"currency"`
	Gross    string `json:"gross"`
	Net      string `json:"net"`
}

func (s *server) payslip(_ context.Context, req *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, Payslip, error) {
	e, err := caller(req.Extra)
	if err != nil {
		return nil, Payslip{}, err
	}
	p, ok := s.people.ByCorpID(e.Subject)
	if !ok || p.Payslip.Period == "" {
		return nil, Payslip{}, fmt.Errorf("there is no payslip of %s", cmp.Or(e.Name, e.Subject))
	}
	return nil, Payslip{
		Name: cmp.Or(e.Name, p.Name), Period: p.Payslip.Period, Currency: p.Payslip.Currency, Gross: p.Payslip.Gross, Net: p.Payslip.Net,
	}, nil
}

func readPolicy(_ context.Context, req *mcp.ReadResourceRequest) (*mcp.ReadResourceResult, error) {
	return &mcp.ReadResourceResult{Contents: []*mcp.ResourceContents{{URI: req.Params.URI, MIMEType: "text/plain", Text: policy}}}, nil
}

func explainPrompt(context.Context, *mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
	return &mcp.GetPromptResult{Messages: []*mcp.PromptMessage{{Role: "user", Content: &mcp.TextContent{
		Text: "Get my payslip and explain in plain words what lies between gross and net.",
	}}}}, nil
}
