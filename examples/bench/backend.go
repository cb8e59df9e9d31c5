package bench

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"chatelaine.dev/examples/mcpserver"
)

const (
	// backendName is the backend's name in the resources.
	backendName = "bench"
	// toolName is its only tool.
	toolName = "echo"
	// stateless and sessions are the protocol versions of the two eras.
	stateless, sessions = "2026-07-28", "2025-11-25"
	// tokenPrefix begins octohub's tokens, and no other's.
	tokenPrefix = "ohu_"
)

type echoInput struct {
	Text string `json:"text"`
}

var errNoCredential = errors.New("the call carries no token of octohub")

// echo answers the text that it was given, to callers with a token of octohub.
// It must be one and no other: a gateway that passed its own caller's token on
// would fail here.
func echo(_ context.Context, req *mcp.CallToolRequest, in echoInput) (*mcp.CallToolResult, any, error) {
	if token, ok := mcpserver.Bearer(req.Extra.Header); !ok || !strings.HasPrefix(token, tokenPrefix) {
		return nil, nil, errNoCredential
	}
	return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: in.Text}}}, nil, nil
}

// Backend is an MCP server of both eras with the one tool echo. It answers with
// an event stream, as the SDK does by default, or with plain JSON.
func Backend(plainJSON bool) http.Handler {
	server := mcpserver.New(backendName, "Echo", "Answers what it is sent.")
	mcp.AddTool(server, &mcp.Tool{
		Name: toolName, Description: "Answers the text that it is given.", Annotations: &mcp.ToolAnnotations{ReadOnlyHint: true},
	}, echo)
	get := func(*http.Request) *mcp.Server { return server }
	without := mcp.NewStreamableHTTPHandler(get, &mcp.StreamableHTTPOptions{Stateless: true, JSONResponse: plainJSON})
	with := mcp.NewStreamableHTTPHandler(get, &mcp.StreamableHTTPOptions{JSONResponse: plainJSON})
	mux := http.NewServeMux()
	mux.HandleFunc(mcpserver.Path, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("MCP-Protocol-Version") >= stateless {
			without.ServeHTTP(w, r)
			return
		}
		with.ServeHTTP(w, r)
	})
	return mux
}
