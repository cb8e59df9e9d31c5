package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"buf.build/go/protovalidate"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"chatelaine.dev/internal/fault"
)

// serverChain is the order of the package comment, in one place.
type serverChain struct {
	logger    *slog.Logger
	validator protovalidate.Validator
	allow     *allowList
	timeout   time.Duration
}

func (c *serverChain) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	defer func() {
		if err = c.finish(ctx, info.FullMethod, err, recover()); err != nil {
			resp = nil
		}
	}()
	admitted, err := c.allow.admit(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	ctx = admitted
	if err := c.validate(req); err != nil {
		return nil, err
	}
	return handler(ctx, req)
}

func (c *serverChain) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	ctx := ss.Context()
	defer func() { err = c.finish(ctx, info.FullMethod, err, recover()) }()
	admitted, err := c.allow.admit(ctx, info.FullMethod)
	if err != nil {
		return err
	}
	ctx = admitted
	return handler(srv, &validatingStream{ServerStream: ss, ctx: ctx, chain: c})
}

// validatingStream checks each message that arrives.
type validatingStream struct {
	grpc.ServerStream
	ctx   context.Context // grpc.ServerStream hands its context out
	chain *serverChain
}

func (s *validatingStream) Context() context.Context { return s.ctx }

func (s *validatingStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return s.chain.validate(m)
}

// validate returns Invalid with a field for each violation.
func (c *serverChain) validate(req any) error {
	msg, ok := req.(proto.Message)
	if !ok {
		return nil
	}
	err := c.validator.Validate(msg)
	if err == nil {
		return nil
	}
	violations, ok := asViolations(err)
	if !ok {
		return fault.Wrap(fault.Internal, err, "")
	}
	f := fault.New(fault.Invalid, "the request is not valid").WithReason("request_invalid")
	for _, v := range violations {
		f = f.WithField(v.Path, v.Problem)
	}
	return f
}

// finish turns an error or a panic into the public status and logs it once.
func (c *serverChain) finish(ctx context.Context, method string, err error, panicked any) error {
	if panicked != nil {
		c.logger.ErrorContext(ctx, "panic in a gRPC handler", slog.String("rpc", method),
			slog.String("panic", fmt.Sprint(panicked)), slog.String("stack", string(debug.Stack())))
		return fault.New(fault.Internal, "").GRPCStatus().Err()
	}
	if err == nil {
		return nil
	}
	f := fault.From(err)
	if level := levelOf(f.Kind); c.logger.Enabled(ctx, level) {
		peer, _ := PeerName(ctx)
		c.logger.LogAttrs(ctx, level, "call failed",
			slog.String("rpc", method), slog.String("peer", peer), fault.Attr(withText(f, err)))
	}
	return f.GRPCStatus().Err()
}

// withText keeps what was put around f on its way, for the log.
func withText(f *fault.Error, err error) error {
	if _, ok := fault.As(err); ok {
		return err
	}
	return f
}

// levelOf says how loud a failure is: what an operator must look at is louder
// than what a caller did.
func levelOf(k fault.Kind) slog.Level {
	switch k {
	case fault.Internal:
		return slog.LevelError
	case fault.Unavailable, fault.Timeout, fault.Exhausted, fault.Denied:
		return slog.LevelWarn
	case fault.Canceled:
		return slog.LevelDebug
	default:
		return slog.LevelInfo
	}
}
