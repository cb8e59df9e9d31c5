package fault

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/status"
)

// Error is an error with a public face and a private cause.
// Treat it as immutable: the With methods return copies.
type Error struct {
	// Kind says what a program can do about it.
	Kind Kind
	// Reason tells the cases of one kind apart; may be empty. See the package comment.
	Reason string
	// Message is for the caller to read. It holds no secret, no e-mail address
	// and no text that a foreign server sent.
	Message string
	// Metadata is machine-readable detail of the reason, as public as Message.
	Metadata map[string]string
	// Fields lists what is wrong with the request, for Kind Invalid.
	Fields []Field
	// RetryAfter is how long to wait before trying again; zero means unsaid.
	RetryAfter time.Duration

	cause error
}

// Field is one problem of a request.
type Field struct {
	// Path names the field as the caller wrote it, e.g. "redirect_uris[2]".
	Path string
	// Problem says what is wrong, e.g. "has a fragment".
	Problem string
}

// New returns an error without a cause. An empty msg means the kind's own text.
func New(kind Kind, msg string) *Error {
	return &Error{Kind: kind, Message: msg}
}

// Newf is New with a format. The text is public; there is no %w: use Wrap.
func Newf(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...)}
}

// Wrap returns an error whose cause is for the logs only.
// A nil cause is the same as New.
func Wrap(kind Kind, cause error, msg string) *Error {
	return &Error{Kind: kind, Message: msg, cause: cause}
}

// WithReason returns a copy with the reason and, from pairs of key and value,
// metadata. A key without a value gets an empty one.
func (e *Error) WithReason(reason string, kv ...string) *Error {
	c := e.clone()
	c.Reason = reason
	for i := 0; i < len(kv); i += 2 {
		if c.Metadata == nil {
			c.Metadata = make(map[string]string, (len(kv)+1)/2)
		}
		value := ""
		if i+1 < len(kv) {
			value = kv[i+1]
		}
		c.Metadata[kv[i]] = value
	}
	return c
}

// WithField returns a copy with one more field problem.
func (e *Error) WithField(path, problem string) *Error {
	c := e.clone()
	c.Fields = append(c.Fields, Field{Path: path, Problem: problem})
	return c
}

// WithRetryAfter returns a copy that asks the caller to wait for d.
func (e *Error) WithRetryAfter(d time.Duration) *Error {
	c := e.clone()
	c.RetryAfter = d
	return c
}

// WithPrefix returns a copy whose message begins with what it is about, such as
// the name of a flag: "--session-key: secret gateway/session not found …".
func (e *Error) WithPrefix(about string) *Error {
	c := e.clone()
	c.Message = about + ": " + e.text()
	return c
}

// WithCause returns a copy with another cause.
func (e *Error) WithCause(cause error) *Error {
	c := e.clone()
	c.cause = cause
	return c
}

func (e *Error) clone() *Error {
	c := *e
	c.Metadata = maps.Clone(e.Metadata)
	c.Fields = slices.Clone(e.Fields)
	return &c
}

// Error returns the public text: the message, then the fields.
// It never shows the cause; see Detail and LogValue.
func (e *Error) Error() string {
	if len(e.Fields) == 0 {
		return e.text()
	}
	var b strings.Builder
	b.WriteString(e.text())
	for i, f := range e.Fields {
		sep := "; "
		if i == 0 {
			sep = ": "
		}
		b.WriteString(sep + f.Path + ": " + f.Problem)
	}
	return b.String()
}

func (e *Error) text() string {
	if e.Message != "" {
		return e.Message
	}
	return e.Kind.row().text
}

// Unwrap returns the cause, so that errors.Is and errors.As see through.
func (e *Error) Unwrap() error { return e.cause }

// LogValue shows everything, the cause too, as a slog group.
func (e *Error) LogValue() slog.Value {
	attrs := []slog.Attr{slog.String("kind", e.Kind.String())}
	if e.Reason != "" {
		attrs = append(attrs, slog.String("reason", e.Reason))
	}
	attrs = append(attrs, slog.String("message", e.Error()))
	for _, k := range slices.Sorted(maps.Keys(e.Metadata)) {
		attrs = append(attrs, slog.String("metadata."+k, e.Metadata[k]))
	}
	if e.cause != nil {
		attrs = append(attrs, slog.String("cause", Detail(e.cause)))
	}
	return slog.GroupValue(attrs...)
}

// Attr returns err as the attribute "error" of a log record: the group of
// LogValue when a *Error is in the chain, plain text otherwise.
func Attr(err error) slog.Attr {
	e, ok := As(err)
	if !ok {
		return slog.Any("error", err)
	}
	if text := err.Error(); text != e.Error() { // put around the *Error on its way up
		return slog.Attr{Key: "error", Value: slog.GroupValue(
			append(e.LogValue().Group(), slog.String("context", text))...)}
	}
	return slog.Attr{Key: "error", Value: e.LogValue()}
}

// Detail returns the whole chain, causes included, on one line. It is for logs,
// never for a caller.
func Detail(err error) string {
	if err == nil {
		return ""
	}
	texts := problems(err)
	for i, text := range texts {
		texts[i] = oneLine(text)
	}
	return strings.Join(texts, "; ")
}

func oneLine(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(text, "\n\t", " "), "\n", " ")
}

// Terminal is Detail for the terminal of whoever runs the program: errors that are
// joined have a line each, and the lines of a message stay; those of causes are joined.
func Terminal(err error) string {
	if err == nil {
		return ""
	}
	return strings.Join(problems(err), "\n")
}

// Parts returns the errors that err joins, each with what was put around them on
// their way up; err alone when it joins none.
func Parts(err error) []error {
	switch e := err.(type) { //nolint:errorlint // the chain is walked by hand, for the text of each link
	case *Error: // what a cause joins belongs to this one problem
	case interface{ Unwrap() []error }:
		if parts := e.Unwrap(); err.Error() == errors.Join(parts...).Error() {
			var all []error
			for _, part := range parts {
				all = append(all, Parts(part)...)
			}
			return all
		}
	case interface{ Unwrap() error }:
		inner := e.Unwrap()
		if inner == nil {
			break
		}
		about, ok := strings.CutSuffix(err.Error(), inner.Error())
		if parts := Parts(inner); ok && len(parts) > 1 {
			for i, part := range parts {
				parts[i] = fmt.Errorf("%s%w", about, part)
			}
			return parts
		}
	}
	return []error{err}
}

// problems returns the text of each error that err joins, with its cause behind it.
func problems(err error) []string {
	text := err.Error()
	switch e := err.(type) { //nolint:errorlint // the chain is walked by hand, for the text of each link
	case *Error:
		return []string{text + added(text, e.cause)}
	case interface{ Unwrap() []error }:
		if parts := e.Unwrap(); text == errors.Join(parts...).Error() {
			var all []string
			for _, part := range parts {
				all = append(all, problems(part)...)
			}
			return all
		}
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			if about, ok := strings.CutSuffix(text, inner.Error()); ok {
				all := problems(inner)
				all[0] = about + all[0]
				return all
			}
		}
	}
	if e, ok := As(err); ok { // somewhere in a text that was put together in another way
		text += added(text, e.cause)
	}
	return []string{text}
}

// added is what a cause says beyond a text that may end with the cause's own.
func added(text string, cause error) string {
	if cause == nil {
		return ""
	}
	detail, own := Detail(cause), oneLine(cause.Error())
	if more, ok := strings.CutPrefix(detail, own); ok && own != "" && strings.HasSuffix(text, own) {
		return more
	}
	return ": " + detail
}

// As returns the outermost *Error in err's chain.
func As(err error) (*Error, bool) {
	return errors.AsType[*Error](err)
}

// From returns err as a *Error: the one in its chain; or Timeout and Canceled
// for the errors of a context; or what a gRPC status says; or Internal. The
// result of a foreign error has a public text that says nothing of it, and err
// as its cause. From(nil) is nil.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := As(err); ok {
		return e
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return Wrap(Timeout, err, "")
	case errors.Is(err, context.Canceled):
		return Wrap(Canceled, err, "")
	}
	if s, ok := errors.AsType[interface {
		error
		GRPCStatus() *status.Status
	}](err); ok {
		return fromStatus(s.GRPCStatus(), err)
	}
	return Wrap(Internal, err, "")
}

// KindOf returns the kind of From(err). KindOf(nil) is Internal; do not ask.
func KindOf(err error) Kind {
	if e := From(err); e != nil {
		return e.Kind
	}
	return Internal
}

// ReasonOf returns the reason of From(err), or "".
func ReasonOf(err error) string {
	if e := From(err); e != nil {
		return e.Reason
	}
	return ""
}
