package passthrough

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/gateway/internal/accesslog"
	"chatelaine.dev/services/gateway/internal/aggregate/era"
	"chatelaine.dev/services/gateway/internal/backend"
	"chatelaine.dev/services/gateway/internal/caller"
	"chatelaine.dev/services/gateway/internal/jsonrpc"
	"chatelaine.dev/services/gateway/internal/limits"
	"chatelaine.dev/services/gateway/internal/sessionid"
	"chatelaine.dev/services/gateway/internal/streams"
)

// DefaultMaxBody bounds a request's body in bytes.
const DefaultMaxBody = 4 << 20

// Backends sends a request to a backend; see backend.Client.
type Backends interface {
	Do(ctx context.Context, c *caller.Caller, b *config.Backend, r *backend.Request) (*http.Response, error)
}

// Challenger answers requests whose access token is no longer good; see
// resource.Server.
type Challenger interface {
	Challenge(w http.ResponseWriter, r *http.Request, backend string, err error)
}

// Config makes a Handler.
type Config struct {
	// Backend that is served. Required.
	Backend *config.Backend
	// Backends, Sessions, Challenger and Streams are required.
	Backends   Backends
	Sessions   *sessionid.Sealer
	Challenger Challenger
	Streams    *streams.Streams
	// MaxBody bounds a request's body in bytes; zero means DefaultMaxBody.
	MaxBody int64
	// Memory is where large bodies are held; nil: without bounds.
	Memory *limits.Memory
}

// Handler serves one backend. It expects the caller in the request's context.
type Handler struct {
	cfg      Config
	endpoint string
	origin   string    // see sessionid.OriginOf
	chunks   sync.Pool // of *[]byte, to copy answers with
}

const chunkSize = 32 << 10

// New makes a handler.
func New(cfg Config) *Handler {
	if cfg.MaxBody <= 0 {
		cfg.MaxBody = DefaultMaxBody
	}
	return &Handler{
		cfg: cfg, endpoint: "/mcp/" + cfg.Backend.Name, origin: sessionid.OriginOf(cfg.Backend.Origin),
		chunks: sync.Pool{New: func() any { b := make([]byte, chunkSize); return &b }},
	}
}

// exchange is one request on its way through.
type exchange struct {
	h   *Handler
	w   http.ResponseWriter
	r   *http.Request
	who *caller.Caller
	rec *accesslog.Record
	// sealed is the client's session id, session what it holds; empty for none.
	sealed, session string
	// message of a POST; zero for other methods and for batches.
	message jsonrpc.Message
	// stateless is true in the era without sessions.
	stateless bool
	// counted: package streams has the answer already.
	counted bool
	// lease is for the body.
	lease limits.Lease
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{h: h, w: w, r: r, rec: accesslog.From(r.Context())}
	x.rec.Backend = h.cfg.Backend.Name
	who, ok := caller.FromContext(r.Context())
	if !ok { // a handler without resource.Protect in front of it must not work
		x.rec.Fail(accesslog.OutcomeRefused, "no_caller")
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	x.who = who
	if name := era.Ambiguous(r.Header); name != "" {
		x.rec.Fail(accesslog.OutcomeRefused, "header")
		x.refuse(http.StatusBadRequest, jsonrpc.CodeHeaderMismatch, "the header "+name+" has more than one value")
		return
	}
	x.stateless = era.IsStateless(r.Header.Get(era.HeaderVersion))
	switch r.Method {
	case http.MethodPost:
		x.post()
	case http.MethodGet:
		x.rec.Method = "stream"
		x.listen()
	case http.MethodDelete:
		x.rec.Method = "end"
		if x.openSession() {
			x.forward(r.Context(), nil)
		}
	default:
		x.rec.Fail(accesslog.OutcomeRefused, "method")
		w.Header().Set("Allow", "GET, POST, DELETE, OPTIONS")
		x.refuse(http.StatusMethodNotAllowed, jsonrpc.CodeInvalidRequest, "this method is not allowed")
	}
}

// listen opens the backend's stream of messages.
func (x *exchange) listen() {
	if !x.openSession() {
		return
	}
	x.forwardStream(nil)
}

// forwardStream is forward for what lasts as long as the client likes.
func (x *exchange) forwardStream(body []byte) {
	ctx, done, err := x.h.cfg.Streams.Open(x.r.Context(), x.who, x.h.cfg.Backend.Name)
	if err != nil {
		x.rec.Fail(accesslog.OutcomeRefused, fault.ReasonOf(err))
		streams.SetRetryAfter(x.w.Header(), err)
		x.refuse(fault.KindOf(err).HTTPStatus(), jsonrpc.CodeUnavailable, fault.From(err).Error())
		return
	}
	defer done()
	x.counted = true
	x.forward(ctx, body)
}

func (x *exchange) post() {
	if !jsonrpc.IsMedia(x.r.Header.Get("Content-Type")) {
		x.rec.Fail(accesslog.OutcomeRefused, "content_type")
		x.refuse(http.StatusUnsupportedMediaType, jsonrpc.CodeInvalidRequest, "Content-Type must be application/json, in UTF-8")
		return
	}
	// The body's memory is not reused: net/http may go on sending it to the backend
	// after the answer is there, and the next request may be another person's.
	x.lease.Begin(x.h.cfg.Memory, x.who)
	defer x.lease.Release()
	body, err := x.lease.ReadAll(nil, x.r.Body, x.h.cfg.MaxBody, x.r.ContentLength)
	switch {
	case fault.ReasonOf(err) == limits.ReasonBusy:
		x.w.Header().Set("Connection", "close") // the rest of the body is not read
		x.fail(err)
		return
	case errors.Is(err, limits.ErrTooLarge):
		x.rec.Fail(accesslog.OutcomeRefused, "too_large")
		x.w.Header().Set("Connection", "close") // the rest of the body is not read
		x.refuse(http.StatusRequestEntityTooLarge, jsonrpc.CodeInvalidRequest, "the message is too large")
		return
	case err != nil:
		x.rec.Fail(accesslog.OutcomeCanceled, "body")
		x.refuse(http.StatusBadRequest, jsonrpc.CodeParse, "the message could not be read")
		return
	}
	if !x.readMessage(body) || !x.openSession() {
		return
	}
	if x.message.Method == "subscriptions/listen" {
		x.forwardStream(body)
		return
	}
	x.forward(x.r.Context(), body)
}

// maxBatch bounds a batch; MCP has them in 2025-03-26 only.
const maxBatch = 100

// readMessage looks at the body without decoding it. It reports whether to go on.
func (x *exchange) readMessage(body []byte) bool {
	if jsonrpc.IsBatch(body) && !x.stateless {
		x.rec.Method = "batch"
		spans, err := jsonrpc.Batch(body, maxBatch)
		for i := 0; err == nil && i < len(spans); i++ {
			_, err = jsonrpc.Parse(spans[i].Of(body))
		}
		if err != nil {
			x.refuseMessage(nil, err)
			return false
		}
		return true
	}
	m, err := jsonrpc.Parse(body)
	if err != nil {
		x.refuseMessage(m.RawID(), err)
		return false
	}
	x.message = m
	x.rec.Method = m.Method
	if m.IsResponse() {
		x.rec.Method = "answer"
	}
	x.rec.Tool, _ = m.Target()
	if !x.stateless {
		return true
	}
	if p := era.CheckStateless(x.r.Header, &m); p != nil {
		x.rec.Fail(accesslog.OutcomeRefused, p.Reason)
		x.refuse(http.StatusBadRequest, p.Code, p.Text)
		return false
	}
	return true
}

func (x *exchange) refuseMessage(id []byte, err error) {
	x.rec.Fail(accesslog.OutcomeRefused, "malformed")
	jsonrpc.WriteError(x.w, http.StatusBadRequest, id, jsonrpc.CodeOf(err), err.Error())
}

// openSession opens the client's session id. It reports whether to go on.
func (x *exchange) openSession() bool {
	x.sealed = x.r.Header.Get(era.HeaderSession)
	if x.sealed == "" || x.stateless { // the stateless era has no sessions: not looked at
		x.sealed = ""
		return true
	}
	session, err := x.h.cfg.Sessions.Open(x.who, x.h.endpoint, x.sealed)
	// Ids of the version before have no origin.
	if err == nil && (len(session.Extra) == 0 || string(session.Extra) == x.h.origin) {
		x.session, _ = session.Backend(x.h.cfg.Backend.Name)
		return true
	}
	x.rec.Fail(accesslog.OutcomeRefused, sessionid.ReasonUnknown)
	x.refuse(http.StatusNotFound, jsonrpc.CodeSessionUnknown, "session not found: initialize again")
	return false
}

// forward sends the request on and the answer back.
func (x *exchange) forward(ctx context.Context, body []byte) {
	resp, err := x.h.cfg.Backends.Do(ctx, x.who, x.h.cfg.Backend, &backend.Request{
		Method: x.r.Method, Header: x.header(), Body: body,
	})
	if err != nil {
		x.fail(err)
		return
	}
	defer resp.Body.Close()
	if resp.StatusCode >= http.StatusInternalServerError {
		x.rec.Fail(accesslog.OutcomeFailed, "backend_status")
		if x.probing() {
			x.notFound()
			return
		}
	}
	if !x.answerHeader(resp) {
		return
	}
	if isEvents(resp) && !x.counted {
		defer x.h.cfg.Streams.Answer(ctx, x.who, x.h.cfg.Backend.Name, func(cause error) { backend.Interrupt(resp, cause) })()
	}
	if err := x.stream(resp); err != nil {
		x.broken(ctx, resp, err)
	}
}

// probing reports whether the client asks which era the backend belongs to. A
// good token never earns 401 or 5xx for that: clients would not fall back.
func (x *exchange) probing() bool {
	return x.message.Method == "server/discover" && x.message.IsRequest()
}

// notFound is how a server says that it knows nothing of the stateless era.
func (x *exchange) notFound() {
	x.refuse(http.StatusNotFound, jsonrpc.CodeMethodNotFound, "method not found")
}

// refuse answers with a JSON-RPC error, to the request's id where it has one.
func (x *exchange) refuse(status, code int, text string) {
	var id []byte
	if x.message.IsRequest() {
		id = x.message.RawID()
	}
	jsonrpc.WriteError(x.w, status, id, code, text)
}

// header is what of the client's header concerns the backend. It is a list of
// what passes, not of what does not: a backend may believe headers that a proxy
// of its own would have set.
func (x *exchange) header() http.Header {
	h := make(http.Header, 10)
	for name, values := range x.r.Header {
		if passes(name, x.stateless) {
			h[name] = values
		}
	}
	if x.r.Method == http.MethodPost {
		h["Content-Type"] = mediaJSON // as it was read
	}
	if x.session != "" {
		h[era.HeaderSession] = []string{x.session}
	}
	return h
}

// mediaJSON is the Content-Type of what was looked at. It must not be changed.
var mediaJSON = []string{"application/json"}

// passes reports whether a header of the client's reaches the backend. What only
// the stateless era has was compared with the body only there.
func passes(name string, stateless bool) bool {
	switch name {
	case "Accept", "Accept-Language", "User-Agent", era.HeaderLastEventID, era.HeaderVersion:
		return true
	case era.HeaderMethod, era.HeaderName:
		return stateless
	}
	return stateless && strings.HasPrefix(name, era.HeaderParamPrefix)
}
