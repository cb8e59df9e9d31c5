package secret

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

// Redacted is what every secret prints as.
const Redacted = "[redacted]"

// String is a secret text. The zero value is empty.
//
// The text sits behind a pointer because fmt cannot call methods of unexported
// fields: a secret deep inside a printed struct shows an address at worst.
type String struct{ v *string }

// New returns s as a secret.
func New(s string) String {
	if s == "" {
		return String{}
	}
	return String{&s}
}

// Reveal returns the text. Each call is a place that a reviewer looks at.
func (s String) Reveal() string {
	if s.v == nil {
		return ""
	}
	return *s.v
}

// IsZero reports whether there is no text.
func (s String) IsZero() bool { return s.v == nil }

// Equal compares in time that depends on the lengths only.
func (s String) Equal(other String) bool {
	return subtle.ConstantTimeCompare([]byte(s.Reveal()), []byte(other.Reveal())) == 1
}

// String implements fmt.Stringer.
func (String) String() string { return Redacted }

// Format implements fmt.Formatter, for every verb and flag.
func (String) Format(f fmt.State, _ rune) { redact(f) }

// MarshalText implements encoding.TextMarshaler, which JSON and YAML use too.
func (String) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// UnmarshalText implements encoding.TextUnmarshaler, for flags and environment.
func (s *String) UnmarshalText(text []byte) error {
	*s = New(string(text))
	return nil
}

// LogValue implements slog.LogValuer.
func (String) LogValue() slog.Value { return slog.StringValue(Redacted) }

// Bytes is a secret of arbitrary bytes. The zero value is empty.
//
// Two pointers, because fmt follows one to a slice when a verb does not fit.
type Bytes struct{ v **[]byte }

// NewBytes returns b as a secret. It keeps b: do not change it afterwards.
func NewBytes(b []byte) Bytes {
	if len(b) == 0 {
		return Bytes{}
	}
	return Bytes{new(&b)}
}

// Reveal returns the bytes themselves, not a copy.
func (b Bytes) Reveal() []byte {
	if b.v == nil {
		return nil
	}
	return **b.v
}

// Len returns the number of bytes.
func (b Bytes) Len() int { return len(b.Reveal()) }

// IsZero reports whether there are no bytes.
func (b Bytes) IsZero() bool { return b.v == nil }

// Equal compares in time that depends on the lengths only.
func (b Bytes) Equal(other Bytes) bool {
	return subtle.ConstantTimeCompare(b.Reveal(), other.Reveal()) == 1
}

// String implements fmt.Stringer.
func (Bytes) String() string { return Redacted }

// Format implements fmt.Formatter, for every verb and flag.
func (Bytes) Format(f fmt.State, _ rune) { redact(f) }

// MarshalText implements encoding.TextMarshaler, which JSON and YAML use too.
func (Bytes) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// LogValue implements slog.LogValuer.
func (Bytes) LogValue() slog.Value { return slog.StringValue(Redacted) }

// redact ignores the error: fmt's own writer has none to give.
func redact(w io.Writer) { _, _ = io.WriteString(w, Redacted) }
