// What the stateless era deprecates, the session era still has.
//
//nolint:staticcheck // the SDK marks it as deprecated
package aggregate_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// asking adds a tool that asks the client three things before it answers.
func (s *server) asking() *server {
	mcp.AddTool(s.mcp, &mcp.Tool{Name: "ask"}, func(ctx context.Context, r *mcp.CallToolRequest, _ echoIn) (*mcp.CallToolResult, any, error) {
		answer, err := r.Session.Elicit(ctx, &mcp.ElicitParams{Message: "who?", RequestedSchema: map[string]any{"type": "object", "properties": map[string]any{"name": map[string]any{"type": "string"}}}})
		if err != nil {
			return nil, nil, err
		}
		sample, err := r.Session.CreateMessage(ctx, &mcp.CreateMessageParams{MaxTokens: 5})
		if err != nil {
			return nil, nil, err
		}
		roots, err := r.Session.ListRoots(ctx, nil)
		if err != nil {
			return nil, nil, err
		}
		text := s.name + ":" + answer.Content["name"].(string) + ":" + sample.Model + ":" + roots.Roots[0].URI
		return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: text}}}, nil, nil
	})
	return s
}

func TestAToolCanAskTheClientThroughAnyReplica(t *testing.T) {
	t.Parallel()
	h := newHouse(t, 3, newServer(t, "a", serverOptions{}).asking(), newServer(t, "b", serverOptions{events: true}).asking())
	var asked atomic.Int32
	client := mcp.NewClient(&mcp.Implementation{Name: "agent", Version: "1"}, &mcp.ClientOptions{
		ElicitationHandler: func(_ context.Context, r *mcp.ElicitRequest) (*mcp.ElicitResult, error) {
			asked.Add(1)
			if r.Params.Message != "who?" {
				return nil, errors.New("another question")
			}
			return &mcp.ElicitResult{Action: "accept", Content: map[string]any{"name": "alice"}}, nil
		},
		CreateMessageHandler: func(context.Context, *mcp.CreateMessageRequest) (*mcp.CreateMessageResult, error) {
			return &mcp.CreateMessageResult{Model: "m", Role: "assistant", Content: &mcp.TextContent{Text: "x"}}, nil
		},
	})
	client.AddRoots(&mcp.Root{URI: "file:///home"})
	c, err := client.Connect(t.Context(), &mcp.StreamableClientTransport{Endpoint: h.URL, MaxRetries: -1}, &mcp.ClientSessionOptions{ProtocolVersion: eraSession})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	for range 3 {
		for _, b := range []string{"a", "b"} {
			res := callTool(t, c, b+"_ask", nil)
			if got, want := textOf(t, res.Content), b+":alice:m:file:///home"; got != want {
				t.Errorf("the tool answers %q, want %q", got, want)
			}
		}
	}
	if asked.Load() != 6 {
		t.Errorf("the client was asked %d times, want 6", asked.Load())
	}
}

func TestLogMessagesComeFromTheLevelOnThatTheClientWants(t *testing.T) {
	t.Parallel()
	repos := newServer(t, "repos", serverOptions{})
	mcp.AddTool(repos.mcp, &mcp.Tool{Name: "log"}, func(ctx context.Context, r *mcp.CallToolRequest, _ echoIn) (*mcp.CallToolResult, any, error) {
		for _, level := range []mcp.LoggingLevel{"debug", "error"} {
			if err := r.Session.Log(ctx, &mcp.LoggingMessageParams{Level: level, Data: string(level)}); err != nil {
				return nil, nil, err
			}
		}
		return &mcp.CallToolResult{}, nil, nil
	})
	h := newHouse(t, 2, repos)
	messages := make(chan string, 10)
	c := h.connect(t, eraSession, "alice", &mcp.ClientOptions{
		LoggingMessageHandler: func(_ context.Context, r *mcp.LoggingMessageRequest) { messages <- r.Params.Data.(string) },
	})
	if err := c.SetLoggingLevel(t.Context(), &mcp.SetLoggingLevelParams{Level: "warning"}); err != nil {
		t.Fatal(err)
	}
	callTool(t, c, "repos_log", nil)
	if got := receive(t, messages, "a log message"); got != "error" {
		t.Errorf("the log message is %q", got)
	}
}
