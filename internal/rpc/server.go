package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"buf.build/go/protovalidate"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/test/bufconn"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/telemetry"
)

// Defaults of ServerConfig.
const (
	DefaultCallTimeout     = 30 * time.Second
	DefaultMaxMessageBytes = 4 << 20
	DefaultStopTimeout     = 15 * time.Second
)

const maxConnectionAge = 10 * time.Minute

// ServerConfig makes a Server.
type ServerConfig struct {
	// TLS is the server's identity. Required.
	TLS *TLS
	// Peers lists, by full gRPC service name (package.Service), the names of
	// the peers that may call it. A registered service without an entry is
	// refused to all; an entry without a registered service is an error of Run.
	Peers map[string][]string
	// ReflectionPeers may use server reflection; empty turns it off.
	ReflectionPeers []string
	// Telemetry is required; see telemetry.Discard.
	Telemetry *telemetry.Telemetry

	// CallTimeout is the deadline of a unary call that has none or a later one.
	// Streams live as long as their client wants.
	CallTimeout time.Duration
	// MaxMessageBytes bounds messages, received and sent.
	MaxMessageBytes int
	// DrainDelay is how long new calls are still served after the stop, so that
	// balancers see health fail first. OnDrain runs before.
	DrainDelay time.Duration
	// StopTimeout bounds the wait for running calls after that; then they are cut.
	StopTimeout time.Duration
	// OnDrain, when set, is called once when the stop begins, so that handlers
	// of long streams return. It must not block.
	OnDrain func()
}

// Server is a gRPC server. Register services on it (it is a
// grpc.ServiceRegistrar), then Run it.
type Server struct {
	cfg       ServerConfig
	grpc      *grpc.Server
	inProcess *bufconn.Listener
	logger    *slog.Logger

	health *health.Server
	mu     sync.Mutex // guards what follows, and the order of health's changes
	names  []string   // what health is asked about: "" for all, and each service
	// running is whether Run has begun; notReady is what SetReady said.
	running, notReady bool
}

// NewServer makes a server with health and, when asked for, reflection. Health
// answers for the server ("") and, alike, for each registered service by its full
// name: SERVING from Run on, while SetReady does not say otherwise, until the stop.
func NewServer(cfg ServerConfig) (*Server, error) {
	if cfg.TLS == nil || cfg.Telemetry == nil {
		return nil, fault.New(fault.Internal, "rpc: a server needs TLS and Telemetry")
	}
	cfg.CallTimeout = orDefault(cfg.CallTimeout, DefaultCallTimeout)
	cfg.StopTimeout = orDefault(cfg.StopTimeout, DefaultStopTimeout)
	cfg.MaxMessageBytes = orDefault(cfg.MaxMessageBytes, DefaultMaxMessageBytes)
	validator, err := protovalidate.New()
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "rpc: cannot make a validator")
	}
	chain := &serverChain{
		logger:    cfg.Telemetry.Logger,
		validator: validator,
		allow:     newAllowList(cfg.Peers, cfg.ReflectionPeers),
		timeout:   cfg.CallTimeout,
	}
	s := &Server{
		cfg: cfg, health: health.NewServer(), names: []string{""},
		inProcess: bufconn.Listen(256 << 10), logger: cfg.Telemetry.Logger,
	}
	s.grpc = grpc.NewServer(
		grpc.Creds(serverCredentials{credentials.NewTLS(cfg.TLS.ServerConfig("h2"))}),
		grpc.StatsHandler(otelgrpc.NewServerHandler(
			otelgrpc.WithTracerProvider(cfg.Telemetry.Tracer),
			otelgrpc.WithMeterProvider(cfg.Telemetry.Meter),
			otelgrpc.WithPropagators(cfg.Telemetry.Propagator),
		)),
		grpc.UnaryInterceptor(chain.unary),
		grpc.StreamInterceptor(chain.stream),
		grpc.MaxRecvMsgSize(cfg.MaxMessageBytes),
		grpc.MaxSendMsgSize(cfg.MaxMessageBytes),
		grpc.MaxConcurrentStreams(1000),
		grpc.MaxHeaderListSize(64<<10),
		grpc.ConnectionTimeout(10*time.Second),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 10 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: 15 * time.Minute,
			// Clients look DNS up again, so that new replicas get their share within ten
			// minutes. Streams get the grace; they are all such that clients resume.
			MaxConnectionAge: maxConnectionAge, MaxConnectionAgeGrace: time.Minute,
			Time: 30 * time.Second, Timeout: 10 * time.Second,
		}),
	)
	healthgrpc.RegisterHealthServer(s.grpc, s.health)
	if len(cfg.ReflectionPeers) > 0 {
		reflection.Register(s.grpc)
	}
	s.report()
	return s, nil
}

// RegisterService implements grpc.ServiceRegistrar.
func (s *Server) RegisterService(desc *grpc.ServiceDesc, impl any) {
	s.grpc.RegisterService(desc, impl)
	s.mu.Lock()
	s.names = append(s.names, desc.ServiceName)
	s.mu.Unlock()
	s.report()
}

// SetReady tells health whether the process can do its work; calls are taken
// either way.
func (s *Server) SetReady(ready bool) {
	s.mu.Lock()
	s.notReady = !ready
	s.mu.Unlock()
	s.report()
}

// report sets what health answers. After the stop it changes nothing any more.
func (s *Server) report() {
	s.mu.Lock()
	defer s.mu.Unlock()
	status := healthgrpc.HealthCheckResponse_NOT_SERVING
	if s.running && !s.notReady {
		status = healthgrpc.HealthCheckResponse_SERVING
	}
	for _, name := range s.names {
		s.health.SetServingStatus(name, status)
	}
}

// Run serves on ln until ctx ends, and for DrainDelay more; then it lets running
// calls end within StopTimeout and cuts the rest. It closes ln.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	if err := s.checkPeers(); err != nil {
		_ = ln.Close()
		return err
	}
	served := make(chan error, 2)
	go func() { served <- s.grpc.Serve(ln) }()
	go func() { served <- s.grpc.Serve(s.inProcess) }()
	s.mu.Lock()
	s.running = true
	s.mu.Unlock()
	s.report()

	select {
	case err := <-served:
		s.grpc.Stop()
		return fault.Wrap(fault.Internal, err, "gRPC server on "+ln.Addr().String()+" ended")
	case <-ctx.Done():
	}
	s.health.Shutdown()
	if s.cfg.OnDrain != nil {
		s.cfg.OnDrain()
	}
	if s.cfg.DrainDelay > 0 {
		select {
		case <-time.After(s.cfg.DrainDelay):
		case err := <-served:
			s.grpc.Stop()
			return fault.Wrap(fault.Internal, err, "gRPC server on "+ln.Addr().String()+" ended")
		}
	}
	stopped := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		close(stopped)
	}()
	timer := time.NewTimer(s.cfg.StopTimeout)
	defer timer.Stop()
	select {
	case <-stopped:
	case <-timer.C:
		s.logger.WarnContext(ctx, "cutting calls that did not end", slog.String("address", ln.Addr().String()))
		s.grpc.Stop()
		<-stopped
	}
	return nil
}

// Task returns Run on ln as a task of a process.Group.
func (s *Server) Task(ln net.Listener) func(context.Context) error {
	return func(ctx context.Context) error { return s.Run(ctx, ln) }
}

// checkPeers finds misspelt services in Peers, which would be refused to all.
func (s *Server) checkPeers() error {
	registered := s.grpc.GetServiceInfo()
	for _, service := range slices.Sorted(maps.Keys(s.cfg.Peers)) {
		if _, ok := registered[service]; !ok {
			return fault.New(fault.Internal, fmt.Sprintf("rpc: peers are listed for %q, which is not registered", service))
		}
	}
	return nil
}

func orDefault[T int | time.Duration](v, def T) T {
	if v <= 0 {
		return def
	}
	return v
}
