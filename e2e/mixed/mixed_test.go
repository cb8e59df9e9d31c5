//go:build mixed

package mixed

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"chatelaine.dev/examples/browse"
	"chatelaine.dev/examples/demo"
	"chatelaine.dev/examples/journey"
	"chatelaine.dev/examples/people"
	"chatelaine.dev/examples/stack"
)

// What tools/mixed sets: folders with the programs of the two versions, and with
// the sets of resources of the version before.
const (
	beforeEnv = "CHATELAINE_MIXED_BEFORE"
	afterEnv  = "CHATELAINE_MIXED_AFTER"
	setsEnv   = "CHATELAINE_MIXED_SETS"
)

func folder(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv(name)
	if dir == "" {
		t.Fatalf("%s is not set: run `make mixed-test`", name)
	}
	return dir
}

// house is a deployment in which the versions are mixed.
type house struct {
	*stack.Stack
	account browse.Account
	broker  grpc.ClientConnInterface
	kept    *journey.Login // of the version before
}

func TestEveryMixOfTwoVersionsServes(t *testing.T) {
	before, after := folder(t, beforeEnv), folder(t, afterEnv)
	h := start(t, before, after)
	h.check(t)
	if err := h.Migrate(t.Context(), after); err != nil {
		t.Fatal(err)
	}
	h.check(t)

	// From one mix to the next one service is replaced: forwards and back.
	newer := map[string]bool{}
	for _, service := range []string{"gateway", "tokenbroker", "gateway", "authserver", "gateway", "tokenbroker", "gateway", "authserver"} {
		dir := after
		if newer[service] {
			dir = before
		}
		newer[service] = !newer[service]
		t.Logf("authserver new: %v, tokenbroker new: %v, gateway new: %v", newer["authserver"], newer["tokenbroker"], newer["gateway"])
		if err := h.Replace(t.Context(), service, dir); err != nil {
			t.Fatal(err)
		}
		h.check(t)
	}
	if newer["authserver"] || newer["tokenbroker"] || newer["gateway"] {
		t.Error("the last mix is not the first one: some were left out")
	}
}

func start(t *testing.T, before, after string) *house {
	t.Helper()
	ports, err := stack.FreePorts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	resources, err := os.ReadFile(filepath.Join(folder(t, setsEnv), "examples/stack/resources.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	directory, err := people.Load("")
	if err != nil {
		t.Fatal(err)
	}
	alice := directory.All()[0]
	s, err := stack.Start(t.Context(), stack.Config{
		Dir: filepath.Join(t.TempDir(), "stack"), BinDir: after, ServicesBinDir: before, Ports: ports, Throwaway: true,
		Resources: func(string) string { return ports.Rewrite(string(resources)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	h := &house{Stack: s, account: browse.Account{Username: alice.Username, Password: alice.Password.Reveal()}}
	t.Cleanup(func() {
		if t.Failed() {
			h.showLogs(t)
		}
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
		if _, err := stack.Remove(filepath.Dir(s.LogDir())); err != nil {
			t.Error(err)
		}
	})
	broker, err := s.DialBroker("operator")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = broker.Close() })
	h.broker = broker
	h.kept = h.logIn(t)
	return h
}

// showLogs shows what services think is wrong.
func (h *house) showLogs(t *testing.T) {
	for _, service := range []string{"authserver", "tokenbroker", "gateway"} {
		data, err := os.ReadFile(h.Log(service))
		if err != nil {
			t.Log(err)
		}
		for line := range bytes.Lines(data) {
			if bytes.Contains(line, []byte(`"level":"WARN"`)) || bytes.Contains(line, []byte(`"level":"ERROR"`)) {
				t.Logf("%s: %s", service, line)
			}
		}
	}
}

// check walks what people do, with the mix that runs.
func (h *house) check(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	if err := demo.Run(ctx, demo.Config{Stack: h.Stack, Account: h.account, Out: &out, Broker: h.broker}); err != nil {
		t.Fatalf("the demo: %v\n%s", err, &out)
	}
	token, err := h.kept.Client.Refresh(t.Context(), h.kept.Token.RefreshToken)
	if err != nil {
		t.Fatalf("the session from before the upgrade: %v", err)
	}
	h.kept.Token = token
	h.calls(t, h.kept)
	h.endsASession(t)
}

func (h *house) logIn(t *testing.T) *journey.Login {
	t.Helper()
	client := &http.Client{Timeout: 30 * time.Second}
	found, err := journey.Discover(t.Context(), client, h.MCPURL())
	if err != nil {
		t.Fatal(err)
	}
	registered, err := found.Register(t.Context(), client, "Mixed", "http://127.0.0.1:33418/callback")
	if err != nil {
		t.Fatal(err)
	}
	person, err := browse.New(browse.Options{Account: h.account})
	if err != nil {
		t.Fatal(err)
	}
	login, err := registered.Login(t.Context(), person)
	if err != nil {
		t.Fatal(err)
	}
	return login
}

// calls calls a tool of each backend.
func (h *house) calls(t *testing.T, login *journey.Login) {
	t.Helper()
	session, err := login.Connect(t.Context(), journey.ConnectOptions{})
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	defer session.Close()
	for _, tool := range []string{"repos_whoami", "payroll_whoami", "status_whoami"} {
		if _, err := journey.Call(t.Context(), session, tool, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// endsASession has the authserver end a session (a refresh token comes again after
// its successor was used), and the gateway hear of it from the broker.
func (h *house) endsASession(t *testing.T) {
	t.Helper()
	login := h.logIn(t)
	h.calls(t, login)
	second, err := login.Client.Refresh(t.Context(), login.Token.RefreshToken)
	if err == nil {
		_, err = login.Client.Refresh(t.Context(), second.RefreshToken)
	}
	if err != nil {
		t.Fatalf("refresh: %v", err)
	}
	if _, err := login.Client.Refresh(t.Context(), login.Token.RefreshToken); err == nil {
		t.Error("a refresh token whose successor was used is good again")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for h.status(ctx, second.AccessToken) != http.StatusUnauthorized {
		select {
		case <-ctx.Done():
			t.Error("the access token of an ended session is still accepted")
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (h *house) status(ctx context.Context, token string) int {
	const initialize = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"mixed","version":"1"}}}`
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.MCPURL(), strings.NewReader(initialize))
	if err != nil {
		return 0
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// Whoever upgrades has the set of before: it is valid, and means the same to both
// versions, which compare its digest.
func TestSetsOfTheVersionBeforeAreAccepted(t *testing.T) {
	sets := folder(t, setsEnv)
	var files []string
	for _, pattern := range []string{"examples/stack/resources.yaml", "docs/sets/*.yaml"} {
		found, err := filepath.Glob(filepath.Join(sets, pattern))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	if len(files) == 0 {
		t.Fatal("the version before has no sets")
	}
	for _, file := range files {
		for _, service := range []string{"authserver", "tokenbroker", "gateway"} {
			var out [2]string
			for i, dir := range []string{folder(t, beforeEnv), folder(t, afterEnv)} {
				text, err := exec.CommandContext(t.Context(), filepath.Join(dir, service), "validate", "--config", file).CombinedOutput()
				out[i] = fmt.Sprintf("%s%v", text, err)
			}
			if !strings.HasSuffix(out[1], "<nil>") {
				t.Errorf("%s refuses a set of the version before:\n%s\nwhich said:\n%s", service, out[1], out[0])
			}
		}
	}
}
