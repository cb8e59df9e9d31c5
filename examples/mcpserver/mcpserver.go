package mcpserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/mcp"
	"github.com/modelcontextprotocol/go-sdk/oauthex"
	"go.opentelemetry.io/otel/propagation"

	"chatelaine.dev/examples/internal/faults"
)

const (
	// Path is where MCP is served.
	Path = "/mcp"
	// metadataPath is where RFC 9728 section 3.1 puts the metadata of Path.
	metadataPath = "/.well-known/oauth-protected-resource" + Path

	// firstStateless is the first protocol version without sessions.
	firstStateless = "2026-07-28"

	sessionTimeout = 30 * time.Minute
	maxBody        = 1 << 20
)

// Authenticate finds out who sends a request. It returns a *Refusal when the
// credential is no good, and another error when that cannot be found out now.
type Authenticate func(*http.Request) (*auth.TokenInfo, error)

// Config is what a Handler is made of.
type Config struct {
	// Name is the server's name, in challenges and logs.
	Name string
	// Server has the tools, resources and prompts.
	Server *mcp.Server
	// Authenticate is nil where everybody may call.
	Authenticate Authenticate
	// Metadata describes the protected resource (RFC 9728); nil where there is none.
	Metadata *oauthex.ProtectedResourceMetadata
	// Faults are the switches for tests.
	Faults     *faults.Backend
	Propagator propagation.TextMapPropagator
	Log        *slog.Logger
}

// Refusal is a credential that is no good.
type Refusal struct {
	// Status is 401 or 403.
	Status int
	// Code is the error of RFC 6750 section 3.1; empty when no token came.
	Code        string
	Description string
	// Scope is what is needed, if that is known.
	Scope string
}

// Error implements error.
func (r *Refusal) Error() string {
	return fmt.Sprintf("refused (%d %s): %s", r.Status, r.Code, r.Description)
}

// NoToken is the Refusal of a request without a bearer token.
func NoToken() *Refusal {
	return &Refusal{Status: http.StatusUnauthorized, Description: "a bearer token is required"}
}

// InvalidToken is the Refusal of a token that does not verify.
func InvalidToken(description string) *Refusal {
	return &Refusal{Status: http.StatusUnauthorized, Code: "invalid_token", Description: description}
}

// Bearer returns the request's bearer token.
func Bearer(h http.Header) (token string, ok bool) {
	scheme, token, _ := strings.Cut(h.Get("Authorization"), " ")
	return token, strings.EqualFold(scheme, "Bearer") && token != ""
}

// New returns an mcp.Server whose results nobody but the caller may cache: they
// differ from person to person.
func New(name, title, instructions string) *mcp.Server {
	return mcp.NewServer(&mcp.Implementation{Name: name, Title: title, Version: "1.0.0"}, &mcp.ServerOptions{
		Instructions: instructions,
		SetCacheable: func(_ context.Context, _ mcp.Request, c *mcp.Cacheable) { c.CacheScope = "private" },
	})
}

// Handler returns the server's public endpoints: Path, /healthz and, with
// Metadata, the protected resource's.
func Handler(cfg Config) http.Handler {
	cfg.Server.AddReceivingMiddleware(cfg.observe)

	getServer := func(*http.Request) *mcp.Server { return cfg.Server }
	sessions := mcp.NewStreamableHTTPHandler(getServer, &mcp.StreamableHTTPOptions{
		SessionTimeout: sessionTimeout, EventStore: mcp.NewMemoryEventStore(nil), MaxRequestBodyBytes: maxBody, Logger: cfg.Log,
	})
	stateless := mcp.NewStreamableHTTPHandler(getServer, &mcp.StreamableHTTPOptions{
		Stateless: true, PropagateRequestCancellation: true, MaxRequestBodyBytes: maxBody, Logger: cfg.Log,
	})
	both := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// What a tool calls joins the trace of its own request, also in a session.
		cfg.Propagator.Inject(r.Context(), propagation.HeaderCarrier(r.Header))
		if r.Header.Get("MCP-Protocol-Version") >= firstStateless {
			stateless.ServeHTTP(w, r)
			return
		}
		sessions.ServeHTTP(w, r)
	})

	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	refuse := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		cfg.refuse(w, InvalidToken("switched-on fault"))
	})
	guarded := http.NewCrossOriginProtection().Handler(cfg.authenticated(both))
	mux.Handle(Path, cfg.Faults.Wrap(guarded, refuse))
	if cfg.Metadata != nil {
		mux.Handle(metadataPath, auth.ProtectedResourceMetadataHandler(cfg.Metadata))
	}
	return mux
}

// verdictKey is the context key of what Authenticate found out.
type verdictKey struct{}

// authenticated authenticates each request. The SDK's own middleware, which says
// too little in its challenges, only carries the verdict on to the tools.
func (cfg Config) authenticated(next http.Handler) http.Handler {
	if cfg.Authenticate == nil {
		return next
	}
	carry := auth.RequireBearerToken(func(ctx context.Context, _ string, _ *http.Request) (*auth.TokenInfo, error) {
		info, ok := ctx.Value(verdictKey{}).(*auth.TokenInfo)
		if !ok {
			return nil, auth.ErrInvalidToken
		}
		return info, nil
	}, &auth.RequireBearerTokenOptions{AllowMissingExpiration: true})(next)

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info, err := cfg.Authenticate(r)
		if refusal, ok := errors.AsType[*Refusal](err); ok {
			cfg.Log.InfoContext(r.Context(), "refused", "status", refusal.Status, "why", refusal.Description)
			cfg.refuse(w, refusal)
			return
		}
		if err != nil {
			cfg.Log.ErrorContext(r.Context(), "cannot authenticate", "error", err)
			http.Error(w, "the credential cannot be checked now", http.StatusBadGateway)
			return
		}
		carry.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), verdictKey{}, info)))
	})
}

// refuse answers with a challenge (RFC 6750 section 3, RFC 9728 section 5.1).
func (cfg Config) refuse(w http.ResponseWriter, refusal *Refusal) {
	challenge := fmt.Sprintf("Bearer realm=%q", cfg.Name)
	if refusal.Code != "" {
		challenge += fmt.Sprintf(", error=%q, error_description=%q", refusal.Code, refusal.Description)
	}
	if refusal.Scope != "" {
		challenge += fmt.Sprintf(", scope=%q", refusal.Scope)
	}
	if cfg.Metadata != nil {
		challenge += fmt.Sprintf(", resource_metadata=%q", strings.TrimSuffix(cfg.Metadata.Resource, Path)+metadataPath)
	}
	w.Header().Set("WWW-Authenticate", challenge)
	http.Error(w, refusal.Description, refusal.Status)
}

// observe logs and counts each MCP request, and puts its trace into the context:
// that of a session's tools is otherwise the trace of the session's first request.
func (cfg Config) observe(next mcp.MethodHandler) mcp.MethodHandler {
	return func(ctx context.Context, method string, req mcp.Request) (mcp.Result, error) {
		attrs := []any{"method", method}
		if extra := req.GetExtra(); extra != nil {
			ctx = cfg.Propagator.Extract(ctx, propagation.HeaderCarrier(extra.Header))
			if extra.TokenInfo != nil {
				attrs = append(attrs, "user", extra.TokenInfo.UserID)
			}
		}
		if call, ok := req.GetParams().(*mcp.CallToolParamsRaw); ok {
			attrs = append(attrs, "tool", call.Name)
		}
		result, err := next(ctx, method, req)
		cfg.Faults.Count(method, err == nil)
		if err != nil {
			attrs = append(attrs, "error", err)
		}
		cfg.Log.InfoContext(ctx, "mcp request", attrs...)
		return result, err
	}
}
