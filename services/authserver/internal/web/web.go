package web

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"go.opentelemetry.io/otel/trace"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/telemetry"
)

// Secure sets the headers that every answer carries. Handlers may replace them.
func Secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'")
		next.ServeHTTP(w, r)
	})
}

// CORS lets scripts of any origin call next, without credentials, and answers
// their preflights (Fetch standard, section 3.2) before anything else looks at
// the request.
func CORS(next http.Handler, methods string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Access-Control-Expose-Headers", "WWW-Authenticate, Retry-After, "+telemetry.RequestIDHeader)
		if r.Method != http.MethodOptions {
			next.ServeHTTP(w, r)
			return
		}
		h.Set("Access-Control-Allow-Methods", methods)
		h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Accept, MCP-Protocol-Version, Traceparent, Tracestate")
		h.Set("Access-Control-Max-Age", "600")
		w.WriteHeader(http.StatusNoContent)
	})
}

// JSON writes v with a status.
func JSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client went away: nobody to tell
}

// ReadBody reads at most limit bytes. More is Invalid with reason body_too_large.
func ReadBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return nil, TooLarge(limit)
	}
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "the body could not be read")
	}
	return body, nil
}

// ReadForm parses a form of at most limit bytes into r.PostForm; errors are as
// those of ReadBody.
func ReadForm(w http.ResponseWriter, r *http.Request, limit int64) error {
	r.Body = http.MaxBytesReader(w, r.Body, limit)
	err := r.ParseForm()
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return TooLarge(limit)
	}
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "the body is not a form")
	}
	return nil
}

// ReasonTooLarge is the reason of TooLarge.
const ReasonTooLarge = "body_too_large"

// TooLarge is the error for a body over the limit.
func TooLarge(limit int64) error {
	return fault.Newf(fault.Invalid, "the body is larger than %d bytes", limit).WithReason(ReasonTooLarge)
}

// Reference returns what finds a request in traces and logs: its trace id, or its
// request id when it is not traced.
func Reference(ctx context.Context) string {
	if sc := trace.SpanContextFromContext(ctx); sc.HasTraceID() {
		return sc.TraceID().String()
	}
	return telemetry.RequestID(ctx)
}
