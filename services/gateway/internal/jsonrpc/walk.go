package jsonrpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
)

// errStop ends a walk that has found what it was looking for.
var errStop = errors.New("stop")

// Members calls visit for each member of the object that raw holds at obj, in
// order, with the key's escapes resolved. raw must have been parsed before;
// spans are places in raw. An error of visit ends the walk and is returned. A
// value that is no object has no members.
func Members(raw []byte, obj Span, visit func(key string, value Span) error) error {
	if obj.Kind(raw) != Object {
		return nil
	}
	s := scanner{data: raw[:obj.End], pos: obj.Start}
	return s.object(0, func(key []byte, value Span) error {
		return visit(unescape(key), value)
	})
}

// Elements calls visit for each element of the array that raw holds at arr. It
// is otherwise like Members.
func Elements(raw []byte, arr Span, visit func(value Span) error) error {
	if arr.Kind(raw) != Array {
		return nil
	}
	s := scanner{data: raw[:arr.End], pos: arr.Start}
	return s.array(0, visit)
}

// Find returns the place of the member that path leads to, from the object at
// from, or the zero Span when there is none. Of a key that occurs twice the
// last counts, as most decoders have it.
func Find(raw []byte, from Span, path ...string) Span {
	at := from
	for _, name := range path {
		var found Span
		_ = Members(raw, at, func(key string, value Span) error {
			if key == name {
				found = value
			}
			return nil
		})
		if found.IsZero() {
			return Span{}
		}
		at = found
	}
	return at
}

// Whole returns the place of the one value that raw holds, after checking that
// all of raw is JSON. Errors are *SyntaxError.
func Whole(raw []byte) (Span, error) {
	s := scanner{data: raw}
	span, err := s.value(0)
	if err != nil {
		return Span{}, err
	}
	return span, s.end()
}

// IsBatch reports whether raw is an array, which JSON-RPC calls a batch.
func IsBatch(raw []byte) bool {
	s := scanner{data: raw}
	return s.peek() == '['
}

// Batch returns the places of a batch's messages. It checks that all of raw is
// JSON; each message is still to be parsed. More than limit messages are an
// ErrInvalid, and so is an empty batch (JSON-RPC 2.0, section 6).
func Batch(raw []byte, limit int) ([]Span, error) {
	s := scanner{data: raw}
	if s.peek() != '[' {
		return nil, s.fail("a batch was expected")
	}
	var spans []Span
	err := s.array(0, func(value Span) error {
		if len(spans) >= limit {
			return errStop
		}
		spans = append(spans, value)
		return nil
	})
	switch {
	case errors.Is(err, errStop):
		return nil, invalid("the batch has too many messages")
	case err != nil:
		return nil, err
	case len(spans) == 0:
		return nil, invalid("the batch is empty")
	}
	return spans, s.end()
}

// Text returns the string that raw holds at span, with its escapes resolved,
// and whether there is a string.
func Text(raw []byte, span Span) (string, bool) {
	if span.Kind(raw) != String {
		return "", false
	}
	return unescape(raw[span.Start+1 : span.End-1]), true
}

// unescape resolves the escapes of a string that the scanner has accepted. A
// lone surrogate becomes U+FFFD, as in encoding/json.
func unescape(text []byte) string {
	if bytes.IndexByte(text, '\\') < 0 {
		return string(text)
	}
	quoted := make([]byte, 0, len(text)+2)
	quoted = append(quoted, '"')
	quoted = append(quoted, text...)
	quoted = append(quoted, '"')
	var s string
	if json.Unmarshal(quoted, &s) != nil { // cannot be: the scanner has accepted it
		return string(text)
	}
	return s
}

// AppendString appends s as a JSON string.
func AppendString(dst []byte, s string) []byte {
	quoted, err := json.Marshal(s)
	if err != nil { // cannot be: every string can be marshalled
		return append(dst, `""`...)
	}
	return append(dst, quoted...)
}

// EscapeLineEnds returns a message whose strings have no character that some
// readers of event streams take for the end of a line, beside CR and LF: NEL,
// LINE SEPARATOR and PARAGRAPH SEPARATOR (U+0085, U+2028, U+2029). raw must have
// been parsed before; it is returned as it is when it has none.
func EscapeLineEnds(raw []byte) []byte {
	const nel, line, paragraph = "\u0085", "\u2028", "\u2029"
	if !bytes.Contains(raw, []byte(nel)) && !bytes.Contains(raw, []byte(line)) && !bytes.Contains(raw, []byte(paragraph)) {
		return raw
	}
	return []byte(strings.NewReplacer(nel, `\u0085`, line, `\u2028`, paragraph, `\u2029`).Replace(string(raw)))
}

// Edit replaces a place of a message.
type Edit struct {
	Span Span
	// With is JSON, or nothing.
	With []byte
}

// Splice returns a copy of raw with the edits done. They must be in order and
// not overlap; an edit of the zero Span is left out.
func Splice(raw []byte, edits ...Edit) []byte {
	size := len(raw)
	for _, e := range edits {
		size += len(e.With)
	}
	out := make([]byte, 0, size)
	at := 0
	for _, e := range edits {
		if e.Span.IsZero() {
			continue
		}
		out = append(out, raw[at:e.Span.Start]...)
		out = append(out, e.With...)
		at = e.Span.End
	}
	return append(out, raw[at:]...)
}
