package fault

import (
	"net/http"

	"google.golang.org/grpc/codes"
)

// Kind says what a program can do about an error.
type Kind uint8

// The kinds. The zero value is Internal, so that an error nobody classified is
// never mistaken for the caller's fault.
const (
	// Internal: a defect or an unexpected state of ours; the caller can do nothing.
	Internal Kind = iota
	// Invalid: the request is malformed; repeating it unchanged fails again.
	Invalid
	// Unauthenticated: no valid proof of who is calling.
	Unauthenticated
	// Denied: the caller is known and may not do this.
	Denied
	// NotFound: what the request names does not exist, or not for this caller.
	NotFound
	// Conflict: somebody else changed or made the thing first.
	Conflict
	// Precondition: the request is fine but the state of the system forbids it.
	Precondition
	// Exhausted: a limit is reached; retry after RetryAfter.
	Exhausted
	// Unavailable: something that we need is down; retry later.
	Unavailable
	// Timeout: the deadline passed.
	Timeout
	// Canceled: the caller went away.
	Canceled
	// Unimplemented: we do not do this.
	Unimplemented
)

// kinds holds, by Kind, the name for logs, the gRPC code, the HTTP status and
// the public text of an error that has no message of its own.
var kinds = [...]struct {
	name string
	code codes.Code
	http int
	text string
}{
	Internal:        {"internal", codes.Internal, http.StatusInternalServerError, "internal error"},
	Invalid:         {"invalid", codes.InvalidArgument, http.StatusBadRequest, "invalid request"},
	Unauthenticated: {"unauthenticated", codes.Unauthenticated, http.StatusUnauthorized, "not authenticated"},
	Denied:          {"denied", codes.PermissionDenied, http.StatusForbidden, "permission denied"},
	NotFound:        {"not_found", codes.NotFound, http.StatusNotFound, "not found"},
	Conflict:        {"conflict", codes.Aborted, http.StatusConflict, "conflict"},
	Precondition:    {"precondition", codes.FailedPrecondition, http.StatusBadRequest, "precondition failed"},
	Exhausted:       {"exhausted", codes.ResourceExhausted, http.StatusTooManyRequests, "limit reached"},
	Unavailable:     {"unavailable", codes.Unavailable, http.StatusServiceUnavailable, "temporarily unavailable"},
	Timeout:         {"timeout", codes.DeadlineExceeded, http.StatusGatewayTimeout, "deadline exceeded"},
	Canceled:        {"canceled", codes.Canceled, statusClientClosedRequest, "canceled"},
	Unimplemented:   {"unimplemented", codes.Unimplemented, http.StatusNotImplemented, "not implemented"},
}

// statusClientClosedRequest is what nginx logs for a client that hung up;
// nobody is left to read it, so it only shows in metrics.
const statusClientClosedRequest = 499

// String returns the kind's name in lower_snake_case.
func (k Kind) String() string { return k.row().name }

// HTTPStatus returns the status code with which an HTTP edge answers.
func (k Kind) HTTPStatus() int { return k.row().http }

// Code returns the gRPC code with which a gRPC edge answers.
func (k Kind) Code() codes.Code { return k.row().code }

func (k Kind) row() struct {
	name string
	code codes.Code
	http int
	text string
} {
	if int(k) >= len(kinds) {
		k = Internal
	}
	return kinds[k]
}

// kindOfCode is the inverse of Kind.Code, total over the codes of gRPC.
func kindOfCode(c codes.Code) Kind {
	switch c {
	case codes.InvalidArgument, codes.OutOfRange:
		return Invalid
	case codes.Unauthenticated:
		return Unauthenticated
	case codes.PermissionDenied:
		return Denied
	case codes.NotFound:
		return NotFound
	case codes.Aborted, codes.AlreadyExists:
		return Conflict
	case codes.FailedPrecondition:
		return Precondition
	case codes.ResourceExhausted:
		return Exhausted
	case codes.Unavailable:
		return Unavailable
	case codes.DeadlineExceeded:
		return Timeout
	case codes.Canceled:
		return Canceled
	case codes.Unimplemented:
		return Unimplemented
	default:
		return Internal
	}
}
