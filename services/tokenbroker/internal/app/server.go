package app

import (
	"context"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/process"
	"chatelaine.dev/internal/reload"
	"chatelaine.dev/internal/rpc"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/internal/telemetry"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/tokenbroker/internal/audit"
	"chatelaine.dev/services/tokenbroker/internal/blobs"
	"chatelaine.dev/services/tokenbroker/internal/connections"
	"chatelaine.dev/services/tokenbroker/internal/credential"
	"chatelaine.dev/services/tokenbroker/internal/deployment"
	"chatelaine.dev/services/tokenbroker/internal/inventory"
	"chatelaine.dev/services/tokenbroker/internal/login"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/refresh"
	"chatelaine.dev/services/tokenbroker/internal/revoke"
	"chatelaine.dev/services/tokenbroker/internal/schema"
	"chatelaine.dev/services/tokenbroker/internal/seal"
	"chatelaine.dev/services/tokenbroker/internal/store"
	"chatelaine.dev/services/tokenbroker/internal/sweep"
	"chatelaine.dev/services/tokenbroker/internal/upstream"
	"chatelaine.dev/services/tokenbroker/internal/upstream/endpoint"
	"chatelaine.dev/services/tokenbroker/internal/watch"
)

// Config is what a Server is made of. All fields are required but Minter.
type Config struct {
	Flags *Flags
	// Set is what the files of Flags.Path held at the start.
	Set       *config.Set
	Database  *pgxpool.Pool
	ListenURL secret.String
	Identity  *rpc.TLS
	Secrets   *secret.Resolver
	Telemetry *telemetry.Telemetry
	Health    *telemetry.Health
	// Minter mints subject tokens; nil without an authserver to ask.
	Minter credential.Minter
}

// Server is the broker, ready to run.
type Server struct {
	cfg   Config
	grpc  *rpc.Server
	tasks []namedTask

	sealer    *seal.Sealer
	store     *store.Store
	recorder  *audit.Recorder
	source    *deployment.Source
	plans     *credential.Plans
	refresher *refresh.Refresher
	feed      *watch.Feed
}

type namedTask struct {
	name string
	run  process.Task
}

// New puts the broker together. It makes no connection.
func New(cfg Config) (*Server, error) {
	s := &Server{cfg: cfg, store: store.New(cfg.Database)}
	keys, err := cfg.Flags.keys(cfg.Secrets)
	if err != nil {
		return nil, err
	}
	s.sealer = seal.NewSealer(keys)
	if s.recorder, err = audit.NewCountingRecorder(s.store, cfg.Telemetry.Logger, cfg.Telemetry.Meter); err != nil {
		return nil, err
	}
	if s.source, err = s.newSource(); err != nil {
		return nil, err
	}
	s.addBackground()
	if err := s.addInventory(); err != nil {
		return nil, err
	}
	s.addKeyCheck()
	if err := s.addServices(); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *Server) add(name string, run process.Task) {
	s.tasks = append(s.tasks, namedTask{name, run})
}

func (s *Server) newSource() (*deployment.Source, error) {
	tel := s.cfg.Telemetry
	observer, err := endpoint.NewObserver(tel.Tracer, tel.Meter, tel.Propagator)
	if err != nil {
		return nil, err
	}
	dials, err := s.cfg.Flags.Dials()
	if err != nil {
		return nil, err
	}
	s.plans = credential.NewPlans(credential.PlansConfig{
		Secrets: s.cfg.Secrets, Dials: dials, JWKSURL: s.cfg.Flags.JWKSURL, Minter: s.cfg.Minter, Observer: observer,
	})
	source, err := deployment.New(deployment.Config{
		Prepare: s.plans.Prepare,
		Providers: func(d *config.Deployment) (*upstream.Registry, error) {
			return upstream.NewRegistry(d, upstream.Config{
				Secrets: s.cfg.Secrets, Dials: dials, Observer: observer, Logger: tel.Logger,
				Timeout: s.cfg.Flags.UpstreamTimeout,
			})
		},
	}, s.cfg.Set)
	if err != nil {
		return nil, err
	}
	follower, err := reload.New(reload.Config{
		Path: s.cfg.Flags.Path, Digest: s.cfg.Set.Digest(), Apply: source.Apply, Telemetry: tel,
	})
	if err != nil {
		return nil, err
	}
	s.add("resources", follower.Run)
	return source, nil
}

// addBackground makes the parts that work by themselves.
func (s *Server) addBackground() {
	log := s.cfg.Telemetry.Logger
	revoker := revoke.New(revoke.Config{
		Find: func(name, realm string) (revoke.Provider, error) {
			return s.source.Current().Providers.Find(name, realm)
		},
		Queue: s.store, Opener: s.sealer, Audit: s.recorder, Logger: log, Meter: s.cfg.Telemetry.Meter,
		Timeout: s.cfg.Flags.UpstreamTimeout,
	})
	s.refresher = refresh.New(refresh.Config{
		Reader: s.store, Leases: s.store, Sealer: s.sealer, Find: s.findProvider, Providers: s.providerRealms,
		PrimaryName:   func() string { return s.authServer().Primary },
		LockOnPrimary: func() bool { return s.authServer().LockSessionsOnPrimaryRevocation },
		Audit:         s.recorder, Meter: s.cfg.Telemetry.Meter, Logger: log,
		CallTimeout: s.cfg.Flags.UpstreamTimeout, Lease: s.cfg.Flags.RefreshLease,
	})
	s.feed = watch.NewFeed(s.cfg.ListenURL, log)
	sweeper := sweep.New(sweep.Config{
		Sessions: s.store, Connections: s.store, Audit: s.recorder, Logger: log,
		ConnectionRetention: func() time.Duration { return s.authServer().ConnectionRetention },
		Retention:           s.retention, PendingLifetime: login.PendingLifetime,
	})
	s.add("revoke", revoker.Run)
	s.add("refresh", s.refresher.Run)
	s.add("feed", s.feed.Run)
	s.add("sweep", sweeper.Run)
}

// addInventory makes the gauges of what is stored and what waits.
func (s *Server) addInventory() error {
	stock, err := inventory.New(inventory.Config{
		Store: s.store, Meter: s.cfg.Telemetry.Meter, Logger: s.cfg.Telemetry.Logger,
	})
	if err != nil {
		return err
	}
	s.add("inventory", stock.Run)
	return nil
}

// findProvider returns the provider of that name if it has that realm.
func (s *Server) findProvider(name, realm string) (refresh.Provider, error) {
	p, err := s.source.Current().Providers.Provider(name)
	if err == nil && p.Realm() != realm {
		err = fault.New(fault.NotFound, "the provider has another realm now").WithReason(reason.ProviderUnknown, reason.Provider, name)
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (s *Server) providerRealms() []store.ProviderRealm {
	var list []store.ProviderRealm
	for _, p := range s.source.Current().Providers.Providers() {
		list = append(list, store.ProviderRealm{Provider: p.Name(), Realm: p.Realm()})
	}
	return list
}

// endedSessionsKept is how long operators can list a session that is over.
const endedSessionsKept = 7 * 24 * time.Hour

func (s *Server) retention() store.Retention {
	return store.Retention{
		Sessions: endedSessionsKept,
		// A fresh watcher is told of every end that a living access token may remember.
		Events:  max(s.cfg.Flags.EventRetention, s.accessTokenLifetime()+time.Hour),
		Records: s.cfg.Flags.AuditRetention,
		Users:   time.Hour,
	}
}

// authServer returns the configured authorization server, or stands in for it where
// the configuration has none: then there are no sessions that it could matter to.
func (s *Server) authServer() *config.AuthServer {
	if as := s.source.Current().Deployment.AuthServer; as != nil {
		return as
	}
	return &config.AuthServer{ConnectionRetention: 7 * 24 * time.Hour, AccessTokenLifespan: time.Hour}
}

func (s *Server) accessTokenLifetime() time.Duration { return s.authServer().AccessTokenLifespan }

// addKeyCheck makes readiness: the schema, then the keys.
func (s *Server) addKeyCheck() {
	migrated := schema.Migrations().Check(s.cfg.Database)
	check := &keyCheck{store: s.store, sealer: s.sealer, schema: migrated, logger: s.cfg.Telemetry.Logger}
	s.cfg.Health.Add("schema", migrated)
	s.cfg.Health.Add("keys", check.Ready)
	s.add("keys", check.Run)
}

// addServices registers the gRPC services with those who may call them.
func (s *Server) addServices() error {
	var err error
	s.grpc, err = rpc.NewServer(rpc.ServerConfig{
		TLS: s.cfg.Identity, Telemetry: s.cfg.Telemetry, ReflectionPeers: []string{"operator"},
		DrainDelay: s.cfg.Flags.DrainDelay, StopTimeout: s.cfg.Flags.DrainTimeout,
		Peers: map[string][]string{
			brokerv1.LoginService_ServiceDesc.ServiceName:      {"authserver"},
			brokerv1.CredentialService_ServiceDesc.ServiceName: {"gateway"},
			brokerv1.McpSessionService_ServiceDesc.ServiceName: {"gateway"},
			brokerv1.ConnectionService_ServiceDesc.ServiceName: connections.Peers(),
		},
	})
	if err != nil {
		return err
	}
	s.cfg.Health.OnChange(s.grpc.SetReady)
	brokerv1.RegisterLoginServiceServer(s.grpc, login.New(login.Config{
		Sessions: s.store, Legs: s.store, Sealer: s.sealer,
		Current: s.source.Current, Audit: s.recorder, Logger: s.cfg.Telemetry.Logger,
		MaxPending: s.cfg.Flags.MaxPendingSessions,
	}))
	brokerv1.RegisterMcpSessionServiceServer(s.grpc, blobs.New(s.store))
	brokerv1.RegisterConnectionServiceServer(s.grpc, connections.New(connections.Config{
		People: s.store, Store: s.store, Current: s.source.Current, Audit: s.recorder,
	}))
	brokerv1.RegisterCredentialServiceServer(s.grpc, s.newCredentialService())
	return nil
}

// credentialService is CredentialService, put together from its two halves.
type credentialService struct {
	*credential.Service
	*watch.Watcher
	brokerv1.UnsafeCredentialServiceServer
}

func (s *Server) newCredentialService() *credentialService {
	log := s.cfg.Telemetry.Logger
	watcher := watch.NewWatcher(s.feed, s.store, s.accessTokenLifetime)
	memory := credential.NewMemory(credential.MemoryConfig{
		Sessions: s.store, Tokens: s.refresher, Watch: watcher.WatchSessions, Logger: log,
	}, s.plans)
	s.add("memory", memory.Run)
	return &credentialService{
		Service: credential.New(credential.Config{
			Configs: s.source, Plans: s.plans, Memory: memory, Tokens: s.refresher,
			Audit: s.recorder, Logger: log,
		}),
		Watcher: watcher,
	}
}

// restHandler is the REST face of ConnectionService.
func (s *Server) restHandler(ctx context.Context) (http.Handler, error) {
	conn, err := s.grpc.InProcess()
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = conn.Close() }) // it is only memory
	handler, err := connections.NewHandler(ctx, conn, s.cfg.Telemetry.Propagator)
	if err != nil {
		return nil, err
	}
	return s.cfg.Telemetry.Middleware(telemetry.HTTPConfig{Server: "rest"})(handler), nil
}
