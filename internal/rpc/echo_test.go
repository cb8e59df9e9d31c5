package rpc_test

import (
	"context"
	"sync"
	"testing"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

const (
	echoService = "test.v1.EchoService"
	echoMethod  = "/" + echoService + "/Echo"
	chatMethod  = "/" + echoService + "/Chat"
)

// textType is message Text { string text = 1 [(buf.validate.field).string = {min_len: 1, max_len: 64}]; },
// made here so that the plumbing needs no generated code.
var textType = sync.OnceValue(func() protoreflect.MessageDescriptor {
	options := &descriptorpb.FieldOptions{}
	proto.SetExtension(options, validate.E_Field, validate.FieldRules_builder{
		String: validate.StringRules_builder{MinLen: proto.Uint64(1), MaxLen: proto.Uint64(64)}.Build(),
	}.Build())
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("test/v1/echo.proto"), Package: proto.String("test.v1"), Syntax: proto.String("proto3"),
		Dependency: []string{"buf/validate/validate.proto"},
		MessageType: []*descriptorpb.DescriptorProto{{
			Name: proto.String("Text"),
			Field: []*descriptorpb.FieldDescriptorProto{{
				Name: proto.String("text"), JsonName: proto.String("text"), Number: proto.Int32(1), Options: options,
				Type:  descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(),
				Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
			}},
		}},
	}, protoregistry.GlobalFiles)
	if err != nil {
		panic(err)
	}
	return file.Messages().Get(0)
})

func newText(s string) *dynamicpb.Message {
	m := dynamicpb.NewMessage(textType())
	if s != "" {
		m.Set(textType().Fields().Get(0), protoreflect.ValueOfString(s))
	}
	return m
}

func textOf(m *dynamicpb.Message) string { return m.Get(textType().Fields().Get(0)).String() }

// echo is a service whose behaviour a test gives.
type echo struct {
	unary func(ctx context.Context, text string) (string, error)
	chat  func(ctx context.Context, next func() (string, error), send func(string) error) error
}

func (e *echo) register(r grpc.ServiceRegistrar) {
	r.RegisterService(&grpc.ServiceDesc{
		ServiceName: echoService,
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Echo", Handler: e.handleEcho}},
		Streams:     []grpc.StreamDesc{{StreamName: "Chat", Handler: e.handleChat, ServerStreams: true, ClientStreams: true}},
	}, e)
}

func (e *echo) handleEcho(_ any, ctx context.Context, dec func(any) error, chain grpc.UnaryServerInterceptor) (any, error) {
	in := newText("")
	if err := dec(in); err != nil {
		return nil, err
	}
	handler := func(ctx context.Context, req any) (any, error) {
		out, err := e.unary(ctx, textOf(req.(*dynamicpb.Message)))
		return newText(out), err
	}
	return chain(ctx, in, &grpc.UnaryServerInfo{Server: e, FullMethod: echoMethod}, handler)
}

func (e *echo) handleChat(_ any, ss grpc.ServerStream) error {
	next := func() (string, error) {
		in := newText("")
		err := ss.RecvMsg(in)
		return textOf(in), err
	}
	return e.chat(ss.Context(), next, func(s string) error { return ss.SendMsg(newText(s)) })
}

// call makes a unary call.
func call(ctx context.Context, conn *grpc.ClientConn, text string) (string, error) {
	out := newText("")
	err := conn.Invoke(ctx, echoMethod, newText(text), out)
	return textOf(out), err
}

func openChat(t *testing.T, ctx context.Context, conn *grpc.ClientConn) grpc.ClientStream {
	t.Helper()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, chatMethod)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}
