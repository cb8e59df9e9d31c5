package e2e

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
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

func TestDemoShowsWhatBackendsSayAndARestartKeepsLogins(t *testing.T) {
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
	for _, want := range []string{p.Login, p.Name} {
		if !strings.Contains(out, want) {
			t.Errorf("the demo does not show %s:\n%s", want, out)
		}
	}
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
	for _, want := range []string{"renamed-coder", "Renamed Person"} {
		if !strings.Contains(out, want) {
			t.Errorf("after renaming the demo does not show %s:\n%s", want, out)
		}
	}
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
