package app

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"google.golang.org/grpc"

	"chatelaine.dev/internal/cli"
	"chatelaine.dev/internal/process"
	"chatelaine.dev/internal/reload"
	"chatelaine.dev/internal/rpc"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/internal/telemetry"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/gateway/internal/credentials"
	"chatelaine.dev/services/gateway/internal/limits"
	"chatelaine.dev/services/gateway/internal/streams"
)

// Program is the gateway's command line.
func Program() cli.Program[Flags] {
	return cli.Program[Flags]{
		Name:         "gateway",
		Summary:      "One address for many MCP servers, each called with the right credential of the person.",
		AdminAddress: ":8001",
		Serve:        Serve,
	}
}

// Serve runs the gateway until ctx ends.
func Serve(ctx context.Context, flags *Flags) error {
	set, report, err := flags.Load()
	if err != nil {
		return err
	}
	options := flags.Telemetry.Options("gateway")
	options.PublicTraces = true
	tel, err := telemetry.Start(ctx, options)
	if err != nil {
		return err
	}
	report.Log(tel.Logger)
	tel.Logger.InfoContext(ctx, "resources loaded", slog.String("config_digest", set.Digest()),
		slog.Int("backends", len(set.Deployment().Backends)))

	identity, err := rpc.LoadTLS(flags.Files(), tel.Logger)
	if err != nil {
		return err
	}
	conn, err := dialBroker(flags.BrokerAddress, identity, tel)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // nothing is left to be said on it

	health := telemetry.NewHealth(tel.Logger)
	open, err := streams.New(streams.Config{MaxPerCaller: flags.MaxStreams, Telemetry: tel})
	if err != nil {
		return err
	}
	bounds, err := limits.New(limits.Config{MaxRequests: flags.MaxRequests, Telemetry: tel})
	if err != nil {
		return err
	}
	gateways, err := newGenerations(Config{
		Flags: flags, Set: set, Broker: conn, Secrets: secret.NewResolver(), Telemetry: tel, Streams: open, Limits: bounds,
	})
	if err != nil {
		return err
	}
	follower, err := reload.New(reload.Config{Path: flags.Path, Digest: set.Digest(), Apply: gateways.swap, Telemetry: tel})
	if err != nil {
		return err
	}
	public := process.HTTPServer{
		Address: flags.PublicAddress, Flag: "public-address", Handler: gateways, Logger: tel.Logger,
		DrainDelay: flags.DrainDelay, DrainTimeout: flags.DrainTimeout,
		OnDrain: func() {
			health.Drain()
			// Not before load balancers have noticed: clients would come back to us.
			time.AfterFunc(flags.DrainDelay, open.Drain)
		},
	}
	admin := flags.Server(tel, health)
	for _, server := range []*process.HTTPServer{&public, &admin} {
		ln, err := server.Listen(ctx)
		if err != nil {
			return err
		}
		tel.Logger.InfoContext(ctx, "listening", slog.String("address", ln.Addr().String()))
	}
	group := process.Group{Logger: tel.Logger, StopTimeout: flags.StopTimeout()}
	group.Add("public", public.Run)
	group.Add("resources", follower.Run)
	group.AddLast("credentials", gateways.Run) // requests that still run hear of their session's end
	group.AddLast("admin", admin.Run)          // probes and scrapes see the stop
	group.AddLast("telemetry", tel.Task)
	if err := flags.AddDebug(ctx, &group, tel); err != nil {
		return err
	}
	return group.Run(ctx)
}

func dialBroker(address string, identity *rpc.TLS, tel *telemetry.Telemetry) (*grpc.ClientConn, error) {
	return rpc.Dial(rpc.ClientConfig{
		Address: address, ServerName: "tokenbroker", TLS: identity, Telemetry: tel,
		Idempotent: []string{
			brokerv1.CredentialService_GetCredential_FullMethodName,
			brokerv1.CredentialService_ReportRejected_FullMethodName,
			brokerv1.McpSessionService_GetBlob_FullMethodName,
			brokerv1.McpSessionService_DeleteBlob_FullMethodName,
		},
	})
}

// Gateway is the part that has no address.
type Gateway struct {
	// Handler of the public address.
	Handler http.Handler
	// Credentials must run.
	Credentials *credentials.Manager
}
