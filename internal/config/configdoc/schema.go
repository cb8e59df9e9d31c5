package configdoc

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"chatelaine.dev/internal/config"
)

// object is a JSON object. encoding/json writes its keys sorted.
type object = map[string]any

// resourceTypes are the kinds, in the order of the documentation.
func resourceTypes() []reflect.Type {
	return []reflect.Type{
		reflect.TypeFor[config.VirtualMCPServer](),
		reflect.TypeFor[config.MCPExternalAuthConfig](),
		reflect.TypeFor[config.MCPServerEntry](),
		reflect.TypeFor[config.MCPOIDCConfig](),
		reflect.TypeFor[config.MCPGroup](),
	}
}

// Schema returns the JSON Schema (draft 7, which editors know best) of a
// document of a set. dir is the source folder of package config.
func Schema(dir string) ([]byte, error) {
	c, err := readComments(dir)
	if err != nil {
		return nil, err
	}
	g := &schemaGenerator{comments: c, definitions: object{}}
	var kinds []any
	var branches []any
	for _, t := range resourceTypes() {
		ref := g.reference(t)
		g.definitions[t.Name()].(object)["properties"].(object)["apiVersion"] = object{}
		g.definitions[t.Name()].(object)["properties"].(object)["kind"] = object{}
		g.definitions[t.Name()].(object)["properties"].(object)["status"] = object{"description": "Ignored: what a cluster reports."}
		kinds = append(kinds, t.Name())
		branches = append(branches, object{
			"if":   object{"properties": object{"kind": object{"const": t.Name()}}},
			"then": ref,
		})
	}
	if g.err != nil {
		return nil, g.err
	}
	root := object{
		"$schema":     "http://json-schema.org/draft-07/schema#",
		"title":       "A resource of a Chatelaine configuration",
		"type":        "object",
		"required":    []string{"apiVersion", "kind", "metadata"},
		"definitions": g.definitions,
		"allOf":       branches,
		"properties": object{
			"apiVersion": object{"enum": []string{config.APIVersion, config.APIVersionToolHiveBeta, config.APIVersionToolHive}},
			"kind":       object{"enum": kinds},
		},
	}
	text, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding the schema: %w", err)
	}
	return append(text, '\n'), nil
}

type schemaGenerator struct {
	comments    *comments
	definitions object
	err         error
}

// reference returns a $ref to a struct type's definition.
func (g *schemaGenerator) reference(t reflect.Type) object {
	if _, done := g.definitions[t.Name()]; !done {
		definition := object{}
		g.definitions[t.Name()] = definition // before its fields: types may repeat
		g.structure(t, definition)
	}
	return object{"$ref": "#/definitions/" + t.Name()}
}

func (g *schemaGenerator) structure(t reflect.Type, definition object) {
	properties := object{}
	var required []string
	for i := range t.NumField() {
		f := t.Field(i)
		name := f.Tag.Get("yaml")
		doc, err := g.comments.field(t.Name(), f.Name, name)
		if err != nil && g.err == nil {
			g.err = err
		}
		if f.Tag.Get("required") != "" {
			required = append(required, name)
		}
		schema := g.value(f.Type, f.Tag)
		if ref, ok := schema["$ref"]; ok {
			// Beside a $ref, draft 7 ignores everything else.
			schema = object{"allOf": []any{object{"$ref": ref}}}
		}
		schema["description"] = doc
		properties[name] = schema
	}
	for name, why := range config.Ignored(t) {
		properties[name] = object{"description": "`" + name + "` " + why + ".", "deprecated": true}
	}
	definition["type"] = "object"
	definition["description"] = g.comments.types[t.Name()]
	definition["properties"] = properties
	definition["additionalProperties"] = t == reflect.TypeFor[config.Metadata]()
	if required != nil {
		definition["required"] = required
	}
}

func (g *schemaGenerator) value(t reflect.Type, tag reflect.StructTag) object {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == reflect.TypeFor[config.Duration]() {
		return withDefault(object{"type": "string", "pattern": `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`}, tag)
	}
	switch t.Kind() {
	case reflect.Struct:
		return g.reference(t)
	case reflect.Slice:
		return object{"type": "array", "maxItems": 256, "items": g.value(t.Elem(), tag)}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": g.value(t.Elem(), tag)}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Int:
		return withDefault(object{"type": "integer"}, tag)
	default:
		schema := object{"type": "string"}
		if enum := tag.Get("enum"); enum != "" {
			schema["enum"] = strings.Split(enum, ",")
		}
		if tag.Get("format") == "scope" {
			schema["pattern"] = `^[!#-\[\]-~]+$`
		}
		return withDefault(schema, tag)
	}
}

func withDefault(schema object, tag reflect.StructTag) object {
	if d := tag.Get("default"); d != "" {
		schema["default"] = d
		if n, err := strconv.Atoi(d); err == nil && schema["type"] == "integer" {
			schema["default"] = n
		}
	}
	return schema
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
