package configdoc

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
)

// comments are the doc comments of struct types and of their fields, by Go name.
type comments struct {
	types  map[string]string
	fields map[string]map[string]string
}

// readComments parses the Go files of a package.
func readComments(dir string) (*comments, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("no Go files in %s", dir)
	}
	c := &comments{types: map[string]string{}, fields: map[string]map[string]string{}}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			return nil, fmt.Errorf("parsing %s: %w", name, err)
		}
		for _, d := range file.Decls {
			decl, ok := d.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, spec := range decl.Specs {
				if t, ok := spec.(*ast.TypeSpec); ok {
					c.addType(t, decl.Doc.Text())
				}
			}
		}
	}
	return c, nil
}

func (c *comments) addType(t *ast.TypeSpec, doc string) {
	body, ok := t.Type.(*ast.StructType)
	if !ok {
		return
	}
	c.types[t.Name.Name] = oneLine(doc)
	c.fields[t.Name.Name] = map[string]string{}
	for _, f := range body.Fields.List {
		for _, name := range f.Names {
			c.fields[t.Name.Name][name.Name] = oneLine(f.Doc.Text())
		}
	}
}

func oneLine(doc string) string { return strings.Join(strings.Fields(doc), " ") }

// field returns a field's comment, with the name that users write in the place
// of the Go name that it starts with.
func (c *comments) field(typ, goName, yamlName string) (string, error) {
	doc := c.fields[typ][goName]
	rest, ok := strings.CutPrefix(doc, goName)
	if !ok {
		return "", fmt.Errorf("the comment of %s.%s must start with its name", typ, goName)
	}
	return "`" + yamlName + "`" + rest, nil
}
