//go:build compose

package compose

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// leastTests is how many of the end-to-end tests can run against containers.
const leastTests = 15

// killEvery is how many tests end between two kills.
const killEvery = 4

// suite is one run of the end-to-end tests.
type suite struct {
	project *project
	victims []string // to be killed while tests run, in this order
	deaths  []death
	tests   map[string]*testRun // by name
	output  bytes.Buffer        // what is no test's
}

// death is when a replica was killed.
type death struct {
	service string
	at      time.Time
	gone    time.Time // what begins after it cannot have met the replica
}

// testRun is one end-to-end test.
type testRun struct {
	began, ended time.Time
	outcome      string // pass, fail or skip
	output       bytes.Buffer
}

// meets reports whether the test ran while the replica died.
func (r *testRun) meets(d death) bool { return r.began.Before(d.gone) && r.ended.After(d.at) }

// endToEnd runs the end-to-end tests against the containers; every one must pass
// the first time. With names it runs those alone.
func (p *project) endToEnd(what string, names ...string) {
	p.t.Helper()
	s := &suite{project: p}
	s.run(what, names...)
	if failed := s.named("fail"); len(failed) > 0 {
		s.explain(failed)
		p.t.Fatalf("%s: failed: %s", what, strings.Join(failed, ", "))
	}
	least := len(names)
	if least == 0 {
		least = leastTests
	}
	if passed := len(s.named("pass")); passed < least {
		p.t.Fatalf("%s: only %d of %d tests ran", what, passed, least)
	}
}

// endToEndWithDeaths runs them while it kills the victims, one after the other. A
// test that was running then may have been waiting for the very answer that died;
// such a test may fail and be tried once more, as a person would. All that begin
// later must pass the first time.
func (p *project) endToEndWithDeaths(what string, victims ...string) {
	p.t.Helper()
	s := &suite{project: p, victims: victims}
	s.run(what)
	if len(s.deaths) != len(victims) {
		p.t.Fatalf("%s: the tests ended before %s were killed", what, strings.Join(victims[len(s.deaths):], ", "))
	}
	if len(s.named("pass"))+len(s.named("fail")) < leastTests {
		p.t.Fatalf("%s: only %d tests ran", what, len(s.named("pass"))+len(s.named("fail")))
	}
	for _, d := range s.deaths {
		met := 0
		for _, r := range s.tests {
			if r.outcome != "skip" && r.meets(d) {
				met++
			}
		}
		p.t.Logf("%s killed while %d tests were running", d.service, met)
		if met == 0 {
			p.t.Errorf("%s: no test was running when %s died", what, d.service)
		}
	}
	failed := s.named("fail")
	if len(failed) == 0 {
		return
	}
	s.explain(failed)
	for _, name := range s.unexcused() {
		p.t.Errorf("%s: %s failed, though it met no death", what, name)
	}
	p.endToEnd("tried again, having met a death: "+strings.Join(failed, ", "), failed...)
}

// suiteBinary builds the tests once, so that a run begins at once.
func (p *project) suiteBinary() string {
	p.t.Helper()
	binary := filepath.Join(p.dir, "e2e.test")
	if _, err := os.Stat(binary); err == nil {
		return binary
	}
	cmd := exec.CommandContext(p.t.Context(), "go", "test", "-c", "-o", binary, ".")
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		p.t.Fatalf("build the tests: %v\n%s", err, out)
	}
	return binary
}

// run runs the tests and follows what it says. A failed test is left to the caller.
func (s *suite) run(what string, names ...string) {
	t := s.project.t
	t.Helper()
	s.tests = map[string]*testRun{}
	args := []string{"tool", "test2json", "-t", s.project.suiteBinary(), "-test.v=test2json", "-test.timeout=20m"}
	if len(names) > 0 {
		args = append(args, "-test.run=^("+strings.Join(names, "|")+")$")
	}
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = ".."
	// CI: what a test needs and this machine lacks is a failure, and no skip.
	cmd.Env = append(s.project.env, "CI=true", "CHATELAINE_E2E_ATTACH="+s.project.dir, "CHATELAINE_E2E_DATABASE_URL="+s.project.databaseURL())
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = &s.output
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	followed := s.follow(stdout)
	err = cmd.Wait()
	t.Logf("%s: %d passed, %d failed, %d need a stack of their own; %s", what,
		len(s.named("pass")), len(s.named("fail")), len(s.named("skip")), time.Since(begun).Round(time.Second))
	if followed != nil {
		t.Fatal(followed)
	}
	if err != nil && len(s.named("fail")) == 0 { // it did not begin, or was cut off
		t.Fatalf("the tests: %v\n%s", err, tail(s.output.String()))
	}
}

// event is what test2json writes of one test (`go doc test2json`).
type event struct {
	Time                 time.Time
	Action, Test, Output string
}

func (s *suite) follow(from io.Reader) error {
	ended := 0
	for decoder := json.NewDecoder(from); ; {
		var e event
		if err := decoder.Decode(&e); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		name, sub, _ := strings.Cut(e.Test, "/")
		if name == "" {
			s.output.WriteString(e.Output)
			continue
		}
		r := s.tests[name]
		if r == nil {
			r = &testRun{}
			s.tests[name] = r
		}
		r.output.WriteString(e.Output)
		if sub != "" {
			continue
		}
		switch e.Action {
		case "run", "cont": // a parallel test waits between the two
			r.began = e.Time
		case "pass", "fail", "skip":
			r.ended, r.outcome = e.Time, e.Action
			if e.Action == "skip" {
				continue
			}
			if ended++; ended%killEvery == 0 && len(s.deaths) < len(s.victims) {
				s.kill(s.victims[len(s.deaths)])
			}
		}
	}
}

func (s *suite) kill(service string) {
	container := s.project.container(service)
	d := death{service: service, at: time.Now()}
	docker(s.project.t, "kill", "--signal=KILL", container)
	d.gone = time.Now()
	s.deaths = append(s.deaths, d)
}

// named are the tests with that outcome, in the order of their names. One that
// began and did not end has failed.
func (s *suite) named(outcome string) []string {
	var names []string
	for name, r := range s.tests {
		if r.outcome == outcome || r.outcome == "" && outcome == "fail" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// unexcused are the tests that failed and were not running when a replica died.
func (s *suite) unexcused() []string {
	return slices.DeleteFunc(s.named("fail"), func(name string) bool {
		return slices.ContainsFunc(s.deaths, s.tests[name].meets)
	})
}

// explain shows what the tests said.
func (s *suite) explain(names []string) {
	for _, name := range names {
		s.project.t.Logf("%s: %s", name, tail(failures(s.tests[name].output.String())))
	}
}

// failures drops the lines about what passed.
func failures(out string) string {
	var kept []string
	for line := range strings.Lines(out) {
		word := strings.TrimSpace(line)
		if !strings.HasPrefix(word, "=== ") && !strings.HasPrefix(word, "--- PASS") && !strings.HasPrefix(word, "--- SKIP") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}
