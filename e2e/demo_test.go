package e2e

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"chatelaine.dev/e2e/crowd"
	"chatelaine.dev/examples/browse"
	"chatelaine.dev/examples/demo"
	"chatelaine.dev/examples/journey"
	"chatelaine.dev/examples/stack"
)

// runDemo walks the demo on a stack of its own and returns what it printed.
func runDemo(t *testing.T, s *stack.Stack, p person) string {
	t.Helper()
	broker, err := s.DialBroker("operator")
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	var out bytes.Buffer
	err = demo.Run(t.Context(), demo.Config{
		Stack: s, Broker: broker, Out: &out,
		Account: browse.Account{Username: p.Username, Password: p.Password},
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	return out.String()
}

// checkDemo checks that the demo tells its steps in order, each login step in a
// few lines that name the address where it took place, and whom each backend saw.
func checkDemo(t *testing.T, out string, s *stack.Stack, username, login, name string) {
	t.Helper()
	corp, octohub := "localhost:"+strconv.Itoa(s.Ports().Corp), "localhost:"+strconv.Itoa(s.Ports().Octohub)
	sections := regexp.MustCompile(`(?m)^\d+\. `).Split(out, -1)[1:]
	wants := [][]string{ // how the section begins, and what else is in it
		{"The client asks the MCP URL without a token", s.MCPURL(), s.Issuer()},
		{"It registers itself\n", "client_id  "},
		{"Consent: " + username + " is told once", s.Issuer() + "/oauth/authorize", `presses "Approve and sign in"`},
		{"Leg 1: corp\n", "http://" + corp + "/", `presses "Sign in"`, s.Issuer() + "/oauth/callback/corp\n"},
		{"Leg 2: octohub\n", "http://" + octohub + "/", `presses "Authorize"`, s.Issuer() + "/oauth/callback/octohub\n"},
		{"The client redeems its code", "sub   usr_", "tsid  ses_", "aud   " + s.MCPURL()},
		{"Tools of all backends", "repos_whoami", "payroll_whoami", "status_whoami"},
		{"Call repos_whoami\n", "repos says        the caller is " + login + " (" + name + ")\n", "credential.issued success backend=repos strategy=upstreamInject provider=octohub trace="},
		{"Call payroll_whoami\n", "payroll says      the caller is " + username + " (" + name + ")\n", "credential.issued success backend=payroll strategy=tokenExchange provider=corp trace="},
		{"Call status_whoami\n", "status says       the caller is nobody: no credential came\n", "credential.issued success backend=status strategy=unauthenticated trace="},
	}
	if len(sections) != len(wants) {
		t.Fatalf("the demo has %d steps, want %d:\n%s", len(sections), len(wants), out)
	}
	for i, want := range wants {
		section := sections[i]
		if !strings.HasPrefix(section, want[0]) || strings.Count(section, "\n   ") > 5 {
			t.Errorf("step %d is to begin with %q and have five lines at most:\n%s", i+1, want[0], section)
		}
		for _, text := range want[1:] {
			if !strings.Contains(section, text) {
				t.Errorf("step %d does not show %q:\n%s", i+1, text, section)
			}
		}
		if strings.HasPrefix(want[0], "Call ") && !regexp.MustCompile(`\n   trace +[0-9a-f]{32}\n`).MatchString(section) {
			t.Errorf("step %d shows no trace:\n%s", i+1, section)
		}
	}
}

func TestDemoShowsEachStepAndWhatBackendsSayAndARestartKeepsLogins(t *testing.T) {
	needProcesses(t)
	t.Parallel()
	dir := t.TempDir()
	ports, err := stack.FreePorts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := personNumber(0) // another stack: nobody's data but its own
	file := filepath.Join(dir, "people.yaml")
	if err := crowd.Write(file); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = stack.Remove(filepath.Join(dir, "stack")) }) // for root, Postgres' data lies elsewhere
	start := func() *stack.Stack {
		t.Helper()
		// t's own context ends before its cleanups run.
		s, err := stack.Start(context.WithoutCancel(t.Context()), stack.Config{Dir: filepath.Join(dir, "stack"), BinDir: shared.binDir, Ports: ports, PeopleFile: file})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Stop() })
		return s
	}

	s := start()
	out := runDemo(t, s, p)
	checkDemo(t, out, s, p.Username, p.Login, p.Name)
	login, err := newClientAt(t, s.MCPURL()).Login(t.Context(), p.browser(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}

	// The same people under other names.
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	renamed := strings.NewReplacer(p.Login, "renamed-coder", p.Name, "Renamed Person").Replace(string(text))
	if err := os.WriteFile(file, []byte(renamed), 0o600); err != nil {
		t.Fatal(err)
	}
	s = start()
	out = runDemo(t, s, p)
	checkDemo(t, out, s, p.Username, "renamed-coder", "Renamed Person")
	if strings.Contains(out, p.Login) || strings.Contains(out, p.Name) {
		t.Errorf("after renaming the demo still shows %s or %s:\n%s", p.Login, p.Name, out)
	}

	// The login from before the restart goes on, refresh and all.
	fresh, err := login.Client.Refresh(t.Context(), login.Token.RefreshToken)
	if err != nil {
		t.Fatalf("refresh after a restart of everything: %v", err)
	}
	login.Token = fresh
	session := connect(t, login, journey.ConnectOptions{})
	for tool, want := range map[string]string{"repos_whoami": "renamed-coder", "payroll_whoami": "Renamed Person"} {
		if got := call(t, session, tool, nil); !strings.Contains(got, want) {
			t.Errorf("after a restart %s says %q, want %s", tool, got, want)
		}
	}
}
