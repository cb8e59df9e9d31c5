// Package configdoc writes what people and editors read about the resources of
// package config: a JSON Schema, and the tables of fields in the documentation.
// Both come from the Go types, their tags and their comments, so that there is
// one description of a field.
//
// It is a tool for `go generate` and is linked into no service.
package configdoc
