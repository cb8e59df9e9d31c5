package jsonrpc

import (
	"fmt"
	"unicode/utf8"
)

// MaxDepth is how deep arrays and objects may nest.
const MaxDepth = 512

// SyntaxError says where and why a message is not JSON.
type SyntaxError struct {
	// Offset in bytes from the start of the message.
	Offset int
	// Problem is for people to read; it quotes nothing of the message.
	Problem string
}

// Error implements error.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("not JSON at byte %d: %s", e.Offset, e.Problem)
}

// Span is a range of bytes of a message: [Start, End). The zero Span means that
// there is no such thing.
type Span struct{ Start, End int }

// IsZero reports whether there is no such thing.
func (s Span) IsZero() bool { return s.End == 0 }

// Of returns the bytes of raw that the span names; nil for the zero Span.
func (s Span) Of(raw []byte) []byte {
	if s.IsZero() {
		return nil
	}
	return raw[s.Start:s.End:s.End]
}

// Kind is a type of JSON value.
type Kind byte

// The kinds. They are what the first byte of a value tells.
const (
	None   Kind = 0
	Object Kind = '{'
	Array  Kind = '['
	String Kind = '"'
	Number Kind = '0'
	Bool   Kind = 't'
	Null   Kind = 'n'
)

// Kind returns the type of the value that the span names.
func (s Span) Kind(raw []byte) Kind {
	if s.IsZero() {
		return None
	}
	return kindOf(raw[s.Start])
}

func kindOf(c byte) Kind {
	switch {
	case c == '{', c == '[', c == '"', c == 'n':
		return Kind(c)
	case c == 't', c == 'f':
		return Bool
	}
	return Number
}

// scanner walks over one message. The first problem ends the walk.
type scanner struct {
	data []byte
	pos  int
}

func (s *scanner) fail(problem string) error {
	return &SyntaxError{Offset: s.pos, Problem: problem}
}

func (s *scanner) space() {
	for s.pos < len(s.data) {
		switch s.data[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// peek returns the next byte that is no white space, 0 at the end.
func (s *scanner) peek() byte {
	s.space()
	if s.pos < len(s.data) {
		return s.data[s.pos]
	}
	return 0
}

// value walks over one value and returns its place.
func (s *scanner) value(depth int) (Span, error) {
	c := s.peek()
	start := s.pos
	var err error
	switch {
	case c == '{':
		err = s.object(depth, func([]byte, Span) error { return nil })
	case c == '[':
		err = s.array(depth, func(Span) error { return nil })
	case c == '"':
		err = s.text()
	case c == '-', c >= '0' && c <= '9':
		err = s.number()
	case c == 't':
		err = s.literal("true")
	case c == 'f':
		err = s.literal("false")
	case c == 'n':
		err = s.literal("null")
	default:
		err = s.fail("a value was expected")
	}
	return Span{start, s.pos}, err
}

// member is told of each member of an object: the key as it stands, without its
// quotes, and the place of its value.
type member func(key []byte, value Span) error

func (s *scanner) object(depth int, visit member) error {
	if depth >= MaxDepth {
		return s.fail("nested too deep")
	}
	s.pos++ // '{'
	if s.peek() == '}' {
		s.pos++
		return nil
	}
	for {
		if s.peek() != '"' {
			return s.fail("a key was expected")
		}
		start := s.pos
		if err := s.text(); err != nil {
			return err
		}
		key := s.data[start+1 : s.pos-1]
		if s.peek() != ':' {
			return s.fail("':' was expected")
		}
		s.pos++
		value, err := s.value(depth + 1)
		if err != nil {
			return err
		}
		if err := visit(key, value); err != nil {
			return err
		}
		if done, err := s.next('}'); done || err != nil {
			return err
		}
	}
}

func (s *scanner) array(depth int, visit func(Span) error) error {
	if depth >= MaxDepth {
		return s.fail("nested too deep")
	}
	s.pos++ // '['
	if s.peek() == ']' {
		s.pos++
		return nil
	}
	for {
		value, err := s.value(depth + 1)
		if err != nil {
			return err
		}
		if err := visit(value); err != nil {
			return err
		}
		if done, err := s.next(']'); done || err != nil {
			return err
		}
	}
}

// next walks over the comma before the next element, or over the end.
func (s *scanner) next(end byte) (done bool, err error) {
	switch s.peek() {
	case ',':
		s.pos++
		return false, nil
	case end:
		s.pos++
		return true, nil
	}
	return false, s.fail("',' or the end was expected")
}

func (s *scanner) text() error {
	s.pos++ // '"'
	for s.pos < len(s.data) {
		switch c := s.data[s.pos]; {
		case c == '"':
			s.pos++
			return nil
		case c == '\\':
			if err := s.escape(); err != nil {
				return err
			}
		case c < 0x20:
			return s.fail("a control character in a string")
		case c < utf8.RuneSelf:
			s.pos++
		default:
			r, size := utf8.DecodeRune(s.data[s.pos:])
			if r == utf8.RuneError && size == 1 {
				return s.fail("a string is not UTF-8")
			}
			s.pos += size
		}
	}
	return s.fail("a string does not end")
}

func (s *scanner) escape() error {
	if s.pos+1 >= len(s.data) {
		return s.fail("a string does not end")
	}
	switch s.data[s.pos+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.pos += 2
		return nil
	case 'u':
		if s.pos+6 > len(s.data) {
			return s.fail("a string does not end")
		}
		for _, c := range s.data[s.pos+2 : s.pos+6] {
			if !isHex(c) {
				return s.fail("a bad escape in a string")
			}
		}
		s.pos += 6
		return nil
	}
	return s.fail("a bad escape in a string")
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func (s *scanner) literal(word string) error {
	if len(s.data)-s.pos < len(word) || string(s.data[s.pos:s.pos+len(word)]) != word {
		return s.fail("a value was expected")
	}
	s.pos += len(word)
	return nil
}

// number follows the grammar of RFC 8259, section 6.
func (s *scanner) number() error {
	if s.data[s.pos] == '-' {
		s.pos++
	}
	if s.pos < len(s.data) && s.data[s.pos] == '0' {
		s.pos++
	} else if !s.digits() {
		return s.fail("a bad number")
	}
	if s.pos < len(s.data) && s.data[s.pos] == '.' {
		s.pos++
		if !s.digits() {
			return s.fail("a bad number")
		}
	}
	if s.pos < len(s.data) && (s.data[s.pos] == 'e' || s.data[s.pos] == 'E') {
		s.pos++
		if s.pos < len(s.data) && (s.data[s.pos] == '+' || s.data[s.pos] == '-') {
			s.pos++
		}
		if !s.digits() {
			return s.fail("a bad number")
		}
	}
	return nil
}

func (s *scanner) digits() bool {
	start := s.pos
	for s.pos < len(s.data) && s.data[s.pos] >= '0' && s.data[s.pos] <= '9' {
		s.pos++
	}
	return s.pos > start
}

// end checks that nothing follows.
func (s *scanner) end() error {
	if s.peek() != 0 || s.pos < len(s.data) {
		return s.fail("something follows the message")
	}
	return nil
}
