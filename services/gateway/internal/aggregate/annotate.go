package aggregate

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"chatelaine.dev/services/gateway/internal/aggregate/catalog"
	"chatelaine.dev/services/gateway/internal/aggregate/era"
	"chatelaine.dev/services/gateway/internal/aggregate/mcpclient"
	"chatelaine.dev/services/gateway/internal/jsonrpc"
)

// A tool of the stateless era may want headers that repeat some arguments. A
// client of the session era does not know that, so the gateway adds them. Which
// tools want them is not asked before each call, but learned from the refusal of
// the first.

// annotate sets the headers of a call that is known to need some.
func (h *Handler) annotate(q *request, to *route, peer *mcpclient.Peer) {
	if q.stateless || !peer.Stateless() || q.msg.Method != "tools/call" {
		return
	}
	params, ok := h.annotated.Get(annotatedKey(q, to))
	if !ok {
		return
	}
	q.params = make(http.Header, len(params))
	for i := range params {
		if value, ok := params[i].Value(q.msg); ok {
			q.params.Set(params[i].Header, value)
		}
	}
}

// learnAnnotations finds out what headers a call lacks that was refused for its
// headers, and reports whether it is worth another try. The backend has not
// acted on a call that it refused so.
func (h *Handler) learnAnnotations(ctx context.Context, q *request, to *route, peer *mcpclient.Peer, err error) bool {
	e, ok := errors.AsType[*mcpclient.RPCError](err)
	if !ok || e.Code != jsonrpc.CodeHeaderMismatch || q.stateless || !peer.Stateless() || q.msg.Method != "tools/call" {
		return false
	}
	cursor, more := "", false
	for range maxIndexPages {
		part, err := h.page(ctx, q.unleased(), to.backend, catalog.Tools, cursor, more)
		if err != nil || part == nil {
			return false
		}
		if tool := part.Page.Item(to.name); tool != nil {
			params := era.Params(tool)
			key := annotatedKey(q, to)
			h.annotated.Put(key, params, costOf(params)+len(key))
			h.annotate(q, to, peer)
			return len(params) > 0
		}
		if !part.Page.HasNext {
			return false
		}
		cursor, more = part.Page.Next, true
	}
	return false
}

// costOf is what it costs to keep params, in bytes.
func costOf(params []era.Param) int {
	cost := 128
	for i := range params {
		cost += len(params[i].Header) + 64
		for _, name := range params[i].Path {
			cost += len(name) + 32
		}
	}
	return cost
}

func annotatedKey(q *request, to *route) string {
	return strings.Join([]string{identity(q.who, to.backend), to.backend.Name, to.name}, "\x00")
}
