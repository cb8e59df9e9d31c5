package mcpserver_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"chatelaine.dev/examples/mcpserver/payroll"
	"chatelaine.dev/examples/mcpserver/repos"
	"chatelaine.dev/examples/mcpserver/status"
)

func TestReposShowsEachPersonTheirOwnRepositoriesInEveryEra(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	tokens := map[string]string{"alice-codes": token(t, w.octohubAuth, "alice"), "bob-builds": token(t, w.octohubAuth, "bob")}
	for _, era := range eras() {
		for login, tok := range tokens {
			t.Run(era+" "+login, func(t *testing.T) {
				t.Parallel()
				s, err := connect(t, w.repos.url, era, bearer(tok), nil)
				if err != nil {
					t.Fatal(err)
				}
				var u repos.User
				if call(t.Context(), t, s, "whoami", nil, &u); u.Login != login {
					t.Errorf("whoami: %+v", u)
				}
				var list repos.Repositories
				call(t.Context(), t, s, "list_repositories", map[string]any{}, &list)
				if list.Owner != login || len(list.Repositories) < 2 || !strings.HasPrefix(list.Repositories[0].FullName, login+"/") {
					t.Errorf("list_repositories: %+v", list)
				}
				call(t.Context(), t, s, "list_repositories", map[string]any{"language": "cobol"}, &list)
				if len(list.Repositories) != 0 {
					t.Errorf("list_repositories in Cobol: %+v", list)
				}
				res, err := s.ReadResource(t.Context(), &mcp.ReadResourceParams{URI: "octohub://repositories"})
				if err != nil || !strings.Contains(res.Contents[0].Text, login+"/") {
					t.Errorf("the resource: %+v, %v", res, err)
				}
				if era == "2026-07-28" && res.CacheScope != "private" {
					t.Errorf("others may cache one person's repositories: %q", res.CacheScope)
				}
				prompt, err := s.GetPrompt(t.Context(), &mcp.GetPromptParams{Name: "review_repository", Arguments: map[string]string{"repository": "orchard"}})
				if err != nil || len(prompt.Messages) != 1 {
					t.Errorf("the prompt: %+v, %v", prompt, err)
				}
			})
		}
	}
}

func TestPayrollShowsEachPersonTheirOwnPayslipInEveryEra(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	tokens := map[string]string{
		"Alice Archer": w.exchange(t, token(t, w.corpTokens, "alice"), payroll.Audience, payroll.Scope),
		"Bob Bridges":  w.exchange(t, token(t, w.corpTokens, "bob"), payroll.Audience, payroll.Scope),
	}
	net := map[string]string{"Alice Archer": "3412.55", "Bob Bridges": "3187.20"}
	for _, era := range eras() {
		for name, tok := range tokens {
			t.Run(era+" "+name, func(t *testing.T) {
				t.Parallel()
				s, err := connect(t, w.payroll.url, era, bearer(tok), nil)
				if err != nil {
					t.Fatal(err)
				}
				var e payroll.Employee
				if call(t.Context(), t, s, "whoami", nil, &e); e.Name != name || e.Subject == "" || e.Username == "" {
					t.Errorf("whoami: %+v", e)
				}
				var slip payroll.Payslip
				if call(t.Context(), t, s, "my_payslip", nil, &slip); slip.Name != name || slip.Net != net[name] {
					t.Errorf("my_payslip: %+v", slip)
				}
				if res, err := s.ReadResource(t.Context(), &mcp.ReadResourceParams{URI: "payroll://policy"}); err != nil || res.Contents[0].Text == "" {
					t.Errorf("the resource: %+v, %v", res, err)
				}
				if p, err := s.GetPrompt(t.Context(), &mcp.GetPromptParams{Name: "explain_payslip"}); err != nil || len(p.Messages) != 1 {
					t.Errorf("the prompt: %+v, %v", p, err)
				}
			})
		}
	}
}

func TestPayrollRefusesTokensThatAreNotForIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	mine := token(t, w.corpTokens, "alice")
	good := w.exchange(t, mine, payroll.Audience, payroll.Scope)
	parts := strings.Split(good, ".")
	metadata := `resource_metadata="` + w.payroll.url + `/.well-known/oauth-protected-resource/mcp"`
	for name, c := range map[string]struct {
		header http.Header
		status int
		want   []string
	}{
		"no token":           {nil, 401, []string{`scope="payroll:read"`, metadata}},
		"another scheme":     {http.Header{"Authorization": {"Basic YTpi"}}, 401, []string{metadata}},
		"the login's token":  {bearer(mine), 401, []string{`error="invalid_token"`, metadata}},
		"another audience":   {bearer(w.exchange(t, mine, "other", payroll.Scope)), 401, []string{`error="invalid_token"`}},
		"unsigned":           {bearer(parts[0] + "." + parts[1] + "."), 401, []string{`error="invalid_token"`}},
		"changed":            {bearer(parts[0] + "." + parts[1] + "x." + parts[2]), 401, []string{`error="invalid_token"`}},
		"without the scope":  {bearer(w.exchange(t, mine, payroll.Audience, "payroll:nothing")), 403, []string{`error="insufficient_scope"`, `scope="payroll:read"`}},
		"good":               {bearer(good), 200, nil},
		"good in lower case": {http.Header{"Authorization": {"bearer " + good}}, 200, nil},
	} {
		got, header, body := raw(t, w.payroll.url, "tools/list", c.header)
		if got != c.status {
			t.Errorf("%s: %d %s, want %d", name, got, body, c.status)
		}
		for _, want := range c.want {
			if challenge := header.Get("WWW-Authenticate"); !strings.Contains(challenge, want) {
				t.Errorf("%s: challenge %q lacks %q", name, challenge, want)
			}
		}
		if strings.Contains(body+header.Get("WWW-Authenticate"), parts[2]) {
			t.Errorf("%s: the answer quotes the token", name)
		}
	}
	resp, err := http.Get(w.payroll.url + "/.well-known/oauth-protected-resource/mcp")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("metadata: %d", resp.StatusCode)
	}
}

func TestATokenThatOctohubRejectsIsRejectedByReposAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	tok := token(t, w.octohubAuth, "alice")
	if got, _, body := raw(t, w.repos.url, "tools/list", bearer(tok)); got != http.StatusOK {
		t.Fatalf("%d %s", got, body)
	}
	s, err := connect(t, w.repos.url, "2025-11-25", bearer(tok), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.Post(w.octohubAdmin+"/revoke-all?user=alice", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	got, header, _ := raw(t, w.repos.url, "tools/list", bearer(tok))
	if got != http.StatusUnauthorized || !strings.Contains(header.Get("WWW-Authenticate"), `error="invalid_token"`) {
		t.Errorf("after the revocation: %d %q", got, header.Get("WWW-Authenticate"))
	}
	if _, err := s.CallTool(t.Context(), &mcp.CallToolParams{Name: "whoami"}); err == nil {
		t.Error("an open session outlives its token")
	}
	if got, header, _ := raw(t, w.repos.url, "tools/list", nil); got != http.StatusUnauthorized || strings.Contains(header.Get("WWW-Authenticate"), "error=") {
		t.Errorf("without a token: %d %q", got, header.Get("WWW-Authenticate"))
	}
}

func TestASessionBelongsToWhoeverOpenedIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	alice, bob := token(t, w.octohubAuth, "alice"), token(t, w.octohubAuth, "bob")
	s, err := connect(t, w.repos.url, "2025-11-25", bearer(alice), nil)
	if err != nil {
		t.Fatal(err)
	}
	header := bearer(bob)
	header.Set("Mcp-Session-Id", s.ID())
	header.Set("Mcp-Protocol-Version", "2025-11-25")
	if got, _, body := raw(t, w.repos.url, "tools/list", header); got != http.StatusForbidden {
		t.Errorf("bob in alice's session: %d %s", got, body)
	}
	header.Set("Mcp-Session-Id", "nobody's")
	if got, _, _ := raw(t, w.repos.url, "tools/list", header); got != http.StatusNotFound {
		t.Errorf("an unknown session: %d, want 404", got)
	}
}

func TestStatusRefusesEveryCredential(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, name := range []string{"Authorization", "Cookie", "X-Api-Key", "Proxy-Authorization", "X-Auth-Token", "Private-Token", "Dpop", "Api-Key", "X-Goog-Api-Key"} {
		got, _, body := raw(t, w.status.url, "tools/list", http.Header{name: {"hush"}})
		if got != http.StatusBadRequest || strings.Contains(body, "hush") {
			t.Errorf("%s: %d %s", name, got, body)
		}
	}
	if got, _, body := raw(t, w.status.url, "tools/list", http.Header{"Traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}); got != http.StatusOK {
		t.Errorf("without a credential: %d %s", got, body)
	}
}

func TestStatusSaysThatNobodyIsCallingInEveryEra(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, era := range eras() {
		t.Run(era, func(t *testing.T) {
			t.Parallel()
			s, err := connect(t, w.status.url, era, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			var got status.Caller
			if call(t.Context(), t, s, "whoami", nil, &got); got.Caller != "nobody: no credential came" {
				t.Errorf("whoami: %+v", got)
			}
			if s, err := connect(t, w.status.url, era, bearer("a-token"), nil); err == nil {
				r, err := s.CallTool(t.Context(), &mcp.CallToolParams{Name: "whoami"})
				t.Errorf("whoami with a token: %+v, %v", r, err)
			}
		})
	}
}

func TestStatusTellsWhichServicesAnswerInEveryEra(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, era := range eras() {
		t.Run(era, func(t *testing.T) {
			t.Parallel()
			s, err := connect(t, w.status.url, era, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			var all status.Services
			call(t.Context(), t, s, "service_status", map[string]any{}, &all)
			got := map[string]string{}
			for _, one := range all.Services {
				got[one.Name] = one.Status
			}
			if len(got) != 3 || got["corp"] != "up" || got["octohub"] != "up" || got["gone"] != "down" {
				t.Errorf("service_status: %v", got)
			}
			if r := call(t.Context(), t, s, "service_status", map[string]any{"service": "moon"}, nil); !r.IsError || !strings.Contains(text(r), "corp") {
				t.Errorf("an unknown service: %+v", r)
			}
		})
	}
}

func TestCountStreamsItsProgressInEveryEra(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, era := range eras() {
		t.Run(era, func(t *testing.T) {
			t.Parallel()
			seen := make(chan float64, 16)
			s, err := connect(t, w.status.url, era, nil, &mcp.ClientOptions{
				ProgressNotificationHandler: func(_ context.Context, r *mcp.ProgressNotificationClientRequest) { seen <- r.Params.Progress },
			})
			if err != nil {
				t.Fatal(err)
			}
			// The second number must be here before the call has ended: it waits
			// until the test has seen the first.
			params := &mcp.CallToolParams{Name: "count", Arguments: map[string]any{"to": 2, "interval_ms": 300}}
			params.SetProgressToken("p")
			var wg sync.WaitGroup
			var ended time.Time
			wg.Go(func() {
				if r, err := s.CallTool(t.Context(), params); err != nil || r.IsError {
					t.Errorf("count: %+v, %v", r, err)
				}
				ended = time.Now()
			})
			first := <-seen
			arrived := time.Now()
			wg.Wait()
			if second := <-seen; first != 1 || second != 2 || ended.Sub(arrived) < 200*time.Millisecond {
				t.Errorf("progress %v, %v; the first came %v before the end", first, second, ended.Sub(arrived))
			}
			for _, bad := range []map[string]any{{"to": 0}, {"to": 1001}, {"to": 1, "interval_ms": -1}} {
				if r := call(t.Context(), t, s, "count", bad, nil); !r.IsError {
					t.Errorf("count %v: accepted", bad)
				}
			}
		})
	}
}

func TestReportAsksThePersonInEveryEraThatCanAsk(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, era := range eras()[1:] { // elicitation came with 2025-06-18
		t.Run(era, func(t *testing.T) {
			t.Parallel()
			answer := func(action string, content map[string]any) *mcp.ClientOptions {
				return &mcp.ClientOptions{ElicitationHandler: func(_ context.Context, r *mcp.ElicitRequest) (*mcp.ElicitResult, error) {
					if !strings.Contains(r.Params.Message, "corp") {
						t.Errorf("asked %q", r.Params.Message)
					}
					return &mcp.ElicitResult{Action: action, Content: content}, nil
				}}
			}
			s, err := connect(t, w.status.url, era, nil, answer("accept", map[string]any{"severity": "high", "summary": "it is slow in " + era}))
			if err != nil {
				t.Fatal(err)
			}
			var report status.Report
			r := call(t.Context(), t, s, "report_incident", map[string]any{"service": "corp"}, &report)
			if r.IsError || report.Status != "recorded" || report.Incident == nil || report.Incident.Severity != "high" {
				t.Errorf("report: %+v %s", report, text(r))
			}
			res, err := s.ReadResource(t.Context(), &mcp.ReadResourceParams{URI: "status://incidents"})
			if err != nil || !strings.Contains(res.Contents[0].Text, "it is slow in "+era) {
				t.Errorf("the resource: %+v, %v", res, err)
			}
			s, err = connect(t, w.status.url, era, nil, answer("decline", nil))
			if err != nil {
				t.Fatal(err)
			}
			report = status.Report{}
			if call(t.Context(), t, s, "report_incident", map[string]any{"service": "corp"}, &report); report.Status != "dropped" {
				t.Errorf("declined: %+v", report)
			}
			s, err = connect(t, w.status.url, era, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			if r := call(t.Context(), t, s, "report_incident", map[string]any{"service": "corp"}, nil); !r.IsError {
				t.Errorf("a client that cannot ask: %+v", r)
			}
		})
	}
}

func TestBackendSwitches(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, c := range []struct {
		fault string
		want  []int
	}{
		{`{"unauthorized":1}`, []int{401, 200}},
		{`{"unauthorized":-1}`, []int{401, 401}},
		{`{"down":true}`, []int{503, 503}},
		{`{"delayMs":1}`, []int{200}},
		{`{}`, []int{200}},
	} {
		w.status.set(t, c.fault)
		for _, want := range c.want {
			got, header, _ := raw(t, w.status.url, "tools/list", nil)
			if got != want || (want == 401) != strings.Contains(header.Get("WWW-Authenticate"), "invalid_token") {
				t.Errorf("%s: %d %q, want %d", c.fault, got, header.Get("WWW-Authenticate"), want)
			}
		}
	}
	resp, err := http.Get(w.status.faults + "/requests")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var counts strings.Builder
	if err := resp.Write(&counts); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(counts.String(), `"tools/list":{"requests":3,"succeeded":3}`) || !strings.Contains(counts.String(), `"HTTP POST":{"requests":8,"succeeded":3}`) {
		t.Errorf("counts: %s", counts.String())
	}
}

func TestToolsCallOnInTheTraceOfTheirRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	tok := token(t, w.octohubAuth, "alice")
	const trace = "0af7651916cd43dd8448eb211c80319c"
	for _, era := range []string{"2025-11-25", "2026-07-28"} {
		s, err := connect(t, w.repos.url, era, bearer(tok), nil)
		if err != nil {
			t.Fatal(err)
		}
		// Only this call has the trace: in a session the first request had none.
		ctx := context.WithValue(t.Context(), traceKey{}, "00-"+trace+"-b7ad6b7169203331-01")
		for len(w.outbound.traceparents) > 0 {
			<-w.outbound.traceparents
		}
		call(ctx, t, s, "list_repositories", map[string]any{}, nil)
		var joined []string
		for len(w.outbound.traceparents) > 0 {
			if tp := <-w.outbound.traceparents; strings.Contains(tp, trace) {
				joined = append(joined, tp)
			}
		}
		if len(joined) < 2 {
			t.Errorf("%s: %d of the tool's calls joined the trace", era, len(joined))
		}
	}
}

func TestToolsAreDescribed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s, err := connect(t, w.status.url, "2026-07-28", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	list, err := s.ListTools(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, tool := range list.Tools {
		names = append(names, tool.Name)
		if tool.Description == "" || tool.Title == "" || tool.InputSchema == nil {
			t.Errorf("%s: %+v", tool.Name, tool)
		}
	}
	if want := []string{"count", "report_incident", "service_status", "whoami"}; !slices.Equal(slices.Sorted(slices.Values(names)), want) {
		t.Errorf("tools %v, want %v", names, want)
	}
}
