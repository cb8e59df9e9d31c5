package aggregate

import (
	"net/http"

	"chatelaine.dev/services/gateway/internal/accesslog"
	"chatelaine.dev/services/gateway/internal/aggregate/era"
	"chatelaine.dev/services/gateway/internal/caller"
	"chatelaine.dev/services/gateway/internal/jsonrpc"
	"chatelaine.dev/services/gateway/internal/limits"
	"chatelaine.dev/services/gateway/internal/sse"
)

// maxBatch bounds a batch, in messages.
const maxBatch = 50

// batch serves the batches that MCP 2025-03-26 has, and no other version. The
// messages are served one after the other; the answers are the events of one
// stream (MCP 2025-03-26, Streamable HTTP, Sending Messages to the Server).
func (h *Handler) batch(w http.ResponseWriter, r *http.Request, who *caller.Caller, body []byte) {
	accesslog.From(r.Context()).Method = "batch"
	if !era.HasBatches(r.Header.Get(era.HeaderVersion)) {
		h.refuseBatch(w, "this version of MCP has no batches")
		return
	}
	spans, err := jsonrpc.Batch(body, maxBatch)
	if err != nil {
		writeError(w, http.StatusBadRequest, nil, jsonrpc.CodeOf(err), err.Error(), nil)
		return
	}
	id, ok := sessionOf(w, r)
	if !ok {
		return
	}
	s, err := h.sessions.open(r.Context(), who, id, true)
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	if s.hello.Version != era.V20250326 {
		h.refuseBatch(w, "the version of MCP that was agreed on has no batches")
		return
	}
	b := &batchWriter{to: w}
	for _, span := range spans {
		h.batched(b, r, who, s, span.Of(body))
	}
	if b.stream == nil {
		w.WriteHeader(http.StatusAccepted)
	}
}

func (h *Handler) refuseBatch(w http.ResponseWriter, text string) {
	writeError(w, http.StatusBadRequest, nil, jsonrpc.CodeInvalidRequest, text, nil)
}

// batched serves one message of a batch.
func (h *Handler) batched(b *batchWriter, r *http.Request, who *caller.Caller, s *session, raw []byte) {
	m, err := jsonrpc.Parse(raw)
	var lease limits.Lease
	lease.Begin(h.memory, who)
	defer lease.Release()
	part := &partWriter{batch: b, header: make(http.Header), discard: err == nil && !m.IsRequest(), lease: &lease}
	q := &request{
		lease: &lease,
		who:   who, msg: &m, id: m.RawID(), session: s, hello: s.hello,
		link: &sessionLink{sessions: h.sessions, session: s, who: who},
	}
	switch {
	case err != nil:
		writeError(part, http.StatusOK, q.id, jsonrpc.CodeOf(err), err.Error(), nil)
	case m.Method == "initialize":
		writeError(part, http.StatusOK, q.id, jsonrpc.CodeInvalidRequest, "initialize must not be part of a batch", nil)
	default:
		h.inSession(part, r, q)
	}
	part.end(q.id)
}

// batchWriter makes one event stream of the answers to a batch.
type batchWriter struct {
	to     http.ResponseWriter
	stream *sse.Writer
}

func (b *batchWriter) events() *sse.Writer {
	if b.stream == nil {
		b.stream = sse.NewWriter(b.to)
	}
	return b.stream
}

// partWriter is what one message of a batch is answered to. Events pass; a
// single answer is kept, and becomes an event at its end.
type partWriter struct {
	batch   *batchWriter
	header  http.Header
	body    []byte
	lease   *limits.Lease
	discard bool
	// tooLarge: the answer is larger than maxAnswer, or than there is room for, and
	// was dropped.
	tooLarge bool
}

// Header implements http.ResponseWriter.
func (p *partWriter) Header() http.Header { return p.header }

// WriteHeader implements http.ResponseWriter. The parts of a batch have no status.
func (p *partWriter) WriteHeader(int) {}

// Write implements http.ResponseWriter.
func (p *partWriter) Write(b []byte) (int, error) {
	switch {
	case p.discard:
		return len(b), nil
	case p.header.Get("Content-Type") == "text/event-stream":
		return len(b), p.batch.events().WriteRaw(b)
	case p.tooLarge || len(b) > maxAnswer-len(p.body) || !p.grow(len(b)):
		p.tooLarge, p.body = true, nil
		return len(b), nil
	default:
		p.body = append(p.body, b...)
		return len(b), nil
	}
}

// grow makes room for n bytes more, if there is any.
func (p *partWriter) grow(n int) bool {
	need := len(p.body) + n
	if need <= cap(p.body) {
		return true
	}
	size := max(need, 2*cap(p.body))
	if p.lease.Copy(size) != nil {
		return false
	}
	p.body = append(make([]byte, 0, size), p.body...)
	return true
}

// Flush implements http.Flusher: events are sent at once as it is.
func (p *partWriter) Flush() {}

func (p *partWriter) end(id []byte) {
	data := p.body
	switch {
	case p.tooLarge:
		data = jsonrpc.AppendError(nil, id, jsonrpc.CodeInternal, "the answer is too large for a batch", nil)
	case p.discard, len(data) == 0:
		return
	case p.header.Get("Content-Type") != "application/json":
		data = jsonrpc.AppendError(nil, id, jsonrpc.CodeInternal, "the request cannot be served", nil)
	}
	_ = p.batch.events().Write(event(data))
}
