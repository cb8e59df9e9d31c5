package config

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"chatelaine.dev/internal/fault"
)

// Severity says whether a problem keeps a service from starting.
type Severity string

// The severities.
const (
	SeverityError   Severity = "error"
	SeverityWarning Severity = "warning"
)

// Problem is one thing that is wrong with a set, and where.
type Problem struct {
	Severity Severity `json:"severity"`
	// Code of the rule, such as V-04. Empty for what is wrong without any rule.
	Code string `json:"code,omitempty"`
	// File as it was named or found. Empty when the whole set is meant.
	File string `json:"file,omitempty"`
	// Document is its number in the file, from 1.
	Document int `json:"document,omitempty"`
	// Line and Column, from 1. Zero when there is no place.
	Line   int `json:"line,omitempty"`
	Column int `json:"column,omitempty"`
	// Kind and Name of the resource, as far as known.
	Kind string `json:"kind,omitempty"`
	Name string `json:"name,omitempty"`
	// Path of the field, such as spec.upstreamProviders[1].name.
	Path string `json:"path,omitempty"`
	// Message says what is wrong and how to fix it. It never repeats a secret.
	Message string `json:"message"`
}

// String renders the problem in two lines: where, then what.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(string(p.Severity))
	if p.Code != "" {
		fmt.Fprintf(&b, "[%s]", p.Code)
	}
	if where := p.where(); where != "" {
		b.WriteString(" ")
		b.WriteString(where)
	}
	b.WriteString("\n    ")
	b.WriteString(strings.ReplaceAll(p.Message, "\n", "\n    "))
	return b.String()
}

func (p Problem) where() string {
	var parts []string
	if p.File != "" {
		place := p.File
		if p.Line > 0 {
			place = fmt.Sprintf("%s:%d", place, p.Line)
		}
		parts = append(parts, place)
	}
	switch {
	case p.Kind != "" && p.Name != "":
		parts = append(parts, p.Kind+"/"+p.Name)
	case p.Kind != "":
		parts = append(parts, fmt.Sprintf("%s (document %d)", p.Kind, p.Document))
	case p.Document > 0:
		parts = append(parts, fmt.Sprintf("document %d", p.Document))
	}
	if p.Path != "" {
		parts = append(parts, p.Path)
	}
	return strings.Join(parts, "  ")
}

// Report is everything that was found wrong with a set, sorted by place.
type Report struct {
	Problems []Problem `json:"problems"`
	// Files and Documents that were read.
	Files     int `json:"files"`
	Documents int `json:"documents"`
}

// OK reports whether there is no error. Warnings are fine.
func (r *Report) OK() bool {
	return !slices.ContainsFunc(r.Problems, func(p Problem) bool { return p.Severity == SeverityError })
}

// Count returns the number of errors and of warnings.
func (r *Report) Count() (errors, warnings int) {
	for _, p := range r.Problems {
		if p.Severity == SeverityError {
			errors++
		} else {
			warnings++
		}
	}
	return errors, warnings
}

// Log writes every problem as a line of its own, with its place in fields: an
// error at level error, a warning at level warn.
func (r *Report) Log(logger *slog.Logger) {
	for i := range r.Problems {
		p := &r.Problems[i]
		if p.Severity == SeverityWarning {
			logger.LogAttrs(context.Background(), slog.LevelWarn, "a resource may not do what is meant", p.attrs()...)
			continue
		}
		logger.LogAttrs(context.Background(), slog.LevelError, "a resource is not valid", p.attrs()...)
	}
}

// attrs are what is known of the problem. The message of an error is in the group
// in which other lines have theirs.
func (p *Problem) attrs() []slog.Attr {
	var attrs []slog.Attr
	for _, text := range [][2]string{{"rule", p.Code}, {"file", p.File}, {"kind", p.Kind}, {"name", p.Name}, {"path", p.Path}} {
		if text[1] != "" {
			attrs = append(attrs, slog.String(text[0], text[1]))
		}
	}
	for _, number := range []struct {
		name  string
		value int
	}{{"document", p.Document}, {"line", p.Line}, {"column", p.Column}} {
		if number.value > 0 {
			attrs = append(attrs, slog.Int(number.name, number.value))
		}
	}
	if p.Severity == SeverityWarning {
		return append(attrs, slog.String("warning", p.Message))
	}
	problem := fault.New(fault.Invalid, p.Message).WithReason("resources_invalid")
	return append(attrs, fault.Attr(problem))
}

// Err returns nil when the report is OK, otherwise an error that renders all of it.
func (r *Report) Err() error {
	if r.OK() {
		return nil
	}
	return &InvalidError{Report: r}
}

// WriteTo writes every problem and a closing line with the totals.
func (r *Report) WriteTo(w io.Writer) (int64, error) {
	n, err := io.WriteString(w, r.String())
	return int64(n), err
}

// String renders every problem and a closing line with the totals.
func (r *Report) String() string {
	var b strings.Builder
	for _, p := range r.Problems {
		b.WriteString(p.String())
		b.WriteString("\n")
	}
	errs, warns := r.Count()
	if len(r.Problems) > 0 {
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "%s in %s: %s, %s\n", plural(r.Documents, "resource"), plural(r.Files, "file"),
		plural(errs, "error"), plural(warns, "warning"))
	return b.String()
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// InvalidError is the error of a report that is not OK.
type InvalidError struct {
	Report *Report
}

// Error renders the whole report.
func (e *InvalidError) Error() string {
	return "invalid configuration\n" + strings.TrimRight(e.Report.String(), "\n")
}

func (r *Report) sort() {
	slices.SortStableFunc(r.Problems, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(a.File, b.File),
			cmp.Compare(a.Document, b.Document),
			cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Path, b.Path),
			cmp.Compare(a.Code, b.Code),
			cmp.Compare(a.Message, b.Message),
		)
	})
	r.Problems = slices.Compact(r.Problems)
}

// document is one YAML document: where it is, what it is, and where each of its
// fields stands.
type document struct {
	file       string
	number     int
	line       int
	apiVersion string
	kind       string
	name       string
	namespace  string
	positions  map[string]position
}

type position struct{ line, column int }

// has reports whether a field was written down with a value.
func (d *document) has(path string) bool {
	_, ok := d.positions[path]
	return ok
}

// position of a field, or of the nearest parent that was written down.
func (d *document) position(path string) position {
	for path != "" {
		if p, ok := d.positions[path]; ok {
			return p
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return position{line: d.line, column: 1}
}

// authServerPath is where V-05 applies: anything invalid at or below it.
const authServerPath = "spec.authServerConfig"

// maxProblems bounds a report. What does not fit is an error of its own, so
// that a set is never accepted for having too many problems.
const maxProblems = 1000

// note adds a problem.
func (r *Report) note(p Problem) {
	switch n := len(r.Problems); {
	case n < maxProblems:
		p.Path = cleaned(p.Path, 512)
		r.Problems = append(r.Problems, p)
	case n == maxProblems:
		r.Problems = append(r.Problems, Problem{
			Severity: SeverityError, File: p.File, Message: fmt.Sprintf("there are more than %d problems; the others are not shown", maxProblems),
		})
	}
}

// add notes a problem of a document's field, at the place of the field.
func (r *Report) add(severity Severity, code string, d *document, path, format string, args ...any) {
	r.addAt(d.position(path), severity, code, d, path, format, args...)
}

// addAt notes a problem at a place of its own.
func (r *Report) addAt(at position, severity Severity, code string, d *document, path, format string, args ...any) {
	if code == "" && severity == SeverityError && d.kind == KindVirtualMCPServer && within(path, authServerPath) {
		code = "V-05"
	}
	r.note(Problem{
		Severity: severity, Code: code, Path: path, Message: fmt.Sprintf(format, args...), Line: at.line, Column: at.column,
		File: d.file, Document: d.number, Kind: d.kind, Name: d.name,
	})
}

// reported tells whether an error of this very field is known already.
func (r *Report) reported(d *document, path string) bool {
	return r.hasError(d, func(p string) bool { return p == path })
}

// reportedWithin tells whether an error of the field, or of something in it, is
// known already.
func (r *Report) reportedWithin(d *document, path string) bool {
	return r.hasError(d, func(p string) bool { return within(p, path) })
}

func (r *Report) hasError(d *document, match func(path string) bool) bool {
	for i := range r.Problems {
		if p := &r.Problems[i]; p.Severity == SeverityError && p.Document == d.number && match(p.Path) && p.File == d.file {
			return true
		}
	}
	return false
}

func (r *Report) errorf(d *document, path, format string, args ...any) {
	r.add(SeverityError, "", d, path, format, args...)
}

func (r *Report) warnf(d *document, path, format string, args ...any) {
	r.add(SeverityWarning, "", d, path, format, args...)
}

func within(path, parent string) bool {
	return path == parent || strings.HasPrefix(path, parent+".") || strings.HasPrefix(path, parent+"[")
}
