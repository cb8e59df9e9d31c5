package config

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Bounds of a set. What exceeds them is an error, never cut off.
const (
	maxFileBytes  = 1 << 20
	maxFiles      = 256
	maxDocuments  = 256
	maxNodes      = 50_000 // per document, each use of an alias counted
	maxDepth      = 32
	maxString     = 4096
	maxText       = 256 << 10 // an annotation that kubectl leaves behind
	maxItems      = 256
	maxProperties = 256
)

// Duration is a span of time, written as a Go duration such as `90m` or `1h30m`.
type Duration time.Duration

// decoder turns the nodes of one document into a resource and remembers where
// each field stands.
type decoder struct {
	report *Report
	doc    *document
	nodes  int
	full   bool // the bound on nodes was reported
}

// enter counts a node, follows an alias, and reports whether to go on.
func (d *decoder) enter(n *yaml.Node, path string, depth int) (*yaml.Node, bool) {
	for n.Kind == yaml.AliasNode {
		if d.nodes++; d.nodes > maxNodes || n.Alias == nil {
			break
		}
		n = n.Alias
	}
	d.nodes++
	if d.nodes > maxNodes || depth > maxDepth {
		if !d.full {
			d.full = true
			d.report.errorf(d.doc, path, "the document is too large or too deep: at most %d values, %d levels", maxNodes, maxDepth)
		}
		return nil, false
	}
	return n, true
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// decode fills v, which is settable, from n. Null is as good as absent, as it
// is in Kubernetes.
func (d *decoder) decode(n *yaml.Node, v reflect.Value, field reflect.StructField, path string, depth int) {
	at := position{n.Line, n.Column}
	n, ok := d.enter(n, path, depth)
	if !ok || isNull(n) {
		return
	}
	if path != "" {
		d.doc.positions[path] = at
	}
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		v = v.Elem()
	}
	if v.Type() == reflect.TypeFor[Duration]() {
		d.duration(n, v, path)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.structure(n, v, path, depth)
	case reflect.Map:
		d.mapping(n, v, field, path, depth)
	case reflect.Slice:
		d.list(n, v, field, path, depth)
	case reflect.String:
		d.text(n, v, field, path)
	case reflect.Bool:
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" {
			d.report.errorf(d.doc, path, "must be true or false%s", butIs(n))
			return
		}
		v.SetBool(strings.EqualFold(n.Value, "true"))
	case reflect.Int:
		i, err := strconv.Atoi(n.Value)
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || err != nil {
			d.report.errorf(d.doc, path, "must be a whole number%s", butIs(n))
			return
		}
		v.SetInt(int64(i))
	default:
		panic(fmt.Sprintf("config: no decoding for a field of type %s", v.Type()))
	}
}

// butIs says what a node is instead, without repeating its value.
func butIs(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return ", but is an object"
	case yaml.SequenceNode:
		return ", but is a list"
	case yaml.ScalarNode:
		switch n.ShortTag() {
		case "!!int", "!!float":
			return ", but is a number"
		case "!!bool":
			return ", but is true or false"
		case "!!timestamp":
			return ", but is a date"
		case "!!str":
			return ", but is text"
		}
	}
	return ""
}

func (d *decoder) text(n *yaml.Node, v reflect.Value, field reflect.StructField, path string) {
	if n.Kind != yaml.ScalarNode {
		d.report.errorf(d.doc, path, "must be text%s", butIs(n))
		return
	}
	if tag := n.ShortTag(); tag != "!!str" {
		d.report.errorf(d.doc, path, "must be text%s: put quotes around it", butIs(n))
		return
	}
	long := maxString
	if field.Tag.Get("text") != "" {
		long = maxText
	}
	if len(n.Value) > long {
		d.report.errorf(d.doc, path, "is longer than %d bytes", long)
		return
	}
	for _, r := range n.Value {
		if (r < ' ' || r == 0x7f) && (field.Tag.Get("text") == "" || (r != '\n' && r != '\t' && r != '\r')) {
			d.report.errorf(d.doc, path, "contains a control character (such as a line break)")
			return
		}
	}
	if enum := field.Tag.Get("enum"); enum != "" && n.Value != "" {
		if allowed := strings.Split(enum, ","); !slices.Contains(allowed, n.Value) {
			d.report.errorf(d.doc, path, "%s is not a value for this field; use %s", show(n.Value), oneOf(allowed))
			return
		}
	}
	v.SetString(n.Value)
}

func (d *decoder) duration(n *yaml.Node, v reflect.Value, path string) {
	const want = "must be a duration such as 30s, 10m or 1h30m"
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		d.report.errorf(d.doc, path, "%s%s", want, butIs(n))
		return
	}
	if n.Value == "" {
		return
	}
	parsed, err := time.ParseDuration(n.Value)
	if err != nil || parsed < 0 || strings.HasPrefix(n.Value, "+") {
		hint := ""
		if days, ok := strings.CutSuffix(n.Value, "d"); ok {
			if count, err := strconv.Atoi(days); err == nil && count > 0 && count < 10_000 {
				hint = fmt.Sprintf(" (there is no unit for days: write %dh)", count*24)
			}
		}
		d.report.errorf(d.doc, path, "%s%s", want, hint)
		return
	}
	v.SetInt(int64(parsed))
}

func (d *decoder) list(n *yaml.Node, v reflect.Value, field reflect.StructField, path string, depth int) {
	if n.Kind != yaml.SequenceNode {
		d.report.errorf(d.doc, path, "must be a list%s", butIs(n))
		return
	}
	if len(n.Content) > maxItems {
		d.report.errorf(d.doc, path, "has more than %d items", maxItems)
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, item := range n.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		if isNull(item) {
			d.doc.positions[at] = position{item.Line, item.Column}
			d.report.errorf(d.doc, at, "is empty")
			continue
		}
		d.decode(item, v.Index(i), field, at, depth+1)
	}
}

func (d *decoder) mapping(n *yaml.Node, v reflect.Value, field reflect.StructField, path string, depth int) {
	if n.Kind != yaml.MappingNode {
		d.report.errorf(d.doc, path, "must be an object%s", butIs(n))
		return
	}
	if len(n.Content)/2 > maxProperties {
		d.report.errorf(d.doc, path, "has more than %d entries", maxProperties)
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	d.pairs(n, path, func(key string, keyNode, value *yaml.Node) {
		at := path + "." + key
		item := reflect.New(v.Type().Elem()).Elem()
		if isNull(value) && item.Kind() == reflect.Struct {
			d.doc.positions[at] = position{keyNode.Line, keyNode.Column}
			d.report.errorf(d.doc, at, "is empty")
			return
		}
		d.decode(value, item, field, at, depth+1)
		d.doc.positions[at] = position{keyNode.Line, keyNode.Column}
		v.SetMapIndex(reflect.ValueOf(key), item)
	})
}

// pairs calls f for every key of a mapping, each once.
func (d *decoder) pairs(n *yaml.Node, path string, f func(key string, keyNode, value *yaml.Node)) {
	seen := make(map[string]int, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		name := key.Value
		if key.Kind != yaml.ScalarNode || len(name) > 256 {
			d.problemAt(key, path, "has a key that is not a short text")
			continue
		}
		if key.ShortTag() == "!!merge" {
			d.problemAt(key, path, "merge keys (<<) are not supported: write the fields out")
			continue
		}
		if line, dup := seen[name]; dup {
			d.problemAt(key, join(path, name), "is set twice; the first time in line %d", line)
			continue
		}
		seen[name] = key.Line
		f(name, key, n.Content[i+1])
	}
}

// problemAt reports an error at a key rather than at a value.
func (d *decoder) problemAt(key *yaml.Node, path, format string, args ...any) {
	d.report.addAt(position{key.Line, key.Column}, SeverityError, "", d.doc, path, format, args...)
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func (d *decoder) structure(n *yaml.Node, v reflect.Value, path string, depth int) {
	if n.Kind != yaml.MappingNode {
		if v.Type() == reflect.TypeFor[SecretKeyRef]() && n.Kind == yaml.ScalarNode {
			d.report.errorf(d.doc, path, "is a literal secret, or a name alone; store the secret and refer to it: {name: NAME, key: KEY}")
			return
		}
		d.report.errorf(d.doc, path, "must be an object%s", butIs(n))
		return
	}
	fields := fieldsOf(v.Type())
	d.pairs(n, path, func(key string, keyNode, value *yaml.Node) {
		i, known := fields.index[key]
		if !known {
			d.unknown(v.Type(), fields, key, keyNode, value, path)
			return
		}
		at := join(path, key)
		d.decode(value, v.Field(i), v.Type().Field(i), at, depth+1)
		if d.doc.has(at) {
			d.doc.positions[at] = position{keyNode.Line, keyNode.Column}
		}
	})
	for _, name := range fields.required {
		f, at := v.Field(fields.index[name]), join(path, name)
		missing := !d.doc.has(at) || (f.Kind() == reflect.String && f.String() == "")
		if missing && !d.report.reportedWithin(d.doc, at) {
			d.report.errorf(d.doc, at, "is required")
		}
	}
}

// unknown reports a field that the type does not have.
func (d *decoder) unknown(t reflect.Type, fields *structFields, key string, keyNode, value *yaml.Node, parent string) {
	path := join(parent, key)
	if c, ok := compatFor(t, key); ok {
		d.compat(c, keyNode, value, path)
		return
	}
	for _, name := range fields.names {
		if secretField(t, fields.index[name]) && meansSecret(name, key) {
			d.doc.positions[join(parent, name)] = position{keyNode.Line, keyNode.Column} // so that it is not missed, too
			d.problemAt(keyNode, path, "is a literal secret, which a resource must not contain; store it and refer to it: %s", example(t, fields.index[name], name))
			return
		}
	}
	d.problemAt(keyNode, path, "is not a known field%s", didYouMean(key, fields.names))
}

// compat reports a field that ToolHive has and we lack, unless it is empty.
func (d *decoder) compat(c compatField, keyNode, value *yaml.Node, path string) {
	if c.verdict == compatSilent || isNull(value) || isFalse(value) || isEmpty(value) {
		return
	}
	if c.verdict == compatWarn {
		d.report.addAt(position{keyNode.Line, keyNode.Column}, SeverityWarning, "", d.doc, path, "%s", c.reason)
		return
	}
	d.problemAt(keyNode, path, "%s", c.reason)
}

func isFalse(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!bool" && strings.EqualFold(n.Value, "false")
}

func isEmpty(n *yaml.Node) bool {
	return n.Kind != yaml.AliasNode && n.Kind != yaml.ScalarNode && len(n.Content) == 0
}

// secretField reports whether a field refers to one secret or to several.
func secretField(t reflect.Type, field int) bool {
	ft := t.Field(field).Type
	return ft == reflect.TypeFor[*SecretKeyRef]() || ft == reflect.TypeFor[[]SecretKeyRef]()
}

// meansSecret reports whether a field that does not exist was meant to hold
// what the reference field names: clientSecret for clientSecretRef, value for
// valueSecretRef, hmacSecrets for hmacSecretRefs.
func meansSecret(refField, key string) bool {
	plain := func(s string) string {
		return strings.TrimSuffix(strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(s)), "s")
	}
	base := strings.TrimSuffix(plain(refField), "ref")
	return plain(key) == base || plain(key) == strings.TrimSuffix(base, "secret")
}

func example(t reflect.Type, field int, name string) string {
	if t.Field(field).Type.Kind() == reflect.Slice {
		return name + ": [{name: NAME, key: KEY}]"
	}
	return name + ": {name: NAME, key: KEY}"
}

// structFields are the YAML names of a struct type's fields.
type structFields struct {
	names    []string
	index    map[string]int
	required []string
}

func fieldsOf(t reflect.Type) *structFields {
	f := &structFields{index: make(map[string]int, t.NumField())}
	for i := range t.NumField() {
		name := t.Field(i).Tag.Get("yaml")
		f.names = append(f.names, name)
		f.index[name] = i
		if t.Field(i).Tag.Get("required") != "" {
			f.required = append(f.required, name)
		}
	}
	return f
}

// printable shortens a name of the user's for a message and drops what could
// upset a terminal.
func printable(s string) string { return cleaned(s, 80) }

func cleaned(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// show quotes a value of the user's for a message. What could carry a
// credential (a URL with user information) is not repeated.
func show(s string) string {
	if strings.Contains(s, "@") {
		return "the value"
	}
	return strconv.Quote(printable(s))
}
