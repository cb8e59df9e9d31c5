package configdoc

import (
	"fmt"
	"reflect"
	"strings"

	"chatelaine.dev/internal/config"
)

// Tables returns the tables of fields, in Markdown: one for each object that a
// kind has. dir is the source folder of package config.
func Tables(dir string) (string, error) {
	c, err := readComments(dir)
	if err != nil {
		return "", err
	}
	g := &tableGenerator{comments: c, written: map[reflect.Type]string{}}
	for _, t := range resourceTypes() {
		spec, _ := t.FieldByName("Spec")
		fmt.Fprintf(&g.out, "### %s\n\n%s\n\n", t.Name(), sentence(t.Name(), c.types[t.Name()]))
		g.table(spec.Type, "spec")
	}
	return strings.TrimSpace(g.out.String()) + "\n", g.err
}

type tableGenerator struct {
	comments *comments
	written  map[reflect.Type]string // where the type's table stands
	out      strings.Builder
	err      error
}

// sentence drops the Go name from the start of a type's comment.
func sentence(name, doc string) string {
	return capital(strings.TrimPrefix(strings.TrimSpace(strings.TrimPrefix(doc, name)), "is "))
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func (g *tableGenerator) table(t reflect.Type, path string) {
	g.written[t] = path
	fmt.Fprintf(&g.out, "#### `%s`\n\n| field | type | |\n| --- | --- | --- |\n", path)
	type nested struct {
		t    reflect.Type
		path string
	}
	var later []nested
	for i := range t.NumField() {
		f := t.Field(i)
		name := f.Tag.Get("yaml")
		doc, err := g.comments.field(t.Name(), f.Name, name)
		if err != nil && g.err == nil {
			g.err = err
		}
		inner, suffix := element(f.Type)
		kind := typeName(f.Type)
		if inner.Kind() == reflect.Struct && !atomic(inner) {
			if first, done := g.written[inner]; done {
				kind += ", see `" + first + "`"
			} else {
				g.written[inner] = path + "." + name + suffix
				later = append(later, nested{inner, path + "." + name + suffix})
			}
		}
		if f.Tag.Get("required") != "" {
			kind += ", required"
		}
		fmt.Fprintf(&g.out, "| `%s` | %s | %s |\n", name, kind, strings.ReplaceAll(withoutName(doc, name), "|", `\|`))
	}
	if ignored := config.Ignored(t); len(ignored) > 0 {
		var names []string
		for _, name := range sortedKeys(ignored) {
			names = append(names, "`"+name+"`")
		}
		fmt.Fprintf(&g.out, "\nAccepted with a warning, without effect: %s.\n", strings.Join(names, ", "))
	}
	g.out.WriteString("\n")
	for _, n := range later {
		g.table(n.t, n.path)
	}
}

// withoutName drops the name that the row has already, where a sentence of its
// own remains: one that goes on with a verb.
func withoutName(doc, name string) string {
	rest, ok := strings.CutPrefix(doc, "`"+name+"` ")
	if !ok {
		return doc
	}
	if is, ok := strings.CutPrefix(rest, "is "); ok {
		return capital(is)
	}
	if verb, _, _ := strings.Cut(rest, " "); strings.HasSuffix(verb, "s") && verb != "is" {
		return capital(rest)
	}
	return doc
}

// element returns what a field consists of, and how its path goes on.
func element(t reflect.Type) (reflect.Type, string) {
	switch t.Kind() {
	case reflect.Pointer:
		return t.Elem(), ""
	case reflect.Slice:
		return t.Elem(), "[]"
	case reflect.Map:
		return t.Elem(), ".NAME"
	default:
		return t, ""
	}
}

// atomic types are explained once in the text around the tables.
func atomic(t reflect.Type) bool {
	switch t {
	case reflect.TypeFor[config.SecretKeyRef](), reflect.TypeFor[config.ObjectRef](), reflect.TypeFor[config.CABundleRef](),
		reflect.TypeFor[config.ToolOverride]():
		return true
	default:
		return false
	}
}

func typeName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return typeName(t.Elem())
	case reflect.Slice:
		return "list of " + plural(typeName(t.Elem()))
	case reflect.Map:
		return "map to " + plural(typeName(t.Elem()))
	case reflect.Bool:
		return "boolean"
	case reflect.Int:
		return "number"
	case reflect.String:
		return "text"
	}
	switch t {
	case reflect.TypeFor[config.Duration]():
		return "duration"
	case reflect.TypeFor[config.SecretKeyRef]():
		return "[secret](#secrets)"
	case reflect.TypeFor[config.ObjectRef]():
		return "`{name}`"
	case reflect.TypeFor[config.CABundleRef]():
		return "[certificates](#certificates)"
	default:
		return "object"
	}
}

func plural(s string) string {
	switch s {
	case "text", "`{name}`", "[certificates](#certificates)":
		return s
	case "[secret](#secrets)":
		return "[secrets](#secrets)"
	default:
		return s + "s"
	}
}
