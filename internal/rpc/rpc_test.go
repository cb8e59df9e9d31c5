package rpc_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectiongrpc "google.golang.org/grpc/reflection/grpc_reflection_v1"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/rpc"
	"chatelaine.dev/internal/rpc/rpctest"
	"chatelaine.dev/internal/telemetry"
)

// setup is a running server called "tokenbroker" that "gateway" may call.
type setup struct {
	ca      *rpctest.CA
	server  *rpc.Server
	address string
	logs    *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func start(t *testing.T, e *echo, change func(*rpc.ServerConfig)) *setup {
	t.Helper()
	s := &setup{ca: rpctest.NewCA(t), logs: &lockedBuffer{}}
	tel := telemetry.Discard()
	tel.Logger = slog.New(slog.NewJSONHandler(s.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg := rpc.ServerConfig{
		TLS: s.ca.TLS("tokenbroker"), Telemetry: tel,
		Peers: map[string][]string{echoService: {"gateway", "authserver"}},
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if s.server, err = rpc.NewServer(cfg); err != nil {
		t.Fatal(err)
	}
	e.register(s.server)
	s.address = rpctest.Serve(t, s.server)
	return s
}

func (s *setup) dial(names ...string) *grpc.ClientConn {
	return s.ca.Dial(s.address, "tokenbroker", nil, names...)
}

func parrot() *echo {
	return &echo{unary: func(_ context.Context, text string) (string, error) { return text, nil }}
}

func TestOnlyListedPeersMayCall(t *testing.T) {
	t.Parallel()
	var seen atomic.Value
	s := start(t, &echo{unary: func(ctx context.Context, text string) (string, error) {
		name, _ := rpc.PeerName(ctx)
		seen.Store(name)
		return text, nil
	}}, nil)
	for _, tt := range []struct {
		names    []string
		wantPeer string
		wantKind fault.Kind
	}{
		{[]string{"gateway"}, "gateway", 0},
		{[]string{"pod-7.gateway.svc", "gateway"}, "gateway", 0},
		{[]string{"authserver", "gateway"}, "gateway", 0},
		{[]string{"operator"}, "", fault.Denied},
		{[]string{"gateway.evil"}, "", fault.Denied},
		{[]string{"*"}, "", fault.Denied},
	} {
		seen.Store("")
		_, err := call(t.Context(), s.dial(tt.names...), "hi")
		if seen.Load() != tt.wantPeer || (tt.wantPeer == "" && fault.KindOf(err) != tt.wantKind) || (tt.wantPeer != "" && err != nil) {
			t.Errorf("%v: peer %q, %v", tt.names, seen.Load(), err)
		}
	}
}

func TestAServiceWithoutAnEntryIsRefusedToAll(t *testing.T) {
	t.Parallel()
	s := start(t, parrot(), func(cfg *rpc.ServerConfig) { cfg.Peers = nil })
	for _, name := range []string{"gateway", "operator", "tokenbroker"} {
		if _, err := call(t.Context(), s.dial(name), "hi"); fault.ReasonOf(err) != "peer_denied" {
			t.Errorf("%s: %v", name, err)
		}
	}
	chat := openChat(t, t.Context(), s.dial("gateway"))
	if err := chat.RecvMsg(newText("")); fault.ReasonOf(err) != "peer_denied" {
		t.Errorf("stream: %v", err)
	}
}

func TestAMisspelledServiceInTheAllowListIsAStartUpError(t *testing.T) {
	t.Parallel()
	ca := rpctest.NewCA(t)
	server, err := rpc.NewServer(rpc.ServerConfig{
		TLS: ca.TLS("tokenbroker"), Telemetry: telemetry.Discard(), Peers: map[string][]string{"test.v1.Typo": {"gateway"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Run(t.Context(), ln); err == nil || !strings.Contains(err.Error(), "test.v1.Typo") {
		t.Errorf("Run = %v", err)
	}
}

func TestStrangersAndImpostorsGetNoConnection(t *testing.T) {
	t.Parallel()
	s := start(t, parrot(), nil)
	stranger := rpctest.NewCA(t)
	if _, err := call(t.Context(), stranger.Dial(s.address, "tokenbroker", nil, "gateway"), "hi"); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("a certificate of another authority: %v", err)
	}
	// The address is right, the name in the certificate is not.
	if _, err := call(t.Context(), s.ca.Dial(s.address, "authserver", nil, "gateway"), "hi"); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("a server under another name was believed: %v", err)
	}
}

func TestHealthIsOpenToAnyPeerAndReflectionToNone(t *testing.T) {
	t.Parallel()
	s := start(t, parrot(), func(cfg *rpc.ServerConfig) { cfg.ReflectionPeers = []string{"operator"} })
	health := func(service string) healthgrpc.HealthCheckResponse_ServingStatus {
		resp, err := healthgrpc.NewHealthClient(s.dial("probe")).Check(t.Context(), &healthgrpc.HealthCheckRequest{Service: service})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetStatus()
	}
	if got := health(""); got != healthgrpc.HealthCheckResponse_SERVING {
		t.Errorf("health %s", got)
	}
	if got := health(echoService); got != healthgrpc.HealthCheckResponse_SERVING {
		t.Errorf("health of the service %s", got)
	}
	s.server.SetReady(false)
	for _, service := range []string{"", echoService} {
		if got := health(service); got != healthgrpc.HealthCheckResponse_NOT_SERVING {
			t.Errorf("health of %q where the database is away: %s", service, got)
		}
	}
	s.server.SetReady(true)
	if got := health(echoService); got != healthgrpc.HealthCheckResponse_SERVING {
		t.Errorf("health of the service afterwards %s", got)
	}
	_, err := healthgrpc.NewHealthClient(s.dial("probe")).Check(t.Context(), &healthgrpc.HealthCheckRequest{Service: "test.v1.Nothing"})
	if fault.KindOf(err) != fault.NotFound {
		t.Errorf("health of a service that is not there: %v", err)
	}
	for name, want := range map[string]bool{"operator": true, "gateway": false} {
		stream, err := reflectiongrpc.NewServerReflectionClient(s.dial(name)).ServerReflectionInfo(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		request := &reflectiongrpc.ServerReflectionRequest{MessageRequest: &reflectiongrpc.ServerReflectionRequest_ListServices{}}
		if err := stream.Send(request); err != nil && !errors.Is(err, io.EOF) { // a refusal may be there before
			t.Fatal(err)
		}
		if _, err := stream.Recv(); (err == nil) != want {
			t.Errorf("reflection for %s: %v", name, err)
		}
	}
}

func TestErrorsCrossWithTheirFaceAndLeaveTheCauseInTheLog(t *testing.T) {
	t.Parallel()
	want := fault.Wrap(fault.Precondition, errors.New("row 7 of secrets"), "connect again").
		WithReason("reauthentication_required", "provider", "corp").WithRetryAfter(time.Second)
	s := start(t, &echo{
		unary: func(context.Context, string) (string, error) { return "", want },
		chat: func(context.Context, func() (string, error), func(string) error) error {
			return errors.New("row 7 of secrets")
		},
	}, nil)
	conn := s.dial("gateway")
	_, err := call(t.Context(), conn, "hi")
	got, ok := fault.As(err)
	if !ok {
		t.Fatalf("%T is no *fault.Error", err)
	}
	if got.Kind != want.Kind || got.Reason != want.Reason || got.Message != want.Message ||
		!cmp.Equal(got.Metadata, want.Metadata) || got.RetryAfter != want.RetryAfter {
		t.Errorf("got %+v", got)
	}
	streamErr := openChat(t, t.Context(), conn).RecvMsg(newText(""))
	if fault.KindOf(streamErr) != fault.Internal {
		t.Errorf("stream: %v", streamErr)
	}
	for _, err := range []error{err, streamErr} {
		if strings.Contains(fault.Detail(err), "row 7") {
			t.Errorf("the cause crossed: %s", fault.Detail(err))
		}
	}
	if got := strings.Count(s.logs.String(), "row 7"); got != 2 {
		t.Errorf("two causes were logged %d times:\n%s", got, s.logs)
	}
}

func TestBadRequestsNameTheFieldAndNeverReachTheHandler(t *testing.T) {
	t.Parallel()
	s := start(t, &echo{
		unary: func(context.Context, string) (string, error) { t.Error("handler was called"); return "", nil },
		chat: func(_ context.Context, next func() (string, error), _ func(string) error) error {
			_, err := next()
			return err
		},
	}, nil)
	conn := s.dial("gateway")
	_, err := call(t.Context(), conn, "")
	chat := openChat(t, t.Context(), conn)
	if err := chat.SendMsg(newText("")); err != nil {
		t.Fatal(err)
	}
	streamErr := chat.RecvMsg(newText(""))
	for _, err := range []error{err, streamErr} {
		f, ok := fault.As(err)
		if !ok || f.Kind != fault.Invalid || len(f.Fields) != 1 || f.Fields[0].Path != "text" || f.Fields[0].Problem == "" {
			t.Errorf("error = %+v", err)
		}
	}
	long := strings.Repeat("secret", 20)
	if _, err := call(t.Context(), conn, long); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("the value is repeated: %v", err)
	}
}

func TestAPanicCostsOneCall(t *testing.T) {
	t.Parallel()
	s := start(t, &echo{
		unary: func(_ context.Context, text string) (string, error) {
			if text == "panic" {
				panic("broken")
			}
			return text, nil
		},
		chat: func(context.Context, func() (string, error), func(string) error) error { panic("broken too") },
	}, nil)
	conn := s.dial("gateway")
	_, err := call(t.Context(), conn, "panic")
	streamErr := openChat(t, t.Context(), conn).RecvMsg(newText(""))
	for _, err := range []error{err, streamErr} {
		if fault.KindOf(err) != fault.Internal || strings.Contains(fault.Detail(err), "broken") {
			t.Errorf("error = %v", fault.Detail(err))
		}
	}
	if got, err := call(t.Context(), conn, "fine"); err != nil || got != "fine" {
		t.Errorf("the next call: %q, %v", got, err)
	}
	for _, want := range []string{"broken", "broken too", "rpc_test.go"} {
		if !strings.Contains(s.logs.String(), want) {
			t.Errorf("the log lacks %q", want)
		}
	}
}

func TestCallsHaveADeadlineOnBothSides(t *testing.T) {
	t.Parallel()
	var left atomic.Int64
	s := start(t, &echo{unary: func(ctx context.Context, text string) (string, error) {
		deadline, ok := ctx.Deadline()
		if !ok {
			t.Error("a handler without a deadline")
		}
		left.Store(int64(time.Until(deadline)))
		if text == "wait" {
			<-ctx.Done()
			return "", ctx.Err()
		}
		return text, nil
	}}, func(cfg *rpc.ServerConfig) { cfg.CallTimeout = 100 * time.Millisecond })
	conn := s.dial("gateway")
	if _, err := call(t.Context(), conn, "hi"); err != nil || left.Load() > int64(100*time.Millisecond) {
		t.Errorf("%v left, %v", time.Duration(left.Load()), err)
	}
	if _, err := call(t.Context(), conn, "wait"); fault.KindOf(err) != fault.Timeout {
		t.Errorf("server's deadline: %v", err)
	}
}

func TestMessagesAreBounded(t *testing.T) {
	t.Parallel()
	s := start(t, parrot(), func(cfg *rpc.ServerConfig) { cfg.MaxMessageBytes = 1024 })
	if _, err := call(t.Context(), s.dial("gateway"), strings.Repeat("x", 2048)); fault.KindOf(err) != fault.Exhausted {
		t.Errorf("error = %v", err)
	}
}

func TestARESTGatewayCallsInItsPeersNameAndNoOther(t *testing.T) {
	t.Parallel()
	s := start(t, &echo{unary: func(ctx context.Context, _ string) (string, error) {
		name, _ := rpc.PeerName(ctx)
		return name, nil
	}}, nil)
	conn, err := s.server.InProcess()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	forged := metadata.AppendToOutgoingContext(t.Context(), "chatelaine-forwarded-peer", "gateway")

	if got, err := call(rpc.WithPeers(t.Context(), []string{"x", "gateway"}), conn, "hi"); err != nil || got != "gateway" {
		t.Errorf("peer %q, %v", got, err)
	}
	if _, err := call(t.Context(), conn, "hi"); fault.ReasonOf(err) != "peer_unknown" && !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without a peer: %v", err)
	}
	for name, c := range map[string]struct {
		ctx  context.Context
		conn *grpc.ClientConn
	}{
		"a denied peer":               {rpc.WithPeers(t.Context(), []string{"stranger"}), conn},
		"a header in the process":     {forged, conn},
		"a header over a denied peer": {rpc.WithPeers(forged, []string{"stranger"}), conn},
		"a header from the network":   {forged, s.dial("stranger")},
	} {
		if got, err := call(c.ctx, c.conn, "hi"); err == nil {
			t.Errorf("%s was let in as %q", name, got)
		}
	}
}
