package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func clean(t *testing.T, path string) *Set {
	t.Helper()
	set, report := Load(path)
	if set == nil || len(report.Problems) != 0 {
		t.Fatalf("%s is not clean:\n%s", path, report)
	}
	return set
}

func TestDocumentedSetsStart(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"demo", "github-google"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			set := clean(t, "testdata/"+name+".yaml")
			view, err := json.MarshalIndent(set.Deployment(), "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "testdata/"+name+".golden.json", string(view)+"\n")
		})
	}
}

func TestEveryFieldIsResolved(t *testing.T) {
	t.Parallel()
	set, report := Load("testdata/everything.yaml")
	golden(t, "testdata/everything.golden", report.String())
	if set == nil {
		t.Fatalf("%s", report)
	}
	view, err := json.MarshalIndent(set.Deployment(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/everything.golden.json", string(view)+"\n")
}

func TestAFolderIsOneSet(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/demo.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	documents := strings.Split(string(data), "\n---\n")
	for i, doc := range documents {
		ext := []string{".yaml", ".yml"}[i%2]
		write(t, filepath.Join(dir, fmt.Sprintf("%d%s", 9-i, ext)), doc)
	}
	// What must not be read: hidden files (a mounted ConfigMap has some), other
	// kinds of files, kustomize's own, subfolders.
	write(t, filepath.Join(dir, ".hidden.yaml"), "not: [a resource")
	write(t, filepath.Join(dir, "README.md"), "# no")
	write(t, filepath.Join(dir, "kustomization.yaml"), "resources: []")
	if err := os.Mkdir(filepath.Join(dir, "sub.yaml"), 0o755); err != nil {
		t.Fatal(err)
	}
	split := clean(t, dir)
	if whole := clean(t, "testdata/demo.yaml"); split.Digest() != whole.Digest() {
		t.Error("a set that is split over files has another digest")
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAMountedConfigMapIsRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data, err := os.ReadFile("testdata/demo.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "..2026"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "..2026", "demo.yaml"), string(data))
	for link, to := range map[string]string{"..data": "..2026", "demo.yaml": "..data/demo.yaml"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	clean(t, dir)
}

func TestWhatCannotBeReadIsAnErrorWithItsName(t *testing.T) {
	t.Parallel()
	empty := t.TempDir()
	for path, want := range map[string]string{
		"testdata/no-such-file.yaml": "no such file",
		empty:                        "no *.yaml or *.yml file",
		"/dev/null":                  "not a regular file",
	} {
		set, report := Load(path)
		if set != nil || report.OK() || !strings.Contains(report.String(), want) || !strings.Contains(report.String(), path) {
			t.Errorf("%s: %s", path, report)
		}
	}
}

func TestValidateSaysWhetherTheSetMayBeUsed(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]bool{"testdata/demo.yaml": true, "testdata/rules/V-03.yaml": true, "testdata/rules/V-04.yaml": false} {
		var out bytes.Buffer
		ok, err := CheckPath(path, &out)
		if err != nil || ok != want {
			t.Errorf("%s: %v, %v", path, ok, err)
		}
		if _, report := Load(path); out.String() != report.String() {
			t.Errorf("%s: wrote %q", path, out.String())
		}
		_, report := Load(path)
		if err := report.Err(); (err == nil) != want {
			t.Errorf("%s: Err is %v", path, err)
		}
	}
}

func TestTheDigestCoversMeaningAlone(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/demo.yaml")
	if err != nil {
		t.Fatal(err)
	}
	digest := func(text string) string {
		t.Helper()
		set, report := Parse(Source{Name: "x.yaml", Data: []byte(text)})
		if set == nil {
			t.Fatalf("%s", report)
		}
		return set.Digest()
	}
	base := string(data)
	documents := strings.Split(base, "\n---\n")
	reversed := ""
	for _, doc := range documents {
		reversed = strings.TrimSuffix(doc, "\n") + "\n---\n" + reversed
	}
	want := digest(base)
	for name, same := range map[string]string{
		"documents in another order": reversed,
		"a comment":                  "# hello\n" + base,
		"another apiVersion":         strings.ReplaceAll(base, "chatelaine.dev/v1alpha1", "toolhive.stacklok.dev/v1beta1"),
		"keys in another order":      strings.ReplaceAll(base, "{providerName: octohub}}", "{providerName: octohub}, type: upstreamInject}") + "",
		"a default written out":      strings.Replace(base, "    issuer: http://localhost:8080\n", "    issuer: http://localhost:8080\n    tokenLifespans: {accessTokenLifespan: 60m}\n    primaryUpstreamProvider: corp\n", 1),
	} {
		if name == "keys in another order" {
			same = strings.Replace(base, "spec: {type: upstreamInject, upstreamInject: {providerName: octohub}}", "spec: {upstreamInject: {providerName: octohub}, type: upstreamInject}", 1)
			if same == base {
				t.Fatal("nothing was replaced")
			}
		}
		if got := digest(same); got != want {
			t.Errorf("%s changes the digest", name)
		}
	}
	for name, other := range map[string]string{
		"another scope":             strings.Replace(base, "[payroll:read]", "[payroll:write]", 1),
		"another order of the walk": strings.Replace(base, "    issuer: http://localhost:8080\n", "    issuer: http://localhost:8080\n    primaryUpstreamProvider: octohub\n", 1),
		"another secret":            strings.Replace(base, "corp-sts", "corp-sts2", 1),
	} {
		if name == "another order of the walk" {
			other = strings.Replace(other, "        optional: true\n", "", 1)
		}
		if got := digest(other); got == want {
			t.Errorf("%s does not change the digest", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, path := range []string{"testdata/demo.yaml", "testdata/github-google.yaml", "testdata/rules/all.yaml"} {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("apiVersion: chatelaine.dev/v1alpha1\nkind: MCPGroup\nmetadata: &m {name: x, labels: {<<: *m}}\n"))
	f.Add([]byte("kind: &k MCPGroup\napiVersion: *k\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		set, report := Parse(Source{Name: "fuzz.yaml", Data: data})
		if (set != nil) != report.OK() {
			t.Fatalf("a set is there: %v, the report is OK: %v", set != nil, report.OK())
		}
		_ = report.String()
		if set == nil {
			return
		}
		if d := set.Deployment(); d == nil || d.Mode == "" || len(set.Digest()) != 64 {
			t.Fatalf("incomplete deployment: %+v", d)
		}
		for _, b := range set.Deployment().Backends {
			if b.Origin == "" || b.Strategy.Type == "" {
				t.Fatalf("incomplete backend: %+v", b)
			}
		}
	})
}
