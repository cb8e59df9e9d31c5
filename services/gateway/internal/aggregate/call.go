package aggregate

import (
	"context"
	"net/http"
	"strings"
	"sync"

	"chatelaine.dev/services/gateway/internal/accesslog"
	"chatelaine.dev/services/gateway/internal/aggregate/era"
	"chatelaine.dev/services/gateway/internal/aggregate/mcpclient"
	"chatelaine.dev/services/gateway/internal/jsonrpc"
)

// call passes a request to the one backend that it is for, and its answer back.
// When all is known that is one request to the backend.
func (h *Handler) call(w http.ResponseWriter, r *http.Request, q *request) {
	to, err := h.route(r.Context(), q)
	if err != nil {
		h.fail(w, r, q, err)
		return
	}
	rec := accesslog.From(r.Context())
	rec.Backend, rec.Tool = to.backend.Name, to.name
	peer, err := q.link.peer(r.Context(), to.backend)
	if err != nil {
		h.fail(w, r, q, err)
		return
	}
	h.annotate(q, to, peer)
	for attempt := 1; ; attempt++ {
		err = h.exchange(w, r, q, to, peer)
		if err == nil {
			return
		}
		if attempt == 1 && h.learnAnnotations(r.Context(), q, to, peer, err) {
			continue
		}
		if attempt == 2 || !mcpclient.IsStale(err, peer) {
			h.fail(w, r, q, settled(to.backend, err))
			return
		}
		if peer, err = q.link.renew(r.Context(), to.backend, peer); err != nil {
			h.fail(w, r, q, err)
			return
		}
	}
}

// exchange sends a request to a peer and relays the answer. With an error,
// nothing has been written to the client.
func (h *Handler) exchange(w http.ResponseWriter, r *http.Request, q *request, to *route, peer *mcpclient.Peer) error {
	if peer.Stateless() && !statelessMethod(q.msg.Method) {
		return newProblem(jsonrpc.CodeMethodNotFound, "backend "+to.backend.Name+" has no method "+quoted(q.msg.Method))
	}
	ctx, done := h.cancellable(r.Context(), q, peer)
	defer done()
	if err := q.lease.Copy(len(q.msg.Raw)); err != nil { // its translation
		return err
	}
	message, id := q.translate(to, peer)
	head := mcpclient.Head{Method: q.msg.Method, Params: q.params}
	if q.msg.Method != "completion/complete" {
		head.Name = to.name
	}
	target := mcpclient.Target{Caller: q.who, Backend: to.backend, Lease: q.lease}
	var translated *bridge
	if id != nil {
		translated = &bridge{handler: h, request: q, target: target, peer: peer, id: id}
		defer context.AfterFunc(ctx, translated.cancel)()
	}
	resp, err := h.client.Post(ctx, target, peer, head, message)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= http.StatusBadRequest {
		return mcpclient.Refusal(target, resp)
	}
	if translated != nil {
		return translated.relay(ctx, w, resp)
	}
	return h.relay(ctx, w, q, to.backend, peer, resp)
}

// translate returns the client's message as the peer understands it. The id is
// ours when the answer must be translated back, and nil when it may pass unread.
func (q *request) translate(to *route, peer *mcpclient.Peer) (message, id []byte) {
	switch {
	case q.stateless == peer.Stateless():
		if to.edit.Span.IsZero() {
			return q.msg.Raw, nil
		}
		return jsonrpc.Splice(q.msg.Raw, to.edit), nil
	case peer.Stateless():
		return era.Stateless(q.msg, q.hello.ClientInfo, to.edit), nil
	default:
		id = mcpclient.NewID()
		return era.Session(q.msg, id, to.edit), id
	}
}

// cancellable makes a call of a session client at a stateless backend end when
// the client sends notifications/cancelled: there, closing the stream cancels.
func (h *Handler) cancellable(ctx context.Context, q *request, peer *mcpclient.Peer) (context.Context, func()) {
	if q.session == nil || !peer.Stateless() {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	key := bridgedKey(q.session, q.id)
	h.bridged.Store(key, cancel)
	return ctx, func() {
		cancel()
		h.bridged.Delete(key)
	}
}

func bridgedKey(s *session, id []byte) string { return s.sealed.KeyText() + "\x00" + string(id) }

// notify passes a client's notification on.
func (h *Handler) notify(w http.ResponseWriter, r *http.Request, q *request) {
	switch q.msg.Method {
	case "notifications/cancelled":
		id := jsonrpc.Find(q.msg.Raw, q.msg.Params, "requestId")
		if cancel, ok := h.bridged.Load(bridgedKey(q.session, id.Of(q.msg.Raw))); ok {
			cancel.(context.CancelFunc)()
		}
		// Ids of a client's requests are unique, so only the backend that has
		// this one will do something about it.
		h.toAll(r.Context(), q)
	case "notifications/initialized", "notifications/roots/list_changed":
		h.toAll(r.Context(), q)
	}
	w.WriteHeader(http.StatusAccepted)
}

// toAll sends a notification to every backend of the session that has sessions.
func (h *Handler) toAll(ctx context.Context, q *request) {
	h.eachPeer(ctx, q, func(ctx context.Context, to mcpclient.Target, peer *mcpclient.Peer) error {
		return h.client.Forward(ctx, to, peer, q.msg.Method, q.msg.Raw)
	})
}

// setLevel tells every backend from which level on the client wants log
// messages. One that joins later, or does not answer, keeps its own default.
func (h *Handler) setLevel(w http.ResponseWriter, r *http.Request, q *request) {
	h.eachPeer(r.Context(), q, func(ctx context.Context, to mcpclient.Target, peer *mcpclient.Peer) error {
		if !peer.Features.Has(mcpclient.Logging) {
			return nil
		}
		_, err := h.client.Ask(ctx, to, peer, mcpclient.Head{Method: q.msg.Method}, q.msg.Params.Of(q.msg.Raw))
		return err
	})
	h.result(w, q, []byte("{}"))
}

func (h *Handler) eachPeer(ctx context.Context, q *request, do func(context.Context, mcpclient.Target, *mcpclient.Peer) error) {
	ctx, cancel := context.WithTimeout(ctx, h.handshakeTimeout)
	defer cancel()
	var wg sync.WaitGroup
	for name, peer := range q.session.peers() {
		b, ok := h.deployment.Backend(name)
		if !ok || peer.Stateless() {
			continue
		}
		wg.Go(func() {
			if err := do(ctx, mcpclient.Target{Caller: q.who, Backend: b}, peer); err != nil {
				h.gap(ctx, b, q.msg.Method, err)
			}
		})
	}
	wg.Wait()
}

// subscribe answers subscriptions/listen (MCP 2026-07-28, Subscriptions). No
// changes are announced to this era, as the capabilities say: the subscription
// is acknowledged as an empty one and over at once.
func (h *Handler) subscribe(w http.ResponseWriter, r *http.Request, q *request) {
	if jsonrpc.Find(q.msg.Raw, q.msg.Params, "notifications").Kind(q.msg.Raw) != jsonrpc.Object {
		h.fail(w, r, q, newProblem(jsonrpc.CodeInvalidParams, "notifications is required"))
		return
	}
	meta := `"_meta":{"io.modelcontextprotocol/subscriptionId":` + string(q.id) + `}`
	var b strings.Builder
	b.WriteString(`data: {"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"notifications":{},` + meta + "}}\n\n")
	b.WriteString(`data: {"jsonrpc":"2.0","id":` + string(q.id) + `,"result":{"resultType":"complete",` + meta + "}}\n\n")
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache, no-transform")
	_, _ = w.Write([]byte(b.String()))
}
