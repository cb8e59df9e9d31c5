package telemetry

import (
	"context"
	"io"
	"log/slog"
	"os"
	"strings"

	"go.opentelemetry.io/otel/trace"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
)

func newLogger(cfg Config, level slog.Leveler) (*slog.Logger, error) {
	w := cfg.LogOutput
	if w == nil {
		w = os.Stderr
	}
	logger, err := NewLogger(w, cfg.LogFormat, level)
	if err != nil {
		return nil, err
	}
	return logger.With(slog.String("service", cfg.Service)), nil
}

// NewLogger returns a logger that adds trace_id, span_id and request_id from the
// context and hides what is known to be secret. format is "json" or "text".
func NewLogger(w io.Writer, format string, level slog.Leveler) (*slog.Logger, error) {
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: hideSecrets}
	switch format {
	case "json", "":
		return slog.New(contextHandler{slog.NewJSONHandler(w, opts)}), nil
	case "text":
		return slog.New(contextHandler{slog.NewTextHandler(w, opts)}), nil
	}
	return nil, fault.Newf(fault.Invalid, "log format %q: want json or text", format)
}

// contextHandler adds what identifies the request.
type contextHandler struct{ slog.Handler }

func (h contextHandler) Handle(ctx context.Context, r slog.Record) error {
	sc := trace.SpanContextFromContext(ctx)
	id := RequestID(ctx)
	if !sc.IsValid() && id == "" {
		return h.Handler.Handle(ctx, r)
	}
	r = r.Clone()
	if sc.IsValid() {
		r.AddAttrs(slog.String("trace_id", sc.TraceID().String()), slog.String("span_id", sc.SpanID().String()))
	}
	if id != "" {
		r.AddAttrs(slog.String("request_id", id))
	}
	return h.Handler.Handle(ctx, r)
}

func (h contextHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return contextHandler{h.Handler.WithAttrs(attrs)}
}

func (h contextHandler) WithGroup(name string) slog.Handler {
	return contextHandler{h.Handler.WithGroup(name)}
}

// secretKeys are attributes whose value must never be in a log, whatever its
// type. The types of package secret are the first line; this is the net below.
var secretKeys = map[string]bool{
	"authorization": true, "proxy-authorization": true, "cookie": true, "set-cookie": true,
	"password": true, "secret": true, "client_secret": true, "client_assertion": true,
	"token": true, "access_token": true, "refresh_token": true, "id_token": true,
	"subject_token": true, "actor_token": true, "assertion": true,
	"code": true, "code_verifier": true, "state": true, "nonce": true,
	"private_key": true, "api_key": true, "dsn": true, "database_url": true,
}

func hideSecrets(groups []string, a slog.Attr) slog.Attr {
	// gRPC and HTTP codes are numbers: only text is hidden.
	if a.Value.Kind() != slog.KindString && a.Value.Kind() != slog.KindAny {
		return a
	}
	if secretKeys[strings.ToLower(a.Key)] {
		a.Value = slog.StringValue(secret.Redacted)
	}
	return a
}

type requestIDKey struct{}

// WithRequestID returns a context whose log records carry id.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey{}, id)
}

// RequestID returns the request's id, or "".
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}
