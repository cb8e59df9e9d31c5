package aggregate

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	"golang.org/x/sync/singleflight"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/keyring"
	"chatelaine.dev/internal/telemetry"
	"chatelaine.dev/services/gateway/internal/accesslog"
	"chatelaine.dev/services/gateway/internal/aggregate/catalog"
	"chatelaine.dev/services/gateway/internal/aggregate/era"
	"chatelaine.dev/services/gateway/internal/aggregate/lru"
	"chatelaine.dev/services/gateway/internal/aggregate/mcpclient"
	"chatelaine.dev/services/gateway/internal/caller"
	"chatelaine.dev/services/gateway/internal/credentials"
	"chatelaine.dev/services/gateway/internal/jsonrpc"
	"chatelaine.dev/services/gateway/internal/limits"
	"chatelaine.dev/services/gateway/internal/sessionid"
)

// endpoint is what session ids are bound to beside the person.
const endpoint = "/mcp"

// Defaults of Config.
const (
	DefaultHandshakeTimeout = 5 * time.Second
	DefaultListTimeout      = 5 * time.Second
	DefaultMaxBody          = 4 << 20
)

// nameSeparator stands between the names of a backend and of its tool: the
// prefixFormat {workload}_ of the resources.
const nameSeparator = "_"

const (
	// caches that are bounded in bytes, each by maxCacheBytes at the most, and all
	// of them together by a part of the process's memory; see limits.Caches.
	caches        = 5
	maxCacheBytes = 64 << 20
	// largestCached is what such a cache keeps in any case, in bytes.
	largestCached = 2 << 20 // catalog.MaxSize and a key
	slowCache     = 20_000  // entries
)

// Credentials gives out credentials; see credentials.Manager.
type Credentials interface {
	Get(ctx context.Context, c *caller.Caller, backend string) (*credentials.Credential, error)
}

// Streams knows the streams that are open; see streams.Streams.
type Streams interface {
	Answer(ctx context.Context, who *caller.Caller, endpoint string, end func(cause error)) (done func())
}

// Config makes a Handler.
type Config struct {
	// Deployment has the backends. Required.
	Deployment *config.Deployment
	// Backends sends requests to them. Required.
	Backends mcpclient.Backends
	// Credentials are what Backends has for callers. Required.
	Credentials Credentials
	// Sessions keeps what session ids cannot carry. Required.
	Sessions Blobs
	// Ring seals session ids, cursors and what Sessions keeps. All replicas
	// have the same keys. Required.
	Ring *keyring.Ring
	// Telemetry is required; see telemetry.Discard.
	Telemetry *telemetry.Telemetry
	// Version is the gateway's own, for clients and backends to see.
	Version string
	// HandshakeTimeout bounds the handshake with one backend, ListTimeout one
	// page of its lists. Zero means the defaults.
	HandshakeTimeout, ListTimeout time.Duration
	// MaxBody bounds a request's body in bytes; zero means DefaultMaxBody.
	MaxBody int64
	// Streams is told of answers that are streams; nil: nobody is.
	Streams Streams
	// Memory is where large messages are held; nil: without bounds.
	Memory *limits.Memory
	// NewSessions bounds how often one person opens a session; nil: not at all.
	NewSessions *limits.Rate
	// Unauthorized answers a request whose access token the broker no longer
	// accepts: 401 with a challenge, and text. Nil: a bare 401.
	Unauthorized func(w http.ResponseWriter, r *http.Request, text string)
}

// Handler serves the endpoint. Its caches hold nothing that another replica
// could not find out for itself.
type Handler struct {
	deployment   *config.Deployment
	client       *mcpclient.Client
	credentials  Credentials
	sessions     *sessions
	reached      *reached
	names        catalog.Names
	store        *store
	logger       *slog.Logger
	version      string
	unauthorized func(http.ResponseWriter, *http.Request, string)

	handshakeTimeout, listTimeout time.Duration
	maxBody                       int64
	memory                        *limits.Memory
	newSessions                   *limits.Rate
	streams                       Streams

	// pages are the lists that backends showed last, by identity.
	pages *lru.Cache[*catalog.Page]
	// indexes are the owners of URIs, by identity.
	indexes *lru.Cache[*catalog.Index]
	loads   singleflight.Group
	// slow are the backends that did not answer a person in time just before.
	slow *lru.Cache[struct{}]
	// annotated are the tools of stateless backends whose arguments headers
	// repeat, by identity.
	annotated *lru.Cache[[]era.Param]
	// bridged are the calls of session clients at stateless backends, by session
	// and id, with the function that cancels them.
	bridged sync.Map

	buffers sync.Pool // of *[]byte, for answers
	gaps    metric.Int64Counter
	now     func() time.Time
}

// New makes the handler. The resource server in front of it has put the caller
// into the request's context.
func New(cfg Config) (*Handler, error) {
	if cfg.Deployment == nil || cfg.Backends == nil || cfg.Credentials == nil || cfg.Sessions == nil || cfg.Ring == nil || cfg.Telemetry == nil {
		return nil, fault.New(fault.Internal, "aggregate: Deployment, Backends, Credentials, Sessions, Ring and Telemetry are required")
	}
	gaps, err := cfg.Telemetry.Meter.Meter("chatelaine.dev/services/gateway").Int64Counter("chatelaine.gateway.aggregate.gaps",
		metric.WithDescription("Backends that were missing from a handshake or a list."))
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "cannot make a metric")
	}
	cacheBytes := int(limits.Caches(caches, maxCacheBytes))
	version := cmp.Or(cfg.Version, "dev")
	h := &Handler{
		deployment: cfg.Deployment, client: mcpclient.New(cfg.Backends, version, cfg.Memory), credentials: cfg.Credentials, logger: cfg.Telemetry.Logger,
		store: &store{blobs: cfg.Sessions, ring: cfg.Ring, origins: make(map[string]string)}, version: version,
		handshakeTimeout: cmp.Or(cfg.HandshakeTimeout, DefaultHandshakeTimeout),
		listTimeout:      cmp.Or(cfg.ListTimeout, DefaultListTimeout),
		pages:            lru.NewLarge[*catalog.Page](cacheBytes, largestCached, 0),
		indexes:          lru.NewLarge[*catalog.Index](cacheBytes, largestCached, 0),
		slow:             lru.New[struct{}](slowCache, slowFor),
		annotated:        lru.New[[]era.Param](cacheBytes, statelessFor),
		maxBody:          cmp.Or(cfg.MaxBody, DefaultMaxBody),
		unauthorized:     cfg.Unauthorized, gaps: gaps, now: time.Now,
		memory: cfg.Memory, newSessions: cfg.NewSessions, streams: cfg.Streams,
		buffers: sync.Pool{New: func() any { b := make([]byte, 0, firstBuffer); return &b }},
	}
	if h.unauthorized == nil {
		h.unauthorized = func(w http.ResponseWriter, _ *http.Request, text string) {
			http.Error(w, text, http.StatusUnauthorized)
		}
	}
	for i := range cfg.Deployment.Backends {
		b := &cfg.Deployment.Backends[i]
		h.store.origins[b.Name] = sessionid.OriginOf(b.Origin)
	}
	h.names = catalog.Names{
		Separator: nameSeparator,
		Known:     func(name string) bool { _, ok := cfg.Deployment.Backend(name); return ok },
	}
	h.sessions = &sessions{
		sealer: sessionid.NewSealer(cfg.Ring), store: h.store, client: h.client, logger: h.logger,
		opened: lru.New[*session](cacheBytes, 0), now: time.Now, timeout: h.handshakeTimeout,
	}
	h.reached = &reached{
		client: h.client, cache: lru.New[*reachedPeer](cacheBytes, 0), now: time.Now, timeout: h.handshakeTimeout,
	}
	return h, nil
}

// ServeHTTP serves MCP's Streamable HTTP transport, of both eras.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	who, ok := caller.FromContext(r.Context())
	if !ok { // only a mistake in the wiring leaves a request without a caller
		h.logger.ErrorContext(r.Context(), "request without a caller")
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	if name := era.Ambiguous(r.Header); name != "" {
		accesslog.From(r.Context()).Fail(accesslog.OutcomeRefused, "header")
		writeError(w, http.StatusBadRequest, nil, jsonrpc.CodeHeaderMismatch, "the header "+name+" has more than one value", nil)
		return
	}
	switch r.Method {
	case http.MethodPost:
		h.post(w, r, who)
	case http.MethodGet:
		accesslog.From(r.Context()).Method = "stream"
		h.listen(w, r, who)
	case http.MethodDelete:
		accesslog.From(r.Context()).Method = "end"
		h.end(w, r, who)
	default:
		methodNotAllowed(w, r)
	}
}

// end ends a session (MCP 2025-11-25, Streamable HTTP, Session Management).
func (h *Handler) end(w http.ResponseWriter, r *http.Request, who *caller.Caller) {
	id, ok := sessionOf(w, r)
	if !ok {
		return
	}
	s, err := h.sessions.open(r.Context(), who, id, true)
	if err == nil {
		err = h.sessions.end(r.Context(), who, s, h.deployment.Backend)
	}
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
