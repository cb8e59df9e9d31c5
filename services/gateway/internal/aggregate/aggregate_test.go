package aggregate_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// combinations are the eras of client and backends.
func combinations(t *testing.T, test func(t *testing.T, client string, opts serverOptions)) {
	t.Helper()
	for _, client := range eras() {
		for _, opts := range []serverOptions{{}, {json: true}, {stateless: true, json: true}, {stateless: true, only: true}, {stateless: true, only: true, json: true}} {
			t.Run(fmt.Sprintf("client %s, backend stateless=%v only=%v json=%v", client, opts.stateless, opts.only, opts.json), func(t *testing.T) {
				t.Parallel()
				test(t, client, opts)
			})
		}
	}
}

func TestAClientReachesToolsPromptsAndResourcesOfAllBackends(t *testing.T) {
	t.Parallel()
	combinations(t, func(t *testing.T, version string, opts serverOptions) {
		repos := newServer(t, "repos", opts).echo("list_issues").echo("get").prompt("review").resource("repo://one").template("repo://{owner}/{name}")
		payroll := newServer(t, "payroll", serverOptions{stateless: !opts.stateless}).echo("get").prompt("review").resource("pay://me")
		h := newHouse(t, 2, repos, payroll)
		c := h.connect(t, version, "alice", nil)

		wantEqual(t, "tools", toolNames(t, c), []string{"payroll_get", "repos_get", "repos_list_issues"})
		for _, tool := range []string{"payroll_get", "repos_get", "repos_list_issues"} {
			backend, inner, _ := strings.Cut(tool, "_")
			res := callTool(t, c, tool, map[string]any{"text": "hi"})
			if got, want := textOf(t, res.Content), backend+":"+inner+":hi"; got != want {
				t.Errorf("%s answers %q, want %q", tool, got, want)
			}
		}

		prompts, err := c.ListPrompts(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, p := range prompts.Prompts {
			names = append(names, p.Name)
		}
		wantEqual(t, "prompts", names, []string{"payroll_review", "repos_review"})
		prompt, err := c.GetPrompt(t.Context(), &mcp.GetPromptParams{Name: "repos_review"})
		if err != nil {
			t.Fatal(err)
		}
		if got := textOf(t, []mcp.Content{prompt.Messages[0].Content}); got != "repos:review" {
			t.Errorf("the prompt says %q", got)
		}

		for uri, want := range map[string]string{
			"repo://one":      "repos:repo://one",
			"pay://me":        "payroll:pay://me",
			"repo://alice/go": "repos:repo://{owner}/{name}", // by its template
		} {
			res, err := c.ReadResource(t.Context(), &mcp.ReadResourceParams{URI: uri})
			if err != nil {
				t.Fatalf("reading %s: %v", uri, err)
			}
			if got := res.Contents[0].Text; got != want || res.Contents[0].URI != uri {
				t.Errorf("%s is %q of %s, want %q", uri, got, res.Contents[0].URI, want)
			}
			if version == eraStateless && !opts.stateless && strings.HasPrefix(uri, "repo:") && res.CacheScope != "private" {
				t.Errorf("%s may be cached as %q", uri, res.CacheScope)
			}
		}
		templates, err := c.ListResourceTemplates(t.Context(), nil)
		if err != nil || len(templates.ResourceTemplates) != 1 || templates.ResourceTemplates[0].URITemplate != "repo://{owner}/{name}" {
			t.Errorf("templates: %+v, %v", templates, err)
		}
		if _, err := c.ReadResource(t.Context(), &mcp.ReadResourceParams{URI: "unknown://x"}); err == nil {
			t.Error("an unknown resource can be read")
		}
		if _, err := c.CallTool(t.Context(), &mcp.CallToolParams{Name: "get"}); err == nil {
			t.Error("a tool without a backend can be called")
		}
		if _, err := c.CallTool(t.Context(), &mcp.CallToolParams{Name: "repos_missing"}); err == nil {
			t.Error("a tool that no backend has can be called")
		}
		// After all these errors the client still works.
		if got := textOf(t, callTool(t, c, "repos_get", nil).Content); got != "repos:get:" {
			t.Errorf("the tool answers %q", got)
		}
	})
}

func TestACallIsOneRequestToOneBackend(t *testing.T) {
	t.Parallel()
	combinations(t, func(t *testing.T, version string, opts serverOptions) {
		repos := newServer(t, "repos", opts).echo("get").resource("repo://one")
		payroll := newServer(t, "payroll", opts).echo("get").resource("pay://one")
		h := newHouse(t, 1, repos, payroll)
		c := h.connect(t, version, "alice", nil)
		callTool(t, c, "repos_get", nil)
		if _, err := c.ListResources(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		repos.forget()
		payroll.forget()
		callTool(t, c, "repos_get", map[string]any{"text": "x"})
		if repos.total() != 1 || payroll.total() != 0 {
			t.Errorf("a tool call made %d and %d requests, want 1 and 0", repos.total(), payroll.total())
		}
		if _, err := c.ReadResource(t.Context(), &mcp.ReadResourceParams{URI: "repo://one"}); err != nil {
			t.Fatal(err)
		}
		if repos.total() != 2 || payroll.total() != 0 {
			t.Errorf("reading a resource made %d and %d requests, want 1 and 0", repos.total()-1, payroll.total())
		}
	})
}

func TestABackendSeesTheCallAsTheClientMadeIt(t *testing.T) {
	t.Parallel()
	repos := newServer(t, "repos", serverOptions{}).echo("get")
	h := newHouse(t, 1, repos)
	id := h.open(t, "alice", eraSession)
	body := `{ "jsonrpc":"2.0",  "id":"seven" , "method":"tools/call","params":{"arguments":{"text":"1.0e2\u00e9"} ,"name":"repos_get","_meta":{"x":1.0}} }`
	a := h.do(t, http.MethodPost, body, "Mcp-Session-Id", id, "Mcp-Protocol-Version", eraSession)
	if a.status != http.StatusOK || !strings.Contains(a.body, "repos:get:1.0e2é") {
		t.Fatalf("%d %s", a.status, a.body)
	}
	got := repos.last("tools/call")
	if want := strings.Replace(body, `"repos_get"`, `"get"`, 1); got.body != want {
		t.Errorf("the backend got\n%s\nwant\n%s", got.body, want)
	}
	if got.header.Get("Mcp-Session-Id") == id || got.header.Get("Mcp-Session-Id") == "" {
		t.Error("the backend did not get its own session id")
	}
	if got.header.Get("Mcp-Protocol-Version") != eraSession {
		t.Errorf("the backend got version %q", got.header.Get("Mcp-Protocol-Version"))
	}
}

func TestAStatelessBackendSeesTheNameInTheHeaderAsInTheBody(t *testing.T) {
	t.Parallel()
	repos := newServer(t, "repos", serverOptions{stateless: true}).echo("get")
	h := newHouse(t, 1, repos)
	body := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"repos_get","arguments":{},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"elicitation":{}}}}}`
	a := h.do(t, http.MethodPost, body, "Mcp-Protocol-Version", eraStateless, "Mcp-Method", "tools/call", "Mcp-Name", "repos_get", "Mcp-Param-Region", "eu")
	if a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	got := repos.last("tools/call")
	if got.header.Get("Mcp-Name") != "get" || got.header.Get("Mcp-Method") != "tools/call" || got.header.Get("Mcp-Param-Region") != "eu" {
		t.Errorf("the backend got the headers %v", got.header)
	}
	if want := strings.Replace(body, `"repos_get"`, `"get"`, 1); got.body != want {
		t.Errorf("the backend got\n%s\nwant\n%s", got.body, want)
	}
}

func TestAToolThatWantsItsArgumentsInHeadersServesOlderClients(t *testing.T) {
	t.Parallel()
	modern := newServer(t, "modern", serverOptions{stateless: true, only: true})
	modern.mcp.AddTool(&mcp.Tool{Name: "query", InputSchema: json.RawMessage(`{"type":"object","properties":{
		"region":{"type":"string","x-mcp-header":"Region"},
		"opts":{"type":"object","properties":{"limit":{"type":"integer","x-mcp-header":"Limit"},"dry":{"type":"boolean","x-mcp-header":"Dry"}}},
		"free":{"type":"string"}}}`)},
		func(_ context.Context, r *mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: string(r.Params.Arguments)}}}, nil
		})
	h := newHouse(t, 1, modern)
	for _, version := range eras() {
		c := h.connect(t, version, "alice", nil)
		wantEqual(t, "tools", toolNames(t, c), []string{"modern_query"})
		modern.forget()
		for range 3 {
			args := map[string]any{"region": "Zürich", "opts": map[string]any{"limit": 7, "dry": true}, "free": "x"}
			if res := callTool(t, c, "modern_query", args); res.IsError {
				t.Errorf("a client of %s: %s", version, textOf(t, res.Content))
			}
			if res := callTool(t, c, "modern_query", map[string]any{"free": "x"}); res.IsError {
				t.Errorf("a client of %s, without the arguments: %s", version, textOf(t, res.Content))
			}
		}
		want := 6
		if version == eraSession {
			want++ // the first call was refused, and the gateway has learned from it
		}
		if n := modern.count("tools/call"); n != want {
			t.Errorf("a client of %s: %d calls were made, want %d", version, n, want)
		}
		got := modern.last("limit").header
		if got.Get("Mcp-Param-Limit") != "7" || got.Get("Mcp-Param-Dry") != "true" || got.Get("Mcp-Param-Region") != "=?base64?WsO8cmljaA==?=" {
			t.Errorf("the headers are %v", got)
		}
	}
}

func TestAListGoesOnUntilEveryBackendIsThrough(t *testing.T) {
	t.Parallel()
	combinations(t, func(t *testing.T, version string, opts serverOptions) {
		var want []string
		small, large := opts, opts
		small.mcp, large.mcp = &mcp.ServerOptions{PageSize: 2}, &mcp.ServerOptions{PageSize: 100}
		many, few := newServer(t, "many", small), newServer(t, "few", large)
		for i := range 5 {
			many.echo(fmt.Sprintf("t%d", i))
			few.echo(fmt.Sprintf("t%d", i))
			want = append(want, fmt.Sprintf("many_t%d", i), fmt.Sprintf("few_t%d", i))
		}
		slices.Sort(want)
		h := newHouse(t, 2, many, few)
		c := h.connect(t, version, "alice", nil)
		wantEqual(t, "tools", toolNames(t, c), want)

		first, err := c.ListTools(t.Context(), nil)
		if err != nil || first.NextCursor == "" {
			t.Fatalf("the first page has no cursor: %v", err)
		}
		bob := h.connect(t, version, "bob", nil)
		if _, err := bob.ListTools(t.Context(), &mcp.ListToolsParams{Cursor: first.NextCursor}); err == nil {
			t.Error("bob can use alice's cursor")
		}
		if _, err := c.ListPrompts(t.Context(), &mcp.ListPromptsParams{Cursor: first.NextCursor}); err == nil {
			t.Error("the cursor of tools is good for prompts")
		}
		if _, err := c.ListTools(t.Context(), &mcp.ListToolsParams{Cursor: first.NextCursor[1:]}); err == nil {
			t.Error("a cursor that was changed is good")
		}
	})
}

func TestTheSameURIAtTwoBackendsLeadsToBoth(t *testing.T) {
	t.Parallel()
	combinations(t, func(t *testing.T, version string, opts serverOptions) {
		a := newServer(t, "a", opts).resource("file:///readme")
		b := newServer(t, "b", opts).resource("file:///readme")
		h := newHouse(t, 2, b, a)
		c := h.connect(t, version, "alice", nil)
		list, err := c.ListResources(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		got := make(map[string]string)
		for _, r := range list.Resources {
			res, err := c.ReadResource(t.Context(), &mcp.ReadResourceParams{URI: r.URI})
			if err != nil {
				t.Fatalf("reading %s: %v", r.URI, err)
			}
			got[r.URI] = res.Contents[0].Text
		}
		if len(got) != 2 || got["file:///readme"] != "a:file:///readme" || got["chatelaine+b:file:///readme"] != "b:file:///readme" {
			t.Errorf("the resources are %v", got)
		}
	})
}

func TestCompletionsComeFromTheBackendOfTheReference(t *testing.T) {
	t.Parallel()
	combinations(t, func(t *testing.T, version string, opts serverOptions) {
		complete := func(name string) *mcp.ServerOptions {
			return &mcp.ServerOptions{CompletionHandler: func(_ context.Context, r *mcp.CompleteRequest) (*mcp.CompleteResult, error) {
				ref := r.Params.Ref
				return &mcp.CompleteResult{Completion: mcp.CompletionResultDetails{Values: []string{name + ":" + ref.Name + ref.URI}}}, nil
			}}
		}
		one, two := opts, opts
		one.mcp, two.mcp = complete("a"), complete("b")
		h := newHouse(t, 1, newServer(t, "a", one).prompt("p").template("a://{x}"), newServer(t, "b", two).prompt("p").template("b://{x}"))
		c := h.connect(t, version, "alice", nil)
		for want, ref := range map[string]*mcp.CompleteReference{
			"b:p":       {Type: "ref/prompt", Name: "b_p"},
			"a:p":       {Type: "ref/prompt", Name: "a_p"},
			"b:b://{x}": {Type: "ref/resource", URI: "b://{x}"},
		} {
			res, err := c.Complete(t.Context(), &mcp.CompleteParams{Ref: ref, Argument: mcp.CompleteParamsArgument{Name: "x", Value: "y"}})
			if err != nil {
				t.Errorf("completing %+v: %v", ref, err)
				continue
			}
			wantEqual(t, "completion", res.Completion.Values, []string{want})
		}
	})
}

func TestProgressArrivesBeforeTheToolIsDone(t *testing.T) {
	t.Parallel()
	for _, version := range eras() {
		for _, stateless := range []bool{false, true} {
			t.Run(fmt.Sprintf("client %s, backend stateless=%v", version, stateless), func(t *testing.T) {
				t.Parallel()
				seen := make(chan struct{})
				repos := newServer(t, "repos", serverOptions{stateless: stateless, only: stateless})
				mcp.AddTool(repos.mcp, &mcp.Tool{Name: "slow"}, func(ctx context.Context, r *mcp.CallToolRequest, _ echoIn) (*mcp.CallToolResult, any, error) {
					if err := r.Session.NotifyProgress(ctx, &mcp.ProgressNotificationParams{ProgressToken: r.Params.GetProgressToken(), Message: "half"}); err != nil {
						return nil, nil, err
					}
					select {
					case <-seen: // the client has seen the progress while the call goes on
					case <-ctx.Done():
						return nil, nil, ctx.Err()
					}
					return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: "done"}}}, nil, nil
				})
				h := newHouse(t, 1, repos)
				c := h.connect(t, version, "alice", &mcp.ClientOptions{
					ProgressNotificationHandler: func(_ context.Context, r *mcp.ProgressNotificationClientRequest) {
						if r.Params.Message == "half" && r.Params.ProgressToken == "token-1" {
							close(seen)
						}
					},
				})
				params := &mcp.CallToolParams{Name: "repos_slow", Arguments: map[string]any{}}
				params.SetProgressToken("token-1")
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				res, err := c.CallTool(ctx, params)
				if err != nil {
					t.Fatal(err)
				}
				if got := textOf(t, res.Content); got != "done" {
					t.Errorf("the tool answers %q", got)
				}
			})
		}
	}
}

func TestACancelledCallEndsAtTheBackend(t *testing.T) {
	t.Parallel()
	for _, version := range eras() {
		for _, stateless := range []bool{false, true} {
			t.Run(fmt.Sprintf("client %s, backend stateless=%v", version, stateless), func(t *testing.T) {
				t.Parallel()
				started, ended := make(chan struct{}), make(chan struct{})
				repos := newServer(t, "repos", serverOptions{stateless: stateless, only: stateless, cancel: stateless})
				mcp.AddTool(repos.mcp, &mcp.Tool{Name: "wait"}, func(ctx context.Context, _ *mcp.CallToolRequest, _ echoIn) (*mcp.CallToolResult, any, error) {
					close(started)
					<-ctx.Done()
					close(ended)
					return nil, nil, ctx.Err()
				})
				h := newHouse(t, 1, repos)
				c := h.connect(t, version, "alice", nil)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go func() {
					<-started
					cancel()
				}()
				if _, err := c.CallTool(ctx, &mcp.CallToolParams{Name: "repos_wait", Arguments: map[string]any{}}); err == nil {
					t.Error("a cancelled call has a result")
				}
				select {
				case <-ended:
				case <-time.After(patience):
					t.Error("the backend goes on working")
				}
			})
		}
	}
}
