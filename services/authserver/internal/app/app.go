package app

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	"chatelaine.dev/internal/cli"
	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/internal/process"
	"chatelaine.dev/internal/reload"
	"chatelaine.dev/internal/rpc"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/internal/telemetry"
	authserverv1 "chatelaine.dev/proto/authserver/v1"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/authserver/internal/store"
)

// Program is the authorization server's command line.
func Program() cli.Program[Flags] {
	return cli.Program[Flags]{
		Name:         "authserver",
		Summary:      "Log a person in once, through every identity provider that their tools need.",
		AdminAddress: ":8081",
		Serve:        Serve,
		Migrations:   func() (postgres.Migrations, error) { return store.Migrations(), nil },
	}
}

// Serve runs the authorization server until ctx ends.
func Serve(ctx context.Context, flags *Flags) error {
	if err := flags.Check(); err != nil {
		return err
	}
	set, report, err := flags.Load()
	if err != nil {
		return err
	}
	tel, err := telemetry.Start(ctx, flags.Telemetry.Options("authserver"))
	if err != nil {
		return err
	}
	report.Log(tel.Logger)
	tel.Logger.InfoContext(ctx, "resources loaded", slog.String("config_digest", set.Digest()))

	identity, err := rpc.LoadTLS(flags.Files(), tel.Logger)
	if err != nil {
		return err
	}
	conn, err := dialBroker(flags.BrokerAddress, identity, tel)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // the process ends
	database, err := flags.Database.Options("authserver")
	if err != nil {
		return err
	}
	database.Tracer, database.Meter = tel.Tracer, tel.Meter
	pool, err := postgres.Open(ctx, database)
	if err != nil {
		return err
	}
	defer pool.Close()

	server, err := New(Config{
		Flags: flags, Deployment: set.Deployment(), Database: pool, Broker: brokerv1.NewLoginServiceClient(conn),
		Secrets: secret.NewResolver(), Telemetry: tel,
	})
	if err != nil {
		return err
	}
	server.Resources, err = reload.New(reload.Config{Path: flags.Path, Digest: set.Digest(), Apply: restartNeeded, Telemetry: tel})
	if err != nil {
		return err
	}
	health := telemetry.NewHealth(tel.Logger)
	health.Add("schema", store.Migrations().Check(pool))
	health.Add("keys", server.Keys.Ready)
	return run(ctx, flags, server, identity, health, tel)
}

// restartNeeded refuses a set that came after the start: logins that are under way
// hold what the old one says.
func restartNeeded(context.Context, *config.Set) error {
	return fault.New(fault.Precondition, "the authorization server takes them at its next start: restart it").WithReason("restart_needed")
}

// run opens the addresses and runs the parts until ctx ends.
func run(ctx context.Context, flags *Flags, server *Server, identity *rpc.TLS, health *telemetry.Health, tel *telemetry.Telemetry) error {
	public := process.HTTPServer{
		Address: flags.PublicAddress, Flag: "public-address", Handler: server.Handler, Logger: tel.Logger, WriteTimeout: time.Minute,
		DrainDelay: flags.DrainDelay, DrainTimeout: flags.DrainTimeout, OnDrain: health.Drain,
	}
	admin := flags.Server(tel, health)
	internal := process.HTTPServer{Address: flags.GRPCAddress, Flag: "grpc-address"} // for its Listen alone
	for _, s := range []*process.HTTPServer{&public, &admin, &internal} {
		ln, err := s.Listen(ctx)
		if err != nil {
			return err
		}
		tel.Logger.InfoContext(ctx, "listening", slog.String("address", ln.Addr().String()))
	}
	grpcServer, err := rpc.NewServer(rpc.ServerConfig{
		TLS: identity, Telemetry: tel, ReflectionPeers: []string{"operator"}, DrainDelay: flags.DrainDelay, StopTimeout: flags.DrainTimeout,
		Peers: map[string][]string{authserverv1.SubjectTokenService_ServiceDesc.ServiceName: {"tokenbroker"}},
	})
	if err != nil {
		return err
	}
	authserverv1.RegisterSubjectTokenServiceServer(grpcServer, server.Subject)
	health.OnChange(grpcServer.SetReady)

	group := process.Group{Logger: tel.Logger, StopTimeout: flags.StopTimeout()}
	group.Add("public", public.Run)
	group.Add("health", health.Run)
	group.Add("grpc", grpcServer.Task(internal.Listener))
	group.Add("resources", server.Resources.Run)
	group.Add("keys", server.Keys.Run)
	group.Add("outbox", server.Outbox.Run)
	group.Add("sweep", server.Sweeper.Run)
	group.AddLast("admin", admin.Run) // probes and scrapes see the stop
	group.AddLast("telemetry", tel.Task)
	if err := flags.AddDebug(ctx, &group, tel); err != nil {
		return err
	}
	return group.Run(ctx)
}

func dialBroker(address string, identity *rpc.TLS, tel *telemetry.Telemetry) (*grpc.ClientConn, error) {
	return rpc.Dial(rpc.ClientConfig{
		Address: address, ServerName: "tokenbroker", TLS: identity, Telemetry: tel,
		// Not BeginSession, which makes a session each time, and not RedeemCode,
		// which spends an upstream's code.
		Idempotent: []string{
			brokerv1.LoginService_ListProviders_FullMethodName,
			brokerv1.LoginService_SkipProvider_FullMethodName,
			brokerv1.LoginService_ActivateSession_FullMethodName,
			brokerv1.LoginService_TouchSession_FullMethodName,
			brokerv1.LoginService_EndSession_FullMethodName,
		},
	})
}
