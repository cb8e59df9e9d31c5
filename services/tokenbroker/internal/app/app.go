package app

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	"chatelaine.dev/internal/cli"
	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/internal/process"
	"chatelaine.dev/internal/rpc"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/internal/telemetry"
	authserverv1 "chatelaine.dev/proto/authserver/v1"
	"chatelaine.dev/services/tokenbroker/internal/schema"
)

// Program is the token broker's command line.
func Program() cli.Program[Flags] {
	return cli.Program[Flags]{
		Name:         "tokenbroker",
		Summary:      "Keep people's connections to their identity providers, and hand out what each backend needs.",
		AdminAddress: ":9092",
		Serve:        Serve,
		Migrations:   func() (postgres.Migrations, error) { return schema.Migrations(), nil },
		Commands:     new(commands),
	}
}

// Serve runs the token broker until ctx ends.
func Serve(ctx context.Context, flags *Flags) error {
	if err := flags.check(); err != nil {
		return err
	}
	set, report, err := flags.Load()
	if err != nil {
		return err
	}
	tel, err := telemetry.Start(ctx, flags.Telemetry.Options("tokenbroker"))
	if err != nil {
		return err
	}
	report.Log(tel.Logger)
	tel.Logger.InfoContext(ctx, "resources loaded", slog.String("config_digest", set.Digest()))
	identity, err := rpc.LoadTLS(flags.Files(), tel.Logger)
	if err != nil {
		return err
	}
	database, err := flags.Database.Options("tokenbroker")
	if err != nil {
		return err
	}
	database.Tracer, database.Meter = tel.Tracer, tel.Meter
	listenURL, err := flags.listenURL()
	if err != nil {
		return err
	}
	pool, err := postgres.Open(ctx, database)
	if err != nil {
		return err
	}
	defer pool.Close()
	cfg := Config{
		Flags: flags, Set: set, Database: pool, ListenURL: listenURL, Identity: identity,
		Secrets: secret.NewResolver(), Telemetry: tel, Health: telemetry.NewHealth(tel.Logger),
	}
	if flags.AuthserverAddress != "" {
		conn, err := dialAuthserver(flags.AuthserverAddress, identity, tel)
		if err != nil {
			return err
		}
		defer conn.Close() //nolint:errcheck // nothing is in flight any more
		cfg.Minter = authserverv1.NewSubjectTokenServiceClient(conn)
	}
	server, err := New(cfg)
	if err != nil {
		return err
	}
	return server.Run(ctx)
}

// dialAuthserver makes a connection that the first call establishes.
func dialAuthserver(address string, identity *rpc.TLS, tel *telemetry.Telemetry) (*grpc.ClientConn, error) {
	return rpc.Dial(rpc.ClientConfig{
		Address: address, ServerName: "authserver", TLS: identity, Telemetry: tel,
		Idempotent: []string{
			authserverv1.SubjectTokenService_MintSubjectToken_FullMethodName,
			authserverv1.SubjectTokenService_MintActorToken_FullMethodName,
		},
	})
}

// Run opens the addresses and runs the parts until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	flags, log := s.cfg.Flags, s.cfg.Telemetry.Logger
	lifetime, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end() // after the drain: REST calls run on the in-process connection
	handler, err := s.restHandler(lifetime)
	if err != nil {
		return err
	}
	rest := process.HTTPServer{
		Address: flags.RESTAddress, Flag: "rest-address", Handler: handler, TLS: s.cfg.Identity.ServerConfig("h2", "http/1.1"),
		WriteTimeout: time.Minute, DrainDelay: flags.DrainDelay, DrainTimeout: flags.DrainTimeout, Logger: log,
		OnDrain: s.cfg.Health.Drain,
	}
	admin := flags.Server(s.cfg.Telemetry, s.cfg.Health)
	internal := process.HTTPServer{Address: flags.GRPCAddress, Flag: "grpc-address"} // for its Listen alone
	for _, server := range []*process.HTTPServer{&rest, &admin, &internal} {
		if _, err := server.Listen(ctx); err != nil {
			return err
		}
	}
	log.InfoContext(ctx, "listening", "grpc", internal.Listener.Addr().String(),
		"rest", rest.Listener.Addr().String(), "admin", admin.Listener.Addr().String())

	group := process.Group{Logger: log, StopTimeout: flags.StopTimeout()}
	group.Add("grpc", s.grpc.Task(internal.Listener))
	group.Add("rest", rest.Run)
	group.Add("health", s.cfg.Health.Run)
	for _, task := range s.tasks {
		group.Add(task.name, task.run)
	}
	group.AddLast("admin", admin.Run) // probes and scrapes see the stop
	group.AddLast("telemetry", s.cfg.Telemetry.Task)
	if err := flags.AddDebug(ctx, &group, s.cfg.Telemetry); err != nil {
		return err
	}
	defer s.refresher.Drain(lifetime) // calls that were drained may have begun attempts
	return group.Run(ctx)
}
