package aggregate

import (
	"context"
	"errors"
	"net/http"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/gateway/internal/accesslog"
	"chatelaine.dev/services/gateway/internal/aggregate/mcpclient"
	"chatelaine.dev/services/gateway/internal/backend"
	"chatelaine.dev/services/gateway/internal/jsonrpc"
	"chatelaine.dev/services/gateway/internal/sessionid"
)

func writeError(w http.ResponseWriter, status int, id []byte, code int, text string, data []byte) {
	jsonrpc.Write(w, status, jsonrpc.AppendError(nil, id, code, text, data))
}

// result answers a request with a result, which is JSON.
func (h *Handler) result(w http.ResponseWriter, q *request, result []byte) {
	jsonrpc.WriteResult(w, q.id, result)
}

// refuse answers a request that has no JSON-RPC request to answer, or whose
// session is unknown. The body is plain text, so that clients go by the status.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if isSessionUnknown(err) {
		accesslog.From(r.Context()).Fail(accesslog.OutcomeRefused, sessionid.ReasonUnknown)
		http.Error(w, "session not found: initialize again", http.StatusNotFound)
		return
	}
	h.log(r.Context(), err)
	e := backend.Explain(err)
	if e.Status == http.StatusUnauthorized {
		h.unauthorized(w, r, e.Text)
		return
	}
	http.Error(w, e.Text, e.Status)
}

// fail answers a request that failed, and logs why. A tool that failed is
// answered with a result: it is what models get to see. When it is the broker that
// failed, the answer is 503, as at the endpoints of single backends.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, q *request, err error) {
	if p, ok := errors.AsType[*problem](err); ok {
		accesslog.From(r.Context()).Fail(accesslog.OutcomeRefused, "request")
		status := http.StatusOK
		if q.stateless {
			status = p.status
		}
		writeError(w, status, q.id, p.code, p.text, p.data)
		return
	}
	if e, ok := errors.AsType[*mcpclient.RPCError](err); ok {
		status := http.StatusOK
		if q.stateless {
			status = statusOf(e.Code)
		}
		jsonrpc.Write(w, status, jsonrpc.Splice(e.Message.Raw, jsonrpc.Edit{Span: e.Message.ID, With: q.id}))
		return
	}
	if isSessionUnknown(err) || backend.Explain(err).Status == http.StatusUnauthorized {
		h.refuse(w, r, err)
		return
	}
	h.log(r.Context(), err)
	if isUnserved(err) {
		unserved(w, q.id, err)
		return
	}
	jsonrpc.Write(w, http.StatusOK, h.failure(q, err))
}

// unserved answers a request that nobody is to blame for, and that can be served
// a little later.
func unserved(w http.ResponseWriter, id []byte, err error) {
	e := backend.Explain(err)
	w.Header().Set("Retry-After", "5")
	jsonrpc.Write(w, e.Status, jsonrpc.AppendError(nil, id, e.Code, e.Text, e.Data()))
}

// failure is the answer to a request that failed on the way to its backend.
func (h *Handler) failure(q *request, err error) []byte {
	e := backend.Explain(err)
	if q.msg.Method == "tools/call" {
		return jsonrpc.AppendToolError(nil, q.id, e.Text, q.complete())
	}
	return jsonrpc.AppendError(nil, q.id, e.Code, e.Text, e.Data())
}

// log notes on the request's line what happened, and writes a line of its own
// with the cause.
func (h *Handler) log(ctx context.Context, err error) {
	rec := accesslog.From(ctx)
	f := fault.From(err)
	if f.Kind == fault.Canceled {
		rec.Fail(accesslog.OutcomeCanceled, "client")
		return
	}
	rec.Fail(accesslog.OutcomeFailed, f.Reason)
	if backend.Explain(err).UserCanFix {
		rec.Outcome = accesslog.OutcomeUser
	}
	h.logger.InfoContext(ctx, "MCP request failed", fault.Attr(err))
}
