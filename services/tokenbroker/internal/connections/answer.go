package connections

import (
	"context"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	"chatelaine.dev/internal/fault"
)

// Errors over REST are what they are over gRPC: a google.rpc.Status, as JSON.

// writeError answers with the status of an error.
func writeError(w http.ResponseWriter, f *fault.Error) { writeStatus(w, f.Kind.HTTPStatus(), f) }

func writeStatus(w http.ResponseWriter, code int, f *fault.Error) {
	body, err := protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(f.GRPCStatus().Proto())
	if err != nil { // details are of fixed types, and text that is not UTF-8 never got into them
		body = []byte(`{"code":13,"message":"internal error","details":[]}`)
		code = http.StatusInternalServerError
	}
	w.Header().Set("Content-Type", "application/json")
	if f.RetryAfter > 0 { // in whole seconds, RFC 9110, section 10.2.3
		w.Header().Set("Retry-After", strconv.FormatFloat(math.Ceil(f.RetryAfter.Seconds()), 'f', 0, 64))
	}
	w.WriteHeader(code)
	_, _ = w.Write(body) // the reader went away: nobody to tell
}

// writeGatewayError answers with what a call came to, or says what the gateway
// could not read of a request.
func writeGatewayError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, r *http.Request, err error) {
	s := status.Convert(err)
	if s.Code() == codes.InvalidArgument && len(s.Details()) == 0 { // no call was made
		part := "body"
		if r.Method == http.MethodGet {
			part = "query"
		}
		writeError(w, invalidRequest(part, readable(s.Message())))
		return
	}
	writeError(w, fault.From(err))
}

// readable undoes what protojson does to keep programs from reading its messages.
func readable(message string) string {
	return strings.TrimPrefix(strings.ReplaceAll(message, "\u00a0", " "), "proto: ")
}

func writeRoutingError(_ context.Context, _ *runtime.ServeMux, _ runtime.Marshaler, w http.ResponseWriter, _ *http.Request, code int) {
	switch code {
	case http.StatusNotFound:
		writeError(w, fault.New(fault.NotFound, "there is no such path: see "+openAPIPath))
	case http.StatusMethodNotAllowed:
		writeStatus(w, code, fault.New(fault.Unimplemented, "this path does not take that method: see "+openAPIPath))
	default:
		writeError(w, fault.New(fault.Invalid, "the request is not valid").WithReason(reasonInvalid))
	}
}

// reasonInvalid is package rpc's reason for requests that break a rule.
const reasonInvalid = "request_invalid"

func invalidRequest(field, problem string) *fault.Error {
	return fault.New(fault.Invalid, "the request is not valid").WithReason(reasonInvalid).WithField(field, problem)
}
