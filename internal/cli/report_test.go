package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chatelaine.dev/internal/cli"
	"chatelaine.dev/internal/fault"
)

// serving runs a program that serves, until serve's error.
func serving(serve func(*flags) error, args ...string) outcome {
	var o outcome
	var stdout, stderr bytes.Buffer
	o.status = cli.Program[flags]{
		Name: "ledgerd", AdminAddress: ":8081", Serve: func(_ context.Context, f *flags) error { return serve(f) },
	}.Run(args, &stdout, &stderr)
	o.stdout, o.stderr = stdout.String(), stderr.String()
	return o
}

// runLoading runs a program that loads its resources and ends.
func runLoading(args ...string) outcome {
	return serving(func(f *flags) error {
		_, _, err := f.Load()
		return err
	}, args...)
}

// line is what a log line has, and what it has in addition for a resource.
type line struct {
	Time, Level, Msg, Service string
	Error                     struct{ Kind, Reason, Message, Cause, Context string }

	Rule, File, Kind, Name, Path string
	Document, Line, Column       int
}

// lines decodes a log in which each line is JSON.
func lines(t *testing.T, log string) []line {
	t.Helper()
	var all []line
	for text := range strings.Lines(log) {
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("not JSON: %s%v", text, err)
		}
		if l.Time == "" || l.Service != "ledgerd" || l.Error.Message == "" {
			t.Errorf("not like other lines of the log: %s", text)
		}
		all = append(all, l)
	}
	return all
}

func TestEachProblemOfAStartIsALineOfTheLog(t *testing.T) {
	t.Parallel()
	list := fault.New(fault.Precondition, "these ports are taken:\n\t8080\n\t9090")
	cause := fault.Wrap(fault.Invalid, errors.New("not base64"), "secret c/d is not a key")
	o := serving(func(*flags) error {
		return fmt.Errorf("start: %w", errors.Join(cause, fmt.Errorf("web: %w", list)))
	}, serveArgs()...)
	got := lines(t, o.stderr)
	if o.status != 2 || len(got) != 2 {
		t.Fatalf("status %d, %s", o.status, o.stderr)
	}
	for _, l := range got {
		if l.Level != "ERROR" || l.Msg != "ended with an error" {
			t.Errorf("%+v", l)
		}
	}
	if e := got[0].Error; e.Message != "secret c/d is not a key" || e.Cause != "not base64" || e.Context != "start: secret c/d is not a key" {
		t.Errorf("the first problem: %+v", e)
	}
	if e := got[1].Error; e.Message != list.Message || e.Kind != "precondition" || e.Context != "start: web: "+list.Message {
		t.Errorf("the second problem: %+v", e)
	}
}

func TestTheLogSaysWhichResourceIsNotValidAndWhere(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "set.yaml")
	bad := strings.ReplaceAll(goodSet, "remoteUrl", "remoteURI") + "\n---\nkind: Nonsense\n"
	if err := os.WriteFile(path, []byte(bad), 0o600); err != nil {
		t.Fatal(err)
	}
	o := runLoading(serveArgs("--config", path, "--log-level=error")...)
	got := lines(t, o.stderr)
	text := runLoading(serveArgs("--config", path, "--log-format=text")...).stderr
	if want := strings.Count(text, "error ") + 1; o.status != 2 || len(got) != want {
		t.Fatalf("status %d, %d lines, want %d:\n%s", o.status, len(got), want, o.stderr)
	}
	if last := got[len(got)-1]; last.Error.Reason != "resources_invalid" || last.Msg != "ended with an error" {
		t.Errorf("the last line: %+v", last)
	}
	found := false
	for _, l := range got[:len(got)-1] {
		if l.Level != "ERROR" || l.File != path || l.Document == 0 || l.Line == 0 || !strings.Contains(text, l.Error.Message) {
			t.Errorf("%+v", l)
		}
		found = found || l.Kind == "MCPServerEntry" && l.Name == "status" && strings.HasPrefix(l.Path, "spec.remote") && l.Document == 2
	}
	if !found {
		t.Errorf("no line has the wrong field's resource and path:\n%s", o.stderr)
	}
}

func TestMistakesOnTheCommandLineAreToldInTheFormatThatItAsksFor(t *testing.T) {
	for name, tt := range map[string]struct {
		args []string
		env  string
		json bool
	}{
		"by default":                {args: serveArgs("--nope"), json: true},
		"a missing flag":            {args: []string{"serve"}, json: true},
		"another command's":         {args: []string{"migrate", "--nope"}, json: true},
		"behind the mistake":        {args: serveArgs("--nope", "--log-format", "text")},
		"the last word":             {args: serveArgs("--nope", "--log-format=text", "--log-format=json"), json: true},
		"the environment":           {args: serveArgs("--nope"), env: "text"},
		"both":                      {args: serveArgs("--nope", "--log-format=json"), env: "text", json: true},
		"parsed, but wrong":         {args: serveArgs("--database-url=postgres://a:b@c/d"), json: true},
		"parsed, but wrong, text":   {args: serveArgs("--database-url=postgres://a:b@c/d", "--log-format=text")},
		"no format of that name":    {args: serveArgs("--log-format=xml")},
		"no command":                {args: []string{"--nope"}},
		"a command without a log":   {args: []string{"validate"}},
		"without a log, and failed": {args: []string{"healthcheck", "--timeout=0s"}},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.env != "" {
				t.Setenv("CHATELAINE_LOG_FORMAT", tt.env)
			}
			o := run(t, tt.args...)
			if o.status != 2 {
				t.Fatalf("status %d, %s", o.status, o.stderr)
			}
			if !tt.json {
				if !strings.HasPrefix(o.stderr, "ledgerd: ") {
					t.Errorf("not text: %s", o.stderr)
				}
				return
			}
			if got := lines(t, o.stderr); len(got) != 1 || got[0].Error.Kind != "invalid" {
				t.Errorf("%s", o.stderr)
			}
		})
	}
}
