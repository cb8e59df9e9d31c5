package app

import (
	"log/slog"
	"net/http"

	"google.golang.org/grpc"

	"chatelaine.dev/internal/bearer"
	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/keyring"
	"chatelaine.dev/internal/outbound"
	"chatelaine.dev/internal/process"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/internal/telemetry"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/gateway/internal/accesslog"
	"chatelaine.dev/services/gateway/internal/aggregate"
	"chatelaine.dev/services/gateway/internal/backend"
	"chatelaine.dev/services/gateway/internal/credentials"
	"chatelaine.dev/services/gateway/internal/jsonrpc"
	"chatelaine.dev/services/gateway/internal/limits"
	"chatelaine.dev/services/gateway/internal/passthrough"
	"chatelaine.dev/services/gateway/internal/resource"
	"chatelaine.dev/services/gateway/internal/sessionid"
	"chatelaine.dev/services/gateway/internal/streams"
)

// Config makes a Gateway. All fields are required.
type Config struct {
	Flags *Flags
	// Set of resources that is served.
	Set *config.Set
	// Broker is a connection to the token broker.
	Broker    grpc.ClientConnInterface
	Secrets   *secret.Resolver
	Telemetry *telemetry.Telemetry
	// Streams of messages, which end when the server stops.
	Streams *streams.Streams
	// Limits of the process, which all generations share.
	Limits *limits.Limits
}

// New makes the gateway. It makes no call.
func New(cfg Config) (*Gateway, error) {
	d := cfg.Set.Deployment()
	if err := cfg.Flags.check(func(name string) bool { _, ok := d.Backend(name); return ok }); err != nil {
		return nil, err
	}
	ring, err := cfg.Flags.keys(cfg.Secrets)
	if err != nil {
		return nil, err
	}
	dials, err := cfg.Flags.Dials()
	if err != nil {
		return nil, err
	}
	manager, err := newCredentials(&cfg)
	if err != nil {
		return nil, err
	}
	backends, err := backend.New(backend.Config{
		Backends: d.Backends, Credentials: manager, Secrets: cfg.Secrets, Dials: dials, Telemetry: cfg.Telemetry,
		Timeout: cfg.Flags.BackendTimeout, Timeouts: cfg.Flags.TimeoutFor,
	})
	if err != nil {
		return nil, err
	}
	verifier, err := newVerifier(&cfg, dials)
	if err != nil {
		return nil, err
	}
	resources, err := resource.New(resource.Config{
		Deployment: d, Verifier: verifier, Sessions: manager, RequiredScopes: cfg.Flags.RequiredScope,
		AllowedHosts: cfg.Flags.AllowedHost, AllowedOrigins: cfg.Flags.AllowedOrigin,
	})
	if err != nil {
		return nil, err
	}
	handler, err := routes(&cfg, parts{manager, backends, resources, ring})
	if err != nil {
		return nil, err
	}
	return &Gateway{Handler: handler, Credentials: manager}, nil
}

type parts struct {
	credentials *credentials.Manager
	backends    *backend.Client
	resources   *resource.Server
	ring        *keyring.Ring
}

func routes(cfg *Config, p parts) (http.Handler, error) {
	log, err := accesslog.New(cfg.Telemetry)
	if err != nil {
		return nil, err
	}
	d := cfg.Set.Deployment()
	mux := http.NewServeMux()
	p.resources.Handle(mux)
	for i := range d.Backends {
		b := &d.Backends[i]
		mux.Handle("/mcp/"+b.Name, log.Wrap(b.Name, p.resources.Protect(b.Name, cfg.Limits.Requests.Wrap(passthrough.New(passthrough.Config{
			Backend: b, Backends: p.backends, Sessions: sessionid.NewSealer(p.ring), Challenger: p.resources, Memory: cfg.Limits.Memory,
			Streams: cfg.Streams, MaxBody: cfg.Flags.MaxBodyBytes,
		})))))
	}
	aggregated, err := aggregate.New(aggregate.Config{
		Deployment: d, Backends: p.backends, Sessions: brokerv1.NewMcpSessionServiceClient(cfg.Broker), Ring: p.ring,
		Credentials: p.credentials, Telemetry: cfg.Telemetry, Version: process.Version(), MaxBody: cfg.Flags.MaxBodyBytes,
		Streams: cfg.Streams, Memory: cfg.Limits.Memory, NewSessions: cfg.Limits.Sessions,
		Unauthorized: func(w http.ResponseWriter, r *http.Request, text string) {
			p.resources.Challenge(w, r, "", fault.New(fault.Unauthenticated, text))
		},
	})
	if err != nil {
		return nil, err
	}
	mux.Handle("/mcp", log.Wrap("aggregate", p.resources.Protect("", cfg.Limits.Requests.Wrap(cfg.Streams.Wrap("aggregate", limited(aggregated, cfg.Flags.MaxBodyBytes))))))
	mux.HandleFunc("/mcp/", func(w http.ResponseWriter, _ *http.Request) {
		jsonrpc.WriteError(w, http.StatusNotFound, nil, jsonrpc.CodeInvalidRequest, "there is no such backend")
	})
	// The line of package accesslog says more than the middleware's.
	return cfg.Telemetry.Middleware(telemetry.HTTPConfig{Server: "public", Public: true, JoinTraces: true, AccessLevel: slog.LevelDebug})(mux), nil
}

// limited bounds the bodies of requests; next sees an *http.MaxBytesError. Nothing is
// read of a body that says itself that it is too large: a client, or a proxy, that
// asks before it sends (Expect, RFC 9110, section 10.1.1) does not send it.
func limited(next http.Handler, maxBytes int64) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > maxBytes {
			w.Header().Set("Connection", "close")
			r.Body = tooLarge(maxBytes)
		} else {
			r.Body = http.MaxBytesReader(w, r.Body, maxBytes)
		}
		next.ServeHTTP(w, r)
	})
}

// tooLarge is a body that is not read, and the limit that it is over.
type tooLarge int64

func (t tooLarge) Read([]byte) (int, error) { return 0, &http.MaxBytesError{Limit: int64(t)} }
func (t tooLarge) Close() error             { return nil }

func newCredentials(cfg *Config) (*credentials.Manager, error) {
	d := cfg.Set.Deployment()
	c := credentials.Config{
		Broker:       brokerv1.NewCredentialServiceClient(cfg.Broker),
		ConfigDigest: cfg.Set.Digest(), Telemetry: cfg.Telemetry, MaxUnwatched: cfg.Flags.MaxUnwatched,
	}
	if d.Mode == config.ModeAuthServer {
		c.Sessions, c.TokenLifetime = true, d.AuthServer.AccessTokenLifespan
	}
	return credentials.New(c)
}

// newVerifier returns nil in anonymous mode.
func newVerifier(cfg *Config, dials outbound.Dials) (resource.Verifier, error) {
	d := cfg.Set.Deployment()
	if d.Mode == config.ModeAnonymous {
		return nil, nil // no tokens, nothing to verify them
	}
	return bearer.ForIssuer(bearer.IssuerConfig{
		Issuer: *d.Issuer, Ours: d.Mode == config.ModeAuthServer, JWKSURL: cfg.Flags.JWKSURL,
		Secrets: cfg.Secrets, Dials: dials, Tracer: cfg.Telemetry.Tracer, Propagator: cfg.Telemetry.Propagator,
	})
}
