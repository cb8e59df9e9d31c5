package journey

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

type traceKey struct{}

// WithTrace returns a context whose MCP requests join one new trace, and the
// trace's id (W3C Trace Context, section 3.2).
func WithTrace(ctx context.Context) (context.Context, string) {
	var id [24]byte
	_, _ = rand.Read(id[:]) // never fails
	traceID := hex.EncodeToString(id[:16])
	return context.WithValue(ctx, traceKey{}, "00-"+traceID+"-"+hex.EncodeToString(id[16:])+"-01"), traceID
}

// ConnectOptions choose how an MCP session is opened.
type ConnectOptions struct {
	// Endpoint is the MCP URL; empty for the one that was discovered.
	Endpoint string
	// ProtocolVersion asks for one version; empty lets the SDK choose the newest.
	ProtocolVersion string
	// Client, when set, is what the MCP client offers to the server.
	Client *mcp.ClientOptions
	// Transport sends the requests; nil means the client's own.
	Transport http.RoundTripper
}

// Connect opens an MCP session with the login's access token.
func (l *Login) Connect(ctx context.Context, opts ConnectOptions) (*mcp.ClientSession, error) {
	if opts.Endpoint == "" {
		opts.Endpoint = l.Client.Discovery.MCPURL
	}
	if opts.Transport == nil {
		opts.Transport = l.Client.HTTP.Transport
	}
	if opts.Transport == nil {
		opts.Transport = http.DefaultTransport
	}
	client := mcp.NewClient(&mcp.Implementation{Name: l.Client.Name, Version: "1"}, opts.Client)
	return client.Connect(ctx, &mcp.StreamableClientTransport{
		Endpoint:             opts.Endpoint,
		HTTPClient:           &http.Client{Transport: bearer{token: l.Token.AccessToken, next: opts.Transport}},
		DisableStandaloneSSE: true,
	}, &mcp.ClientSessionOptions{ProtocolVersion: opts.ProtocolVersion})
}

// Call calls a tool and returns its text. A tool that answers an error is an error.
func Call(ctx context.Context, session *mcp.ClientSession, tool string, arguments map[string]any) (string, error) {
	result, err := session.CallTool(ctx, &mcp.CallToolParams{Name: tool, Arguments: arguments})
	if err != nil {
		return "", fmt.Errorf("%s: %w", tool, err)
	}
	var text []string
	for _, content := range result.Content {
		if t, ok := content.(*mcp.TextContent); ok {
			text = append(text, t.Text)
		}
	}
	if result.IsError {
		return "", fmt.Errorf("%s: %w", tool, errors.New(strings.Join(text, " ")))
	}
	return strings.Join(text, "\n"), nil
}
