package configdoc

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

// Paths of the generated files below the root of the repository.
const (
	SchemaPath   = "docs/schema/chatelaine.schema.json"
	DocumentPath = "docs/configuration.md"
	sourcePath   = "internal/config"
	examplePath  = "internal/config/testdata/github-google.yaml"
)

// Files returns the content that the generated files must have, by path below
// root: the schema, and the document with its generated regions renewed.
func Files(root string) (map[string][]byte, error) {
	source := filepath.Join(root, sourcePath)
	schema, err := Schema(source)
	if err != nil {
		return nil, err
	}
	tables, err := Tables(source)
	if err != nil {
		return nil, err
	}
	example, err := os.ReadFile(filepath.Join(root, examplePath))
	if err != nil {
		return nil, err
	}
	page, err := os.ReadFile(filepath.Join(root, DocumentPath))
	if err != nil {
		return nil, err
	}
	if page, err = region(page, "fields", []byte(tables)); err != nil {
		return nil, err
	}
	if page, err = region(page, "example", fmt.Appendf(nil, "```yaml\n%s```\n", example)); err != nil {
		return nil, err
	}
	return map[string][]byte{SchemaPath: schema, DocumentPath: page}, nil
}

// region replaces what stands between a pair of marks.
func region(page []byte, name string, content []byte) ([]byte, error) {
	begin, end := fmt.Appendf(nil, "<!-- generated: %s -->\n", name), fmt.Appendf(nil, "<!-- end: %s -->\n", name)
	before, rest, ok := bytes.Cut(page, begin)
	if !ok {
		return nil, fmt.Errorf("%s has no mark %q", DocumentPath, begin)
	}
	_, after, ok := bytes.Cut(rest, end)
	if !ok {
		return nil, fmt.Errorf("%s has no mark %q", DocumentPath, end)
	}
	return bytes.Join([][]byte{before, begin, []byte("\n"), content, []byte("\n"), end, after}, nil), nil
}
