package aggregate

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"sync"
	"time"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/gateway/internal/accesslog"
	"chatelaine.dev/services/gateway/internal/aggregate/era"
	"chatelaine.dev/services/gateway/internal/aggregate/mcpclient"
	"chatelaine.dev/services/gateway/internal/caller"
	"chatelaine.dev/services/gateway/internal/jsonrpc"
	"chatelaine.dev/services/gateway/internal/limits"
	"chatelaine.dev/services/gateway/internal/sse"
)

const (
	// offerWait is how long the backends may take to say whether they have a
	// stream, before the client is told that there is one.
	offerWait = 2 * time.Second
	// heartbeat keeps the stream alive in proxies, and finds out that a client
	// is gone.
	heartbeat = 25 * time.Second
	// A stream that ended is opened again after reopenMin, and after a failure
	// twice as late as the time before, up to reopenMax.
	reopenMin = 500 * time.Millisecond
	reopenMax = 30 * time.Second
)

// listen opens the stream of what backends say unasked (MCP 2025-11-25,
// Streamable HTTP, Listening for Messages from the Server): the streams of all
// backends of the session in one, or with Last-Event-ID the rest of the stream
// of one call. Backends that join later are heard from the next time.
func (h *Handler) listen(w http.ResponseWriter, r *http.Request, who *caller.Caller) {
	id, ok := sessionOf(w, r)
	if !ok {
		return
	}
	if !accepts(r.Header, "text/event-stream") {
		http.Error(w, "Accept must have text/event-stream", http.StatusNotAcceptable)
		return
	}
	s, err := h.sessions.open(r.Context(), who, id, true)
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	q := &request{
		who: who, msg: &jsonrpc.Message{}, session: s, hello: s.hello,
		link: &sessionLink{sessions: h.sessions, session: s, who: who},
	}
	var from eventToken
	if last := r.Header.Get(era.HeaderLastEventID); last != "" {
		token, ok := h.openEventID(q, last)
		if !ok {
			http.Error(w, "Last-Event-ID is none of this session", http.StatusBadRequest)
			return
		}
		from = *token
	}
	if from.Backend != "" {
		h.resume(w, r, q, &from)
		return
	}
	l := &listener{handler: h, request: q, positions: from.Positions, open: make(chan struct{}), offers: make(chan bool)}
	l.serve(w, r)
}

// resume gives a client the rest of a call's stream.
func (h *Handler) resume(w http.ResponseWriter, r *http.Request, q *request, from *eventToken) {
	ctx := r.Context()
	b, ok := h.deployment.Backend(from.Backend)
	peer := q.session.known(from.Backend)
	if !ok || peer == nil {
		http.Error(w, "the stream is gone", http.StatusBadRequest)
		return
	}
	accesslog.From(ctx).Backend = b.Name
	resp, err := h.client.Listen(ctx, mcpclient.Target{Caller: q.who, Backend: b}, peer, from.ID)
	if err != nil && !mcpclient.IsStale(err, peer) {
		h.refuse(w, r, err)
		return
	}
	// A 404 would tell the client that the session is gone.
	if err != nil || resp.StatusCode != http.StatusOK || !mcpclient.IsStream(resp) {
		if resp != nil {
			_ = resp.Body.Close()
		}
		http.Error(w, "the stream cannot be resumed", http.StatusBadRequest)
		return
	}
	defer resp.Body.Close()
	out := sse.NewWriter(w)
	var lease limits.Lease
	lease.Begin(h.memory, q.who)
	defer lease.Release()
	s := &stream{handler: h, request: q, backend: b, peer: peer, out: out, eventID: oneEventID, id: from.Request, lease: &lease}
	_ = out.Start()
	_ = s.copy(resp.Body) // cut off, the client asks again
}

// listener merges the streams of the backends.
type listener struct {
	handler *Handler
	request *request
	out     *sse.Writer
	// open is closed when events may be sent.
	open chan struct{}
	// offers gets from each backend, once, whether it has a stream.
	offers chan bool

	mu sync.Mutex
	// positions are the last events of the backends that were sent.
	positions map[string]string
}

func (l *listener) serve(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	l.positions = maps.Clone(l.positions)
	if l.positions == nil {
		l.positions = make(map[string]string)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	asked := 0
	for name, peer := range l.request.session.peers() {
		b, ok := l.handler.deployment.Backend(name)
		if !ok || peer.Stateless() {
			continue
		}
		asked++
		last := l.positions[name]
		wg.Go(func() {
			if err := l.follow(ctx, b, peer, last); err != nil { // the client is to find out why, and initialise or log in again
				cancel(err)
			}
		})
	}
	if !l.offered(ctx, asked) {
		if err, ours := fault.As(context.Cause(ctx)); ours { // 405 would mean that there are no streams
			l.handler.refuse(w, r, err)
			return
		}
		methodNotAllowed(w, r)
		return
	}
	out := sse.NewWriter(w)
	l.out = out
	if err := out.Comment("stream of the session"); err != nil {
		return
	}
	close(l.open)
	l.beat(ctx)
}

// offered reports whether there is, or may be, a stream.
func (l *listener) offered(ctx context.Context, asked int) bool {
	timer := time.NewTimer(offerWait)
	defer timer.Stop()
	for range asked {
		select {
		case yes := <-l.offers:
			if yes {
				return true
			}
		case <-timer.C:
			return true
		case <-ctx.Done():
			return false
		}
	}
	return false
}

func (l *listener) beat(ctx context.Context) {
	ticker := time.NewTicker(heartbeat)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.offers: // one that took its time
		case <-ticker.C:
			if l.out.Comment("") != nil {
				return
			}
		}
	}
}

// follow passes one backend's stream on, and opens it again when it ends. It
// returns an error when the client's session, or its login, has ended.
func (l *listener) follow(ctx context.Context, b *config.Backend, peer *mcpclient.Peer, last string) error {
	said := false
	say := func(yes bool) {
		if said {
			return
		}
		said = true
		select {
		case l.offers <- yes:
		case <-ctx.Done():
		}
	}
	wait := reopenMin
	for {
		resp, err := l.handler.client.Listen(ctx, mcpclient.Target{Caller: l.request.who, Backend: b}, peer, last)
		switch {
		case errors.Is(err, mcpclient.ErrSessionLost):
			var renewed *mcpclient.Peer
			if renewed, err = l.request.link.renew(ctx, b, peer); err == nil {
				peer, last = renewed, ""
			}
			if err == nil && peer.Stateless() {
				say(false)
				return nil
			}
		case err == nil && mcpclient.IsStream(resp) && resp.StatusCode == http.StatusOK:
			say(true)
			last, err = l.copy(ctx, b, peer, resp, last)
			if !errors.Is(err, sse.ErrTooLarge) { // which comes again
				wait = reopenMin
			}
		case err == nil:
			_ = resp.Body.Close()
			if !again(resp.StatusCode) {
				say(false)
				return nil
			}
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			if isFatal(err) {
				return err
			}
			l.handler.logger.DebugContext(ctx, "backend's stream is interrupted", slog.String("backend", b.Name), fault.Attr(err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
			wait = min(2*wait, reopenMax)
		}
	}
}

// again reports whether a stream that was refused may be had later. A backend
// that still holds the one before says Conflict.
func again(status int) bool {
	return status == http.StatusConflict || status == http.StatusTooManyRequests || status >= http.StatusInternalServerError
}

// copy returns the last event that was sent, to resume from.
func (l *listener) copy(ctx context.Context, b *config.Backend, peer *mcpclient.Peer, resp *http.Response, last string) (string, error) {
	defer resp.Body.Close()
	select {
	case <-l.open:
	case <-ctx.Done():
		return last, ctx.Err()
	}
	var lease limits.Lease
	lease.Begin(l.handler.memory, l.request.who)
	defer lease.Release()
	s := &stream{
		handler: l.handler, request: l.request, backend: b, peer: peer, out: l.out, mu: &l.mu,
		lease: &lease, maxEvent: maxUnasked,
	}
	s.eventID = func(_ *stream, id []byte) []byte { // with mu held
		last = string(id)
		l.positions[b.Name] = last
		return l.handler.sealEventID(l.request, &eventToken{Positions: l.positions})
	}
	return last, s.copy(resp.Body)
}
