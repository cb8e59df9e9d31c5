package fault

import (
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Domain is the ErrorInfo domain (google.rpc.ErrorInfo) of our reasons.
const Domain = "chatelaine.dev"

// GRPCStatus returns the public face as a gRPC status: the kind as its code,
// reason and metadata in an ErrorInfo, fields in a BadRequest, RetryAfter in a
// RetryInfo. The ErrorInfo is always there, since it marks the message as one
// that we wrote. The cause is not in it.
func (e *Error) GRPCStatus() *status.Status {
	s := status.New(e.Kind.Code(), e.text())
	details := []protoadapt.MessageV1{
		&errdetails.ErrorInfo{Domain: Domain, Reason: e.Reason, Metadata: e.Metadata},
	}
	if len(e.Fields) > 0 {
		br := &errdetails.BadRequest{}
		for _, f := range e.Fields {
			br.FieldViolations = append(br.FieldViolations,
				&errdetails.BadRequest_FieldViolation{Field: f.Path, Description: f.Problem})
		}
		details = append(details, br)
	}
	if e.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	}
	withDetails, err := s.WithDetails(details...)
	if err != nil { // a string that is not UTF-8: the code and text still go out
		return s
	}
	return withDetails
}

// FromGRPC turns what a gRPC call returned into a *Error whose cause is err.
// A status that does not carry our ErrorInfo was written by a transport or a
// proxy and may name addresses, so its text is kept for the logs alone.
// FromGRPC(nil) is nil, as an untyped nil error.
func FromGRPC(err error) error {
	if err == nil {
		return nil
	}
	return From(err)
}

func fromStatus(s *status.Status, cause error) *Error {
	e := &Error{Kind: kindOfCode(s.Code()), cause: cause}
	if s.Code() == codes.OK {
		return e
	}
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() != Domain {
				continue
			}
			e.Reason, e.Metadata = d.GetReason(), d.GetMetadata()
			if msg := s.Message(); msg != e.Kind.row().text {
				e.Message = msg
			}
		case *errdetails.BadRequest:
			for _, v := range d.GetFieldViolations() {
				e.Fields = append(e.Fields, Field{Path: v.GetField(), Problem: v.GetDescription()})
			}
		case *errdetails.RetryInfo:
			e.RetryAfter = d.GetRetryDelay().AsDuration()
		}
	}
	return e
}
