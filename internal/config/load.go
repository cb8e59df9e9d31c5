package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Source is the content of one file of a set.
type Source struct {
	// Name appears in messages.
	Name string
	Data []byte
}

// Set is a set of resources without errors.
type Set struct {
	deployment *Deployment
	digest     string
}

// Deployment returns the effective configuration. It is never nil.
func (s *Set) Deployment() *Deployment { return s.deployment }

// Digest returns the SHA-256, in hex, of the effective configuration. Comments,
// the order of documents and keys, file names and the spelling of apiVersion
// do not change it; what a service would do differently does.
func (s *Set) Digest() string { return s.digest }

// Load reads a set from a file, or from the *.yaml and *.yml files of a folder
// (not of its subfolders). The report is never nil; the set is nil unless the
// report is OK.
func Load(path string) (*Set, *Report) {
	report := &Report{}
	sources := readSources(path, report)
	return parse(sources, report)
}

// Parse reads a set from memory, with the same results as [Load].
func Parse(sources ...Source) (*Set, *Report) {
	return parse(sources, &Report{})
}

// CheckPath validates the set at path and writes the report to w: what
// `validate --config PATH` does. It reports whether the set may be used.
func CheckPath(path string, w io.Writer) (ok bool, err error) {
	_, report := Load(path)
	_, err = report.WriteTo(w)
	return report.OK(), err
}

func parse(sources []Source, report *Report) (*Set, *Report) {
	r := &resources{}
	for _, s := range sources {
		report.Files++
		parseSource(s, r, report)
	}
	r.index(report)
	d := r.check(report)
	report.sort()
	if d == nil || !report.OK() {
		return nil, report
	}
	return &Set{deployment: d, digest: digest(d)}, report
}

func readSources(path string, report *Report) []Source {
	fail := func(file, format string, args ...any) {
		report.note(Problem{Severity: SeverityError, File: file, Message: fmt.Sprintf(format, args...)})
	}
	info, err := os.Stat(path)
	if err != nil {
		fail(path, "cannot be read: %v", reason(err))
		return nil
	}
	if !info.IsDir() {
		data, err := readFile(path)
		if err != nil {
			fail(path, "cannot be read: %v", reason(err))
			return nil
		}
		return []Source{{Name: path, Data: data}}
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		fail(path, "cannot be read: %v", reason(err))
		return nil
	}
	var sources []Source
	for _, e := range entries {
		file := filepath.Join(path, e.Name())
		if !isResourceFile(e.Name()) {
			continue
		}
		// Stat follows the symbolic links that a mounted ConfigMap consists of.
		if info, err := os.Stat(file); err == nil && info.IsDir() {
			continue
		}
		if len(sources) == maxFiles {
			fail(path, "has more than %d files", maxFiles)
			break
		}
		data, err := readFile(file)
		if err != nil {
			fail(file, "cannot be read: %v", reason(err))
			continue
		}
		sources = append(sources, Source{Name: file, Data: data})
	}
	if len(sources) == 0 && report.OK() {
		fail(path, "has no *.yaml or *.yml file")
	}
	return sources
}

func isResourceFile(name string) bool {
	ext := filepath.Ext(name)
	base := strings.TrimSuffix(name, ext)
	return (ext == ".yaml" || ext == ".yml") && !strings.HasPrefix(name, ".") && base != "kustomization"
}

// readFile reads one byte more than is allowed, so that parsing can tell.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	return io.ReadAll(io.LimitReader(f, maxFileBytes+1))
}

// reason is an error's text without the path, which the problem names already.
func reason(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	return err
}

func parseSource(s Source, r *resources, report *Report) {
	if len(s.Data) > maxFileBytes {
		report.errorf(&document{file: s.Name}, "", "is larger than %d bytes", maxFileBytes)
		return
	}
	dec := yaml.NewDecoder(bytes.NewReader(s.Data))
	for number := 1; ; number++ {
		var n yaml.Node
		err := dec.Decode(&n)
		if errors.Is(err, io.EOF) {
			return
		}
		doc := &document{file: s.Name, number: number, line: n.Line, positions: map[string]position{}}
		if err != nil {
			report.addAt(position{line: yamlLine(err)}, SeverityError, "", doc, "", "is not YAML: %s", yamlReason(err))
			return
		}
		if len(n.Content) == 0 || isNull(n.Content[0]) {
			continue
		}
		if report.Documents++; report.Documents > maxDocuments {
			report.errorf(doc, "", "the set has more than %d documents", maxDocuments)
			return
		}
		doc.line = n.Content[0].Line
		parseDocument(doc, n.Content[0], r, report)
	}
}

// header reads what says of which kind a document is, before it is decoded.
func header(n *yaml.Node, doc *document) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], target(n.Content[i+1])
		switch key.Value {
		case "apiVersion":
			doc.apiVersion = scalar(value)
			doc.positions["apiVersion"] = position{key.Line, key.Column}
		case "kind":
			doc.kind = printable(scalar(value))
			doc.positions["kind"] = position{key.Line, key.Column}
		case "metadata":
			for j := 0; value.Kind == yaml.MappingNode && j+1 < len(value.Content); j += 2 {
				switch value.Content[j].Value {
				case "name":
					doc.name = printable(scalar(target(value.Content[j+1])))
				case "namespace":
					doc.namespace = printable(scalar(target(value.Content[j+1])))
				}
			}
		}
	}
}

// target follows an alias.
func target(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

func scalar(n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode || isNull(n) {
		return ""
	}
	return n.Value
}

func parseDocument(doc *document, n *yaml.Node, r *resources, report *Report) {
	if n.Kind != yaml.MappingNode {
		report.errorf(doc, "", "is not a resource: it has no fields (apiVersion, kind, metadata, spec)")
		return
	}
	header(n, doc)
	if !checkHeader(doc, report) {
		return
	}
	d := &decoder{report: report, doc: doc}
	v := newResource(doc.kind)
	d.structure(n, reflect.ValueOf(v).Elem(), "", 0)
	r.add(doc, v)
}

// yamlReason is the parser's text without its prefix and place.
func yamlReason(err error) string {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if yamlLine(err) > 0 {
		_, text, _ = strings.Cut(text, ": ")
	}
	return printable(text)
}

// yamlLine is the line that the parser names, or 0.
func yamlLine(err error) int {
	rest, ok := strings.CutPrefix(strings.TrimPrefix(err.Error(), "yaml: "), "line ")
	if !ok {
		return 0
	}
	digits, _, _ := strings.Cut(rest, ":")
	line, err := strconv.Atoi(digits)
	if err != nil {
		return 0
	}
	return line
}
