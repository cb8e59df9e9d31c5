package docs

import (
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"chatelaine.dev/internal/config"
)

// root is the top of the source tree.
const root = "../.."

// files returns the paths below root with one of the endings, but for what is
// built, installed or kept by a run.
func files(t *testing.T, endings ...string) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			if path != root && (strings.HasPrefix(name, ".") && name != ".ci" || name == "node_modules" || name == "third_party" || path == filepath.Join(root, "bin")) {
				return fs.SkipDir
			}
			return nil
		}
		if slices.Contains(endings, filepath.Ext(name)) {
			paths = append(paths, path)
		}
		return nil
	})
	if err != nil || len(paths) == 0 {
		t.Fatalf("no files found: %v", err)
	}
	return paths
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var (
	fences  = regexp.MustCompile("(?ms)^ *```.*?^ *```")
	code    = regexp.MustCompile("`[^`\n]*`")
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
)

// anchor is the fragment that a heading gets on code hosts.
func anchor(heading string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(heading) {
		switch {
		case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
			b.WriteRune(r)
		case r == ' ':
			b.WriteRune('-')
		}
	}
	return b.String()
}

func TestNoLinkLeadsNowhere(t *testing.T) {
	t.Parallel()
	links := 0
	for _, page := range files(t, ".md") {
		text := code.ReplaceAllString(fences.ReplaceAllString(read(t, page), ""), "")
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			u, err := url.Parse(m[1])
			if err != nil || u.Scheme != "" {
				continue // elsewhere
			}
			links++
			target := page
			if u.Path != "" {
				target = filepath.Join(filepath.Dir(page), u.Path)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: the link %s leads nowhere", page, m[1])
				continue
			}
			if u.Fragment == "" || filepath.Ext(target) != ".md" {
				continue
			}
			if !slices.ContainsFunc(heading.FindAllStringSubmatch(fences.ReplaceAllString(read(t, target), ""), -1), func(h []string) bool {
				return anchor(h[1]) == u.Fragment
			}) {
				t.Errorf("%s: %s has no heading for the link %s", page, target, m[1])
			}
		}
	}
	if links < 20 {
		t.Errorf("only %d links were found: does the test still see them?", links)
	}
}

// Pages that nothing leads to are not read.
func TestTheIndexNamesEveryPage(t *testing.T) {
	t.Parallel()
	index := read(t, filepath.Join(root, "docs", "README.md"))
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(pages) == 0 {
		t.Fatalf("no pages: %v", err)
	}
	for _, page := range pages {
		if name := filepath.Base(page); name != "README.md" && !strings.Contains(index, "]("+name+")") {
			t.Errorf("docs/README.md does not link %s", name)
		}
	}
}

var yamlBlock = regexp.MustCompile("(?ms)^```yaml\n(.*?)^```")

func TestProvidersSetsAreValidAndPagesQuoteThem(t *testing.T) {
	t.Parallel()
	sets, err := filepath.Glob(filepath.Join(root, "docs", "sets", "*.yaml"))
	if err != nil || len(sets) == 0 {
		t.Fatalf("no sets: %v", err)
	}
	for _, path := range sets {
		if set, report := config.Load(path); set == nil || len(report.Problems) > 0 {
			t.Errorf("%s:\n%s", path, report)
		}
		text := read(t, path)
		page := read(t, filepath.Join(root, "docs", strings.TrimSuffix(filepath.Base(path), ".yaml")+".md"))
		blocks := yamlBlock.FindAllStringSubmatch(page, -1)
		if len(blocks) == 0 || !strings.Contains(page, "(sets/"+filepath.Base(path)+")") {
			t.Errorf("the page of %s neither quotes nor links it", path)
		}
		for _, block := range blocks {
			if !strings.Contains(text, block[1]) {
				t.Errorf("%s does not have what its page quotes:\n%s", path, block[1])
			}
		}
	}
}

// source is the text of everything that people's messages come from, a file each.
func source(t *testing.T) (texts []string) {
	t.Helper()
	for _, path := range files(t, ".go", ".html") {
		if !strings.HasSuffix(path, "_test.go") {
			texts = append(texts, joined.ReplaceAllString(read(t, path), ""))
		}
	}
	return texts
}

// joined is where a literal goes on in the next one.
var joined = regexp.MustCompile(`"\s*\+\s*"`)

var (
	firstCell = regexp.MustCompile(`(?m)^\| ([^|]+) \|`)
	quoted    = regexp.MustCompile("`([^`]+)`")
)

// A text that nobody can meet any more sends its reader astray.
func TestExplainedMessagesExist(t *testing.T) {
	t.Parallel()
	texts := source(t)
	page := read(t, filepath.Join(root, "docs", "troubleshooting.md"))
	checked := 0
	for _, cell := range firstCell.FindAllStringSubmatch(page, -1) {
		for _, q := range quoted.FindAllStringSubmatch(cell[1], -1) {
			var parts []string
			for part := range strings.SplitSeq(q[1], "…") {
				// Names stand in quotation marks or parentheses of their own.
				if part = strings.Trim(part, " ,.()"); len(part) > 3 {
					parts = append(parts, part)
				}
			}
			if len(parts) == 0 || !strings.Contains(q[1], " ") { // a path, a field's name
				continue
			}
			checked++
			if !slices.ContainsFunc(texts, func(text string) bool {
				return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(text, part) })
			}) {
				t.Errorf("troubleshooting.md explains %q, which no message says (looked for %q in one file)", q[1], parts)
			}
		}
	}
	if checked < 30 {
		t.Errorf("only %d messages were checked: does the test still see them?", checked)
	}
}

var (
	wholeName = regexp.MustCompile(`"(chatelaine\.[a-z]+\.[a-z_.]+[a-z])"`)
	shownName = regexp.MustCompile(`chatelaine_[a-z_]+[a-z]`)
)

// Prometheus shows names with underscores; the source has them with dots.
func TestMetricsAreExplainedAndExist(t *testing.T) {
	t.Parallel()
	page := read(t, filepath.Join(root, "docs", "observability.md"))
	shown := map[string]bool{}
	for _, name := range shownName.FindAllString(page, -1) {
		shown[bare(name)] = true
	}
	all := strings.Join(source(t), "\n")
	for _, m := range wholeName.FindAllStringSubmatch(all, -1) {
		if name := strings.ReplaceAll(m[1], ".", "_"); !shown[name] {
			t.Errorf("observability.md does not explain the metric %s (%s)", m[1], name)
		}
	}
	for name := range shown {
		_, rest, _ := strings.Cut(strings.TrimPrefix(name, "chatelaine_"), "_") // without the service
		if !exists(all, name, rest) {
			t.Errorf("observability.md explains %s, which the source does not have", name)
		}
	}
	if len(shown) < 10 {
		t.Errorf("only %d metrics were found on the page", len(shown))
	}
}

// Somebody whom an alert wakes looks for its name.
func TestAlertsAreExplainedAndExist(t *testing.T) {
	t.Parallel()
	page := read(t, filepath.Join(root, "docs", "observability.md"))
	rules := read(t, filepath.Join(root, "deploy", "observability", "rules.yaml"))
	alert := regexp.MustCompile(`(?m)- alert: (\w+)$`)
	found := alert.FindAllStringSubmatch(rules, -1)
	if len(found) < 10 {
		t.Fatalf("only %d alerts were found in the rules", len(found))
	}
	for _, m := range found {
		if strings.Count(page, m[1]) != 1 {
			t.Errorf("observability.md names the alert %s %d times, want once", m[1], strings.Count(page, m[1]))
		}
	}
	for _, name := range regexp.MustCompile(`\bChatelaine[A-Z]\w+`).FindAllString(page, -1) {
		if !strings.Contains(rules, "alert: "+name+"\n") {
			t.Errorf("observability.md explains the alert %s, which the rules do not have", name)
		}
	}
}

// exists reports whether the source has the name, with dots or underscores,
// whole or without what the service's metrics begin with.
func exists(all, name, rest string) bool {
	for _, n := range []string{name, rest} {
		pattern := `"` + strings.ReplaceAll(regexp.QuoteMeta(n), "_", "[._]") + `"`
		if regexp.MustCompile(pattern).MatchString(all) {
			return true
		}
	}
	return false
}

// bare is a metric's name without what the exporter adds: _total, and the unit.
func bare(name string) string {
	for _, suffix := range []string{"_bucket", "_count", "_sum", "_total", "_seconds", "_bytes"} {
		name = strings.TrimSuffix(name, suffix)
	}
	return name
}

var (
	startedSpan = regexp.MustCompile(`tracer\.Start\(\w+, "([^"]+)"`)
	formedSpan  = regexp.MustCompile(`return ("[A-Z]+ ") \+ r\.Method`)
	operation   = regexp.MustCompile(`(?:Operation: +|tokenRequest\(\w+, \w+, )"([a-z]+)"`)
)

// Whoever reads a trace looks for a span by its name.
func TestSpansAreExplainedAndExist(t *testing.T) {
	t.Parallel()
	all := strings.Join(source(t), "\n")
	page := read(t, filepath.Join(root, "docs", "observability.md"))
	_, rows, found := strings.Cut(page, "\n| span |")
	if !found {
		t.Fatal("observability.md has no table of spans")
	}
	rows, _, _ = strings.Cut(rows, "\n\n")
	for _, m := range startedSpan.FindAllStringSubmatch(all, -1) {
		if !strings.Contains(rows, "| `"+m[1]+"` |") {
			t.Errorf("observability.md does not explain the span %q", m[1])
		}
	}
	for _, m := range formedSpan.FindAllStringSubmatch(all, -1) {
		if prefix, err := strconv.Unquote(m[1]); err != nil || !strings.Contains(rows, "| `"+prefix) {
			t.Errorf("observability.md does not explain the spans %q and a method", m[1])
		}
	}
	var row string
	for line := range strings.Lines(rows) {
		if strings.HasPrefix(line, "| `corp refresh`") {
			row = line
		}
	}
	_, listed, _ := strings.Cut(row, "operation:")
	operations := map[string]bool{}
	for _, m := range operation.FindAllStringSubmatch(all, -1) {
		operations[m[1]] = true
		if !strings.Contains(listed, "`"+m[1]+"`") {
			t.Errorf("observability.md does not list the operation %s", m[1])
		}
	}
	for _, q := range quoted.FindAllStringSubmatch(listed, -1) {
		if !operations[q[1]] {
			t.Errorf("observability.md lists the operation %s, which the source does not have", q[1])
		}
	}
	if len(operations) < 5 || !startedSpan.MatchString(all) || !formedSpan.MatchString(all) {
		t.Errorf("only %d operations were found: does the test still see the spans?", len(operations))
	}
}

var (
	flagInText = regexp.MustCompile("`--([a-z][a-z-]+)")
	flagInCode = regexp.MustCompile(`\s--([a-z][a-z-]+)`)
	// ours is a command of ours, up to where the next one of its line begins.
	ours = regexp.MustCompile(`(?m)(?:^|[\s/])(?:authserver|tokenbroker|gateway|chatelaine-dev) +(?:serve|validate|migrate|healthcheck|version|sessions|keys|up|demo|init|clean|bench)\b[^|;#\n]*`)
)

// flags are the names of those of our programs that a page has, in its text and in its commands.
func flags(page string) (names []string) {
	for _, m := range flagInText.FindAllStringSubmatch(fences.ReplaceAllString(page, ""), -1) {
		names = append(names, m[1])
	}
	for _, fence := range fences.FindAllString(page, -1) {
		for _, command := range ours.FindAllString(strings.ReplaceAll(fence, "\\\n", " "), -1) {
			for _, m := range flagInCode.FindAllStringSubmatch(command, -1) {
				names = append(names, m[1])
			}
		}
	}
	return names
}

// The pages name flags; one that a service no longer has fails at its start.
func TestNamedFlagsExist(t *testing.T) {
	t.Parallel()
	all := strings.Join(source(t), "\n")
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	exists, inCode := map[string]bool{"help": true}, 0 // help is the parser's own
	for _, page := range append(pages, filepath.Join(root, "README.md"), filepath.Join(root, "SECURITY.md"), filepath.Join(root, "CHANGELOG.md")) {
		text := read(t, page)
		inCode += len(flags(strings.Join(fences.FindAllString(text, -1), "\n")))
		for _, name := range flags(text) {
			known, seen := exists[name]
			if !seen {
				known = strings.Contains(all, fmt.Sprintf("%q", name)) || field(all, name)
				exists[name] = known
			}
			if !known {
				t.Errorf("%s names the flag --%s, which no program has", page, name)
			}
		}
	}
	if len(exists) < 30 || inCode < 20 {
		t.Errorf("only %d flags were checked, %d times in commands: does the test still see them?", len(exists), inCode)
	}
}

// field reports whether a struct has the field that kong makes the flag of.
func field(all, flag string) bool {
	var b strings.Builder
	for part := range strings.SplitSeq(flag, "-") {
		b.WriteString("(?i:" + regexp.QuoteMeta(part) + ")")
	}
	return regexp.MustCompile(`\b` + b.String() + "s?\\s+[\\w\\[\\]*.]+\\s+`").MatchString(all)
}
