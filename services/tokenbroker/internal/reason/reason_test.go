package reason_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Callers learn the reasons from the .proto files. One that is only there is never
// sent; one that is only here is news to them.
func TestThePromisedReasonsAreTheOnesThatAreSent(t *testing.T) {
	t.Parallel()
	sent, promised := constants(t), promisedReasons(t)
	if len(sent) == 0 {
		t.Fatal("no reasons found: the test reads the wrong file")
	}
	for _, r := range sent {
		if !slices.Contains(promised, r) {
			t.Errorf("no comment in proto/broker/v1 names %s", r)
		}
	}
	for _, r := range promised {
		if !slices.Contains(sent, r) {
			t.Errorf("proto/broker/v1 names %s, which has no constant there", r)
		}
	}
}

// protocol is where the reasons are said and written down.
var protocol = filepath.Join("..", "..", "..", "..", "proto", "broker", "v1")

// constants returns the reasons that Go code has a name for.
func constants(t *testing.T) (list []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(protocol, "reasons.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
			if text, err := strconv.Unquote(literal.Value); err == nil && text == strings.ToUpper(text) {
				list = append(list, text)
			}
		}
		return true
	})
	return list
}

// promisedReasons returns what comments of the .proto files write as reasons are
// written, but for gRPC's codes.
func promisedReasons(t *testing.T) (list []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(protocol, "*.proto"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no .proto files: %v", err)
	}
	words := regexp.MustCompile(`\b[A-Z]+(?:_[A-Z]+)+\b`)
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			_, comment, ok := strings.Cut(line, "// ")
			if !ok {
				continue
			}
			for _, word := range words.FindAllString(comment, -1) {
				if word != "FAILED_PRECONDITION" && word != "NOT_FOUND" {
					list = append(list, word)
				}
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}
