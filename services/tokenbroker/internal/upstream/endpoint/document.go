package endpoint

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"chatelaine.dev/internal/config"
)

// Document is an answer as an object. Values are string, json.Number, bool,
// nil, []any and map[string]any.
type Document map[string]any

const (
	maxDepth = 32
	maxPairs = 256 // of a form
)

// The errors of parsing say what is wrong, never with which bytes.
var (
	errNotObject = errors.New("not a JSON object")
	errSyntax    = errors.New("malformed JSON")
	errDepth     = fmt.Errorf("nested deeper than %d", maxDepth)
	errDuplicate = errors.New("a key occurs twice")
	errTrailing  = errors.New("more than one JSON value")
	errUTF8      = errors.New("not UTF-8")
	errForm      = errors.New("malformed form")
	errMediaType = errors.New("neither JSON nor a form")
)

// Parse reads an answer that is JSON or, as some servers send it, a form.
// HTML and anything else is an error.
func Parse(contentType string, body []byte) (Document, error) {
	if trimmed := bytes.TrimLeft(body, " \t\r\n"); len(trimmed) > 0 && trimmed[0] == '{' {
		return ParseJSON(body)
	}
	media, _, _ := mime.ParseMediaType(contentType)
	switch media {
	case "application/x-www-form-urlencoded", "text/plain":
		return ParseForm(body)
	}
	return nil, errMediaType
}

// ParseJSON reads one JSON object. Unlike encoding/json it takes no key twice,
// so that two readers of one answer cannot disagree, and tells keys apart by case.
func ParseJSON(body []byte) (Document, error) {
	if !utf8.Valid(body) {
		return nil, errUTF8
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	v, err := parseValue(dec, 0)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errTrailing
	}
	object, ok := v.(map[string]any)
	if !ok {
		return nil, errNotObject
	}
	return object, nil
}

func parseValue(dec *json.Decoder, depth int) (any, error) {
	token, err := dec.Token()
	if err != nil {
		return nil, errSyntax // the decoder's own text quotes the input
	}
	delim, ok := token.(json.Delim)
	if !ok {
		return token, nil
	}
	if depth >= maxDepth {
		return nil, errDepth
	}
	if delim == '[' {
		list := []any{}
		for dec.More() {
			v, err := parseValue(dec, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, closing(dec)
	}
	object := map[string]any{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, errSyntax
		}
		key, ok := token.(string)
		if !ok {
			return nil, errSyntax
		}
		if _, dup := object[key]; dup {
			return nil, errDuplicate
		}
		if object[key], err = parseValue(dec, depth+1); err != nil {
			return nil, err
		}
	}
	return object, closing(dec)
}

func closing(dec *json.Decoder) error {
	if _, err := dec.Token(); err != nil {
		return errSyntax
	}
	return nil
}

// ParseForm reads a form-encoded answer, as GitHub's token endpoint sends one.
func ParseForm(body []byte) (Document, error) {
	if bytes.Count(body, []byte("&")) >= maxPairs {
		return nil, errForm
	}
	values, err := url.ParseQuery(strings.TrimSpace(string(body)))
	if err != nil {
		return nil, errForm // the error quotes the input
	}
	if len(values) == 0 {
		return nil, errForm
	}
	doc := make(Document, len(values))
	for key, list := range values {
		if len(list) != 1 {
			return nil, errDuplicate
		}
		if !utf8.ValidString(key) || !utf8.ValidString(list[0]) {
			return nil, errUTF8
		}
		doc[key] = list[0]
	}
	return doc, nil
}

// Path names a value in a document: keys joined by dots, where "\." is a dot
// within a key, and digits may index an array. A segment "@upstreamjwt", set
// off by "|" or a dot, stands for the payload of the JWT found so far: for
// example "access_token|@upstreamjwt|sub".
type Path []string

// ParsePath splits a path of the resources. The empty text is the empty path,
// which finds nothing.
func ParsePath(text string) Path { return config.JSONKeys(text) }

// Lookup returns the value at the path. It reports false when nothing is there,
// or null.
func (d Document) Lookup(path Path) (any, bool) {
	if len(path) == 0 {
		return nil, false
	}
	var v any = map[string]any(d)
	for _, segment := range path {
		switch node := v.(type) {
		case map[string]any:
			v = node[segment]
		case []any:
			i, err := strconv.Atoi(segment)
			if err != nil || i < 0 || i >= len(node) {
				return nil, false
			}
			v = node[i]
		case string:
			if segment != config.JWTModifier {
				return nil, false
			}
			payload, err := jwtPayload(node)
			if err != nil {
				return nil, false
			}
			v = map[string]any(payload)
		default:
			return nil, false
		}
		if v == nil {
			return nil, false
		}
	}
	return v, true
}

// jwtPayload reads a JWT's claims without checking its signature. It is for
// tokens that came straight from the server that signed them, over TLS.
func jwtPayload(token string) (Document, error) {
	_, rest, ok := strings.Cut(token, ".")
	if !ok {
		return nil, errSyntax
	}
	payload, signature, ok := strings.Cut(rest, ".")
	if !ok || strings.Contains(signature, ".") {
		return nil, errSyntax
	}
	raw, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return nil, errSyntax
	}
	return ParseJSON(raw)
}

// String returns the string at the path; false for any other type and for the
// empty string.
func (d Document) String(path Path) (string, bool) {
	v, ok := d.Lookup(path)
	if !ok {
		return "", false
	}
	s, ok := v.(string)
	return s, ok && s != ""
}

// ID returns a string or an integer at the path as text: the integer in the
// digits that the server wrote, whatever its size. Fractions, exponents and
// other types are not ids.
func (d Document) ID(path Path) (string, bool) {
	v, ok := d.Lookup(path)
	if !ok {
		return "", false
	}
	switch v := v.(type) {
	case string:
		return v, v != ""
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE") {
			return "", false
		}
		return v.String(), true
	}
	return "", false
}

// Strings returns a list of strings at the path: an array of strings, or one
// string.
func (d Document) Strings(path Path) []string {
	v, _ := d.Lookup(path)
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		list := make([]string, 0, len(v))
		for _, item := range v {
			if s, ok := item.(string); ok {
				list = append(list, s)
			}
		}
		return list
	}
	return nil
}
