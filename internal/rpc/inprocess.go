package rpc

import (
	"context"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
)

// InProcess returns a connection to s that does not leave the process, for a
// REST gateway. Every call passes the checks of any other; its peer is the one
// that WithPeers put into its context, and without one the call is refused.
// Close it when done. Calls work while Run does.
func (s *Server) InProcess() (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///in-process",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return s.inProcess.DialContext(ctx)
		}),
		grpc.WithTransportCredentials(inProcessCredentials{}),
		grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return invoke(forward(ctx), method, req, reply, cc, opts...)
		}),
		grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, stream grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return stream(forward(ctx), desc, cc, method, opts...)
		}),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(s.cfg.MaxMessageBytes),
			grpc.MaxCallSendMsgSize(s.cfg.MaxMessageBytes)),
	)
}

// forward sets the header from the context alone: one that a REST client sent
// and a gateway copied is overwritten.
func forward(ctx context.Context) context.Context {
	md, _ := metadata.FromOutgoingContext(ctx)
	md = md.Copy()
	if md == nil {
		md = metadata.MD{}
	}
	md.Delete(forwardedHeader)
	names, _ := ctx.Value(forwardedKey{}).([]string)
	md.Append(forwardedHeader, names...)
	return metadata.NewOutgoingContext(ctx, md)
}

// inProcessInfo marks a connection that began in this process.
type inProcessInfo struct{ credentials.CommonAuthInfo }

func (inProcessInfo) AuthType() string { return "in-process" }

func newInProcessInfo() inProcessInfo {
	return inProcessInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}
}

// inProcessCredentials do nothing: both ends are this process's memory.
type inProcessCredentials struct{}

func (inProcessCredentials) ClientHandshake(_ context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return conn, newInProcessInfo(), nil
}

func (inProcessCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return conn, newInProcessInfo(), nil
}

func (inProcessCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "in-process"}
}

func (c inProcessCredentials) Clone() credentials.TransportCredentials { return c }

func (inProcessCredentials) OverrideServerName(string) error { return nil }

// serverCredentials are TLS for the network and nothing for memory. The kind of
// connection decides, and only this package can make one of the second kind.
type serverCredentials struct {
	credentials.TransportCredentials
}

func (c serverCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if conn.LocalAddr().Network() == "bufconn" {
		return inProcessCredentials{}.ServerHandshake(conn)
	}
	return c.TransportCredentials.ServerHandshake(conn)
}

func (c serverCredentials) Clone() credentials.TransportCredentials {
	return serverCredentials{c.TransportCredentials.Clone()}
}
