package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"testing"
	"time"
)

// need returns the first program of names that this machine has. In CI a missing
// one is a failure, elsewhere the test is skipped and says so.
func need(t *testing.T, what string, names ...string) string {
	t.Helper()
	for _, name := range names {
		if name == "" {
			continue
		}
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is missing: make deps installs it", what)
	}
	t.Skipf("%s is missing: make deps installs it", what)
	return ""
}

// script is a program in clients/ that speaks one JSON value a line.
type script struct {
	t    *testing.T
	in   io.WriteCloser
	out  *bufio.Scanner
	wait func() error
}

func startScript(t *testing.T, file string) *script {
	t.Helper()
	node := need(t, "Node.js", "node")
	if _, err := os.Stat("clients/node_modules"); err != nil {
		t.Fatalf("the clients' packages are not installed (make e2e-deps installs them): %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, node, file)
	cmd.Dir = "clients"
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 8<<20)
	return &script{t: t, in: in, out: lines, wait: cmd.Wait}
}

func (s *script) send(v any) {
	s.t.Helper()
	line, err := json.Marshal(v)
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.in.Write(append(line, '\n')); err != nil {
		s.t.Fatalf("write to the script: %v", err)
	}
}

// receive decodes the next line; one that holds an error fails the test.
func (s *script) receive(v any) {
	s.t.Helper()
	if !s.out.Scan() {
		s.t.Fatalf("the script ended: %v, %v", s.out.Err(), s.wait())
	}
	var problem struct{ Error, Stack string }
	if err := json.Unmarshal(s.out.Bytes(), &problem); err == nil && problem.Error != "" {
		s.t.Fatalf("the script failed: %s\n%s", problem.Error, problem.Stack)
	}
	if err := json.Unmarshal(s.out.Bytes(), v); err != nil {
		s.t.Fatalf("the script wrote %q: %v", s.out.Bytes(), err)
	}
}

// finish waits for a clean end.
func (s *script) finish() {
	s.t.Helper()
	s.in.Close()
	if err := s.wait(); err != nil {
		s.t.Fatalf("the script ended: %v", err)
	}
}
