package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/telemetry"
)

// DefaultClientTimeout is the deadline of a unary call whose context has none.
const DefaultClientTimeout = 10 * time.Second

const dialTimeout = 5 * time.Second

// The longest pause between two attempts to connect is well under what the attempts of
// an idempotent call span together (0.7 s, see serviceConfigOf): a call finds a server
// that is back, however long it was away.
const (
	minReconnect = 100 * time.Millisecond
	maxReconnect = 250 * time.Millisecond
)

// ClientConfig makes a connection.
type ClientConfig struct {
	// Address is HOST:PORT, where all addresses that DNS has for HOST are used (a
	// headless Service of Kubernetes has one for each replica), or several HOST:PORT
	// with commas between. Calls go round the addresses.
	Address string
	// ServerName is the name in the server's certificate ("tokenbroker").
	ServerName string
	// TLS is the client's identity. Required.
	TLS *TLS
	// Telemetry is required; see telemetry.Discard.
	Telemetry *telemetry.Telemetry
	// Timeout is the deadline of unary calls whose context has none.
	Timeout time.Duration
	// Idempotent lists the methods ("/package.Service/Method") that may be sent
	// again after UNAVAILABLE: four attempts within the call's deadline.
	Idempotent []string
	// MaxMessageBytes bounds messages, received and sent.
	MaxMessageBytes int
}

// Dial makes a connection, which is established by the first call: a server that
// is down or not yet there is no error here, and a call to it fails at once with
// Unavailable, an idempotent one within a second. All errors of calls are *fault.Error.
func Dial(cfg ClientConfig) (*grpc.ClientConn, error) {
	if cfg.TLS == nil || cfg.Telemetry == nil || cfg.ServerName == "" {
		return nil, fault.New(fault.Internal, "rpc: a client needs ServerName, TLS and Telemetry")
	}
	target, addresses, err := targetOf(cfg.Address)
	if err != nil {
		return nil, err
	}
	serviceConfig, err := serviceConfigOf(cfg.Idempotent)
	if err != nil {
		return nil, err
	}
	chain := clientChain{timeout: orDefault(cfg.Timeout, DefaultClientTimeout)}
	maxBytes := orDefault(cfg.MaxMessageBytes, DefaultMaxMessageBytes)
	conn, err := grpc.NewClient(target,
		grpc.WithResolvers(addresses...),
		grpc.WithNoProxy(), // it is a neighbour; HTTPS_PROXY is for the world outside
		grpc.WithTransportCredentials(&clientCredentials{tls: cfg.TLS, serverName: cfg.ServerName}),
		grpc.WithAuthority(cfg.ServerName),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithDisableServiceConfig(), // none from DNS
		grpc.WithStatsHandler(otelgrpc.NewClientHandler(
			otelgrpc.WithTracerProvider(cfg.Telemetry.Tracer),
			otelgrpc.WithMeterProvider(cfg.Telemetry.Meter),
			otelgrpc.WithPropagators(cfg.Telemetry.Propagator),
		)),
		grpc.WithUnaryInterceptor(chain.unary),
		grpc.WithStreamInterceptor(chain.stream),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxBytes), grpc.MaxCallSendMsgSize(maxBytes)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: minReconnect, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxReconnect},
			MinConnectTimeout: dialTimeout,
		}),
		grpc.WithIdleTimeout(0), // a quiet service answers its first call as fast as its second
	)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "cannot use the address "+cfg.Address)
	}
	return conn, nil
}

// targetOf returns gRPC's name of an address, and the resolver of a list, which
// DNS is not asked for as a whole.
func targetOf(address string) (target string, list []resolver.Builder, err error) {
	parts := strings.Split(address, ",")
	endpoints := make([]resolver.Endpoint, 0, len(parts))
	for _, part := range parts {
		part = strings.TrimSpace(part)
		if _, _, err := net.SplitHostPort(part); err != nil {
			return "", nil, fault.Newf(fault.Invalid, "%q is not HOST:PORT", part)
		}
		endpoints = append(endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: part}}})
	}
	if len(parts) == 1 {
		return "dns:///" + address, nil, nil
	}
	fixed := manual.NewBuilderWithScheme("list")
	fixed.InitialState(resolver.State{Endpoints: endpoints})
	return "list:///" + parts[0], []resolver.Builder{fixed}, nil
}

// serviceConfigOf writes gRPC's service config: round robin, and retries for the
// methods that were declared idempotent. (A call that no server has seen is sent
// again by gRPC itself, whatever the method.) The tokens allow for fifty failures at
// once, those of one replica that dies under load, before retries stop.
func serviceConfigOf(idempotent []string) (string, error) {
	type name struct {
		Service string `json:"service"`
		Method  string `json:"method"`
	}
	methodConfig := []any{}
	if len(idempotent) > 0 {
		var names []name
		for _, full := range idempotent {
			service, method, ok := strings.Cut(strings.TrimPrefix(full, "/"), "/")
			if !ok || service == "" || method == "" {
				return "", fault.Newf(fault.Internal, "rpc: %q is not /package.Service/Method", full)
			}
			names = append(names, name{service, method})
		}
		methodConfig = append(methodConfig, map[string]any{
			"name": names,
			"retryPolicy": map[string]any{
				"maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2,
				"retryableStatusCodes": []string{"UNAVAILABLE"},
			},
		})
	}
	b, err := json.Marshal(map[string]any{
		"loadBalancingConfig": []any{map[string]any{"round_robin": map[string]any{}}},
		"methodConfig":        methodConfig,
		"retryThrottling":     map[string]any{"maxTokens": 100, "tokenRatio": 0.1},
	})
	return string(b), err
}

type clientChain struct{ timeout time.Duration }

func (c clientChain) unary(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.timeout)
		defer cancel()
	}
	return fault.FromGRPC(invoke(ctx, method, req, reply, cc, opts...))
}

func (c clientChain) stream(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	cs, err := streamer(ctx, desc, cc, method, opts...)
	if err != nil {
		return nil, fault.FromGRPC(err)
	}
	return faultStream{cs}, nil
}

// faultStream translates errors; io.EOF, the end of the stream, stays what it is.
type faultStream struct{ grpc.ClientStream }

func translate(err error) error {
	if errors.Is(err, io.EOF) {
		return err
	}
	return fault.FromGRPC(err)
}

func (s faultStream) RecvMsg(m any) error { return translate(s.ClientStream.RecvMsg(m)) }
func (s faultStream) SendMsg(m any) error { return translate(s.ClientStream.SendMsg(m)) }
func (s faultStream) CloseSend() error    { return translate(s.ClientStream.CloseSend()) }
