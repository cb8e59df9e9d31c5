package config

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write golden files instead of comparing with them")

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s is not what is written now (-want +got, go test -update to accept):\n%s", path, diff)
	}
}

// Each file breaks the rule that it is named after, and no other.
func TestEachRuleIsReportedOnItsOwn(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/rules/V-*.yaml")
	if err != nil || len(files) < 12 {
		t.Fatalf("found %d files, %v", len(files), err)
	}
	covered := map[string]bool{}
	for _, file := range files {
		code := filepath.Base(file)[:4]
		covered[code] = true
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			t.Parallel()
			set, report := Load(file)
			if len(report.Problems) == 0 {
				t.Fatalf("nothing was reported")
			}
			for _, p := range report.Problems {
				if p.Code != code {
					t.Errorf("also reported:\n%s", p)
				}
			}
			warning := code == "V-03" || code == "V-10"
			if report.OK() != warning || (set != nil) != warning {
				t.Errorf("OK is %v", report.OK())
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".golden", report.String())
		})
	}
	for _, code := range []string{"V-01", "V-02", "V-03", "V-04", "V-05", "V-06", "V-07", "V-08", "V-09", "V-10", "V-11", "V-12"} {
		if !covered[code] {
			t.Errorf("no file breaks %s", code)
		}
	}
}

func TestAllRulesAreReportedInOneRun(t *testing.T) {
	t.Parallel()
	_, report := Load("testdata/rules/all.yaml")
	golden(t, "testdata/rules/all.golden", report.String())
	var codes []string
	for _, p := range report.Problems {
		codes = append(codes, p.Code)
	}
	for _, code := range []string{"V-01", "V-02", "V-03", "V-04", "V-05", "V-06", "V-07", "V-08", "V-09", "V-10", "V-11", "V-12"} {
		if !slices.Contains(codes, code) {
			t.Errorf("%s is missing", code)
		}
	}
	if strings.Contains(report.String(), "s3cr3t") {
		t.Error("the report repeats a secret")
	}
}
