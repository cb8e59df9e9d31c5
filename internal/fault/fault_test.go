package fault_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"

	"chatelaine.dev/internal/fault"
)

const hidden = "password=hunter2"

func full() *fault.Error {
	return fault.Wrap(fault.Invalid, errors.New(hidden), "the request is wrong").
		WithReason("bad_request", "provider", "corp", "attempt", "2").
		WithField("redirect_uris[0]", "has a fragment").
		WithField("client_name", "is empty").
		WithRetryAfter(3 * time.Second)
}

func TestACallerOverGRPCSeesAllOfTheFaceAndNothingOfTheCause(t *testing.T) {
	t.Parallel()
	sent := full()
	s := sent.GRPCStatus()
	if text := prototext.Format(s.Proto()); strings.Contains(text, "hunter2") {
		t.Fatalf("the cause is on the wire: %s", text)
	}
	got, ok := fault.As(fault.FromGRPC(s.Err()))
	if !ok {
		t.Fatal("FromGRPC did not return a *fault.Error")
	}
	if diff := cmp.Diff(sent, got, cmpopts.IgnoreUnexported(fault.Error{})); diff != "" {
		t.Errorf("what arrived differs from what was sent (-sent +got):\n%s", diff)
	}
}

func TestEveryKindSurvivesTheWire(t *testing.T) {
	t.Parallel()
	for kind := fault.Internal; kind <= fault.Unimplemented; kind++ {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			err := fault.FromGRPC(fault.New(kind, "").GRPCStatus().Err())
			if got := fault.KindOf(err); got != kind {
				t.Errorf("kind %s became %s", kind, got)
			}
			if kind.HTTPStatus() < 400 || err.Error() == "" {
				t.Errorf("kind %s has HTTP status %d and text %q", kind, kind.HTTPStatus(), err.Error())
			}
		})
	}
}

func TestEveryCodeOfGRPCHasAKind(t *testing.T) {
	t.Parallel()
	want := map[codes.Code]fault.Kind{
		codes.Canceled: fault.Canceled, codes.Unknown: fault.Internal, codes.InvalidArgument: fault.Invalid,
		codes.DeadlineExceeded: fault.Timeout, codes.NotFound: fault.NotFound, codes.AlreadyExists: fault.Conflict,
		codes.PermissionDenied: fault.Denied, codes.ResourceExhausted: fault.Exhausted, codes.FailedPrecondition: fault.Precondition,
		codes.Aborted: fault.Conflict, codes.OutOfRange: fault.Invalid, codes.Unimplemented: fault.Unimplemented,
		codes.Internal: fault.Internal, codes.Unavailable: fault.Unavailable, codes.DataLoss: fault.Internal,
		codes.Unauthenticated: fault.Unauthenticated, codes.Code(99): fault.Internal,
	}
	for code, kind := range want {
		if got := fault.KindOf(fault.FromGRPC(status.Error(code, "x"))); got != kind {
			t.Errorf("code %s is of kind %s, want %s", code, got, kind)
		}
	}
}

func TestTheTextOfATransportErrorIsNotShownToCallers(t *testing.T) {
	t.Parallel()
	err := status.Error(codes.Unavailable, "dial tcp 10.1.2.3:9090: connection refused")
	f := fault.From(err)
	if strings.Contains(f.Error(), "10.1.2.3") || strings.Contains(f.GRPCStatus().Message(), "10.1.2.3") {
		t.Errorf("an inside address is public: %q", f.Error())
	}
	if !strings.Contains(fault.Detail(f), "10.1.2.3") {
		t.Errorf("an operator cannot see which address failed: %q", fault.Detail(f))
	}
}

func TestReasonsOfForeignDomainsAreNotTakenForOurs(t *testing.T) {
	t.Parallel()
	s, err := status.New(codes.PermissionDenied, "quota").WithDetails(&errdetails.ErrorInfo{Domain: "googleapis.com", Reason: "peer_denied"})
	if err != nil {
		t.Fatal(err)
	}
	if got := fault.ReasonOf(s.Err()); got != "" {
		t.Errorf("reason %q of another domain was taken", got)
	}
}

func TestErrorsOfAContextKeepTheirMeaning(t *testing.T) {
	t.Parallel()
	for err, want := range map[error]fault.Kind{
		context.DeadlineExceeded:                         fault.Timeout,
		fmt.Errorf("call: %w", context.DeadlineExceeded): fault.Timeout,
		context.Canceled:                                 fault.Canceled,
		errors.New("other"):                              fault.Internal,
	} {
		if got := fault.KindOf(err); got != want {
			t.Errorf("%v is of kind %s, want %s", err, got, want)
		}
		if !errors.Is(fault.From(err), err) {
			t.Errorf("the cause of %v is lost", err)
		}
	}
}

func TestAnUnclassifiedErrorSaysNothingInPublic(t *testing.T) {
	t.Parallel()
	f := fault.From(errors.New(hidden))
	if f.Error() != "internal error" || strings.Contains(f.GRPCStatus().String(), "hunter2") {
		t.Errorf("public text is %q", f.Error())
	}
}

func TestNilStaysNil(t *testing.T) {
	t.Parallel()
	if err := fault.FromGRPC(nil); err != nil {
		t.Errorf("FromGRPC(nil) = %v", err)
	}
	if f := fault.From(nil); f != nil {
		t.Errorf("From(nil) = %v", f)
	}
}

func TestLogsShowTheCauseOnce(t *testing.T) {
	t.Parallel()
	for name, err := range map[string]error{
		"bare":    full(),
		"wrapped": fmt.Errorf("register: %w", full()),
		"nested":  fault.Wrap(fault.Unavailable, full(), "outer"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			slog.New(slog.NewJSONHandler(&out, nil)).Error("failed", fault.Attr(err))
			if got := strings.Count(out.String(), hidden); got != 1 {
				t.Errorf("the cause is in the log %d times: %s", got, out.String())
			}
			if strings.Contains(err.Error(), hidden) {
				t.Errorf("the cause is in Error(): %s", err)
			}
			if strings.Contains(fault.Detail(err), "\n") || !strings.Contains(fault.Detail(err), hidden) {
				t.Errorf("Detail is not one line with the cause: %q", fault.Detail(err))
			}
		})
	}
}

func TestTheTerminalShowsEachProblemOnceInALineOfItsOwn(t *testing.T) {
	t.Parallel()
	missing := fault.Wrap(fault.Precondition, errors.New("no such file"), "secret a/b not found")
	bad := fault.Wrap(fault.Invalid, errors.New("not base64"), "secret c/d is not a key")
	for name, tt := range map[string]struct {
		err  error
		want string
	}{
		"one":    {missing, "secret a/b not found: no such file"},
		"joined": {errors.Join(missing, bad), "secret a/b not found: no such file\nsecret c/d is not a key: not base64"},
		"joined and wrapped": {
			fmt.Errorf("start: %w", errors.Join(fmt.Errorf("one: %w", missing), bad)),
			"start: one: secret a/b not found: no such file\nsecret c/d is not a key: not base64",
		},
		"repeated":          {fault.Wrap(fault.Precondition, missing, "backend one: "+missing.Error()), "backend one: secret a/b not found: no such file"},
		"joined as a cause": {fault.Wrap(fault.Internal, errors.Join(missing, bad), "no"), "no: secret a/b not found: no such file; secret c/d is not a key: not base64"},
		"several lines":     {fault.Wrap(fault.Invalid, errors.New("x"), "one\n\ttwo"), "one\n\ttwo: x"},
		"in the middle":     {fmt.Errorf("%w (%d)", missing, 2), "secret a/b not found (2): no such file"},
		"two in one text":   {fmt.Errorf("%w, then %w", missing, bad), "secret a/b not found, then secret c/d is not a key: no such file"},
	} {
		if got := fault.Terminal(tt.err); got != tt.want {
			t.Errorf("%s:\n%s\nwant:\n%s", name, got, tt.want)
		}
	}
}

func TestSentinelsAreNotChangedByTheirUsers(t *testing.T) {
	t.Parallel()
	base := fault.New(fault.NotFound, "no such session").WithReason("session_unknown", "a", "1")
	changed := base.WithReason("session_ended", "b", "2").WithField("id", "is gone").WithRetryAfter(time.Second)
	want := fault.New(fault.NotFound, "no such session").WithReason("session_unknown", "a", "1")
	if diff := cmp.Diff(want, base, cmpopts.IgnoreUnexported(fault.Error{})); diff != "" {
		t.Errorf("the sentinel changed:\n%s", diff)
	}
	if got := changed.Metadata; !cmp.Equal(got, map[string]string{"a": "1", "b": "2"}) {
		t.Errorf("metadata = %v", got)
	}
}

func TestBadInputNamesTheField(t *testing.T) {
	t.Parallel()
	want := "the request is wrong: redirect_uris[0]: has a fragment; client_name: is empty"
	if got := full().Error(); got != want {
		t.Errorf("Error() = %q, want %q", got, want)
	}
}

func TestTextThatIsNotUTF8StillReachesTheCaller(t *testing.T) {
	t.Parallel()
	s := fault.New(fault.Denied, "no").WithReason("x", "key", "\xff").GRPCStatus()
	if s.Code() != codes.PermissionDenied {
		t.Errorf("code %s", s.Code())
	}
}
