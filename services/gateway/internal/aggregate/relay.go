package aggregate

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"sync"
	"time"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/gateway/internal/aggregate/era"
	"chatelaine.dev/services/gateway/internal/aggregate/upstream"
	"chatelaine.dev/services/gateway/internal/jsonrpc"
	"chatelaine.dev/services/gateway/internal/sse"
)

// relay passes a backend's answer to the client as it comes in. Results pass
// unread; of a stream, event ids and the ids of the backend's own requests are
// sealed, because they come back to us and must find their backend again.
func (h *Handler) relay(ctx context.Context, w http.ResponseWriter, q *request, b *config.Backend, peer *upstream.Peer, resp *http.Response) error {
	if upstream.IsStream(resp) {
		out, done := newStream(w)
		defer done()
		s := &stream{handler: h, request: q, backend: b, peer: peer, out: out, eventID: oneEventID}
		_ = s.out.Start() // a client that is gone ends ctx
		err := s.copy(resp.Body)
		if ctx.Err() == nil && !s.answered && q.id != nil {
			err = errCutOff(b, err)
			h.log(ctx, err)
			_ = s.out.Write(sse.Event{Data: h.failure(q, err)})
		}
		return nil
	}
	if t, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || t != "application/json" || resp.StatusCode != http.StatusOK {
		return noAnswer(b)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if length := resp.Header.Get("Content-Length"); length != "" {
		w.Header().Set("Content-Length", length)
	}
	out, done := withDeadlines(w)
	defer done()
	if err := h.copy(out, resp.Body); err != nil {
		// The status is out: only a broken connection tells that this is no answer.
		panic(http.ErrAbortHandler)
	}
	return nil
}

const chunkSize = 32 << 10

// copy copies an answer through a buffer that is used again.
func (h *Handler) copy(w io.Writer, r io.Reader) error {
	chunk := h.chunks.Get().(*[]byte) //nolint:forcetypeassert // New makes nothing else
	defer h.chunks.Put(chunk)
	_, err := io.CopyBuffer(struct{ io.Writer }{w}, r, *chunk)
	return err
}

func noAnswer(b *config.Backend) error {
	return fault.New(fault.Unavailable, "backend "+b.Name+" accepted the request and did not answer it").
		WithReason(upstream.ReasonAnswer, "backend", b.Name)
}

func errCutOff(b *config.Backend, cause error) error {
	return fault.Wrap(fault.Unavailable, cause, "backend "+b.Name+" ended its answer too early").
		WithReason(upstream.ReasonAnswer, "backend", b.Name)
}

// stream copies a backend's events to a client.
type stream struct {
	handler *Handler
	request *request
	backend *config.Backend
	peer    *upstream.Peer
	out     *sse.Writer
	// eventID seals an event's id; its result is sent in its place, unless nil.
	eventID func(s *stream, id []byte) []byte
	// answered: the answer to a request of the client has passed.
	answered bool
	// mu is held while an event gets its id and is sent, where several streams
	// share out; nil otherwise.
	mu *sync.Mutex
}

// writeTimeout is how long a client may take to accept an event.
const writeTimeout = time.Minute

// newStream begins an event stream to a client. done gives the connection back.
func newStream(w http.ResponseWriter) (out *sse.Writer, done func()) {
	limited, done := withDeadlines(w)
	return sse.NewWriter(limited), done
}

// withDeadlines returns w with a deadline for each write.
func withDeadlines(w http.ResponseWriter) (limited http.ResponseWriter, done func()) {
	control := http.NewResponseController(w)
	return &impatient{w, control}, func() { _ = control.SetWriteDeadline(time.Time{}) }
}

// impatient gives up on a client that does not read.
type impatient struct {
	http.ResponseWriter
	control *http.ResponseController
}

// Write implements io.Writer.
func (w *impatient) Write(b []byte) (int, error) {
	_ = w.control.SetWriteDeadline(time.Now().Add(writeTimeout)) // best effort: not every writer has deadlines
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController find what the writer can do.
func (w *impatient) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// copy returns nil at the end of the stream, and otherwise what ended it.
func (s *stream) copy(body io.Reader) error {
	events := sse.NewReader(body, 0)
	for {
		ev, err := events.Next()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := s.pass(&ev); err != nil {
			return err
		}
	}
}

// pass sends one event. Only one with an id, or with a request of the backend's,
// differs from what was received.
func (s *stream) pass(ev *sse.Event) error {
	if s.mu != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
	}
	changed := false
	if ev.HasID {
		id := s.eventID(s, ev.ID)
		ev.ID, ev.HasID, changed = id, id != nil, true
	}
	if ev.HasData && len(ev.Data) > 0 {
		data, keep := s.data(ev.Data)
		if !keep {
			return nil
		}
		if data != nil {
			ev.Data, changed = data, true
		}
	}
	if changed {
		return s.out.Write(*ev)
	}
	return s.out.WriteRaw(ev.Raw)
}

var methodMember = []byte(`"method"`)

// data returns what is to be sent instead of a message, nil when it may pass as
// it is. Answers are recognised by having no method, without being read.
func (s *stream) data(data []byte) (instead []byte, keep bool) {
	if !bytes.Contains(data, methodMember) {
		s.answered = true
		return nil, true
	}
	m, err := jsonrpc.Parse(data)
	switch {
	case err != nil:
		return nil, true // not ours to judge; the client will
	case m.IsResponse():
		s.answered = true
		return nil, true
	case !m.IsRequest():
		return nil, true
	}
	id, ok := s.handler.sealRequestID(s.request, s.backend, s.peer, m.RawID())
	if !ok {
		return nil, false
	}
	return jsonrpc.Splice(data, jsonrpc.Edit{Span: m.ID, With: id}), true
}

// bridge relays the answer of a backend with sessions to a client without.
type bridge struct {
	handler *Handler
	request *request
	target  upstream.Target
	peer    *upstream.Peer
	// id that the request has at the backend.
	id []byte
}

// relay reads until the first message is there, because a refusal has an HTTP
// status of its own in the stateless era.
func (x *bridge) relay(ctx context.Context, w http.ResponseWriter, resp *http.Response) error {
	if !upstream.IsStream(resp) {
		m, err := x.handler.client.Reply(ctx, x.target.Backend, resp, x.id)
		if err != nil {
			return err
		}
		jsonrpc.Write(w, http.StatusOK, x.complete(m))
		return nil
	}
	var out *sse.Writer
	events := sse.NewReader(resp.Body, 0)
	for {
		ev, err := events.Next()
		if err != nil {
			err = errCutOff(x.target.Backend, err)
			if out == nil {
				return err
			}
			if ctx.Err() == nil {
				x.handler.log(ctx, err)
				_ = out.Write(sse.Event{Data: x.handler.failure(x.request, err)})
			}
			return nil
		}
		m, err := jsonrpc.Parse(bytes.Clone(ev.Data))
		switch {
		case len(ev.Data) == 0 || err != nil:
		case m.IsRequest():
			x.decline(ctx, &m)
		case m.IsResponse():
			if !bytes.Equal(m.RawID(), x.id) {
				continue
			}
			return x.answer(w, out, &m)
		default:
			if out == nil {
				var done func()
				out, done = newStream(w)
				defer done()
			}
			if err := out.Write(sse.Event{Data: ev.Data}); err != nil {
				return nil
			}
		}
	}
}

// answer sends the answer, as an event when there is a stream already.
func (x *bridge) answer(w http.ResponseWriter, out *sse.Writer, m *jsonrpc.Message) error {
	switch {
	case out != nil:
		_ = out.Write(sse.Event{Data: x.complete(m)})
	case !m.Error.IsZero():
		return upstream.NewRPCError(m, http.StatusOK)
	default:
		jsonrpc.Write(w, http.StatusOK, x.complete(m))
	}
	return nil
}

func (x *bridge) complete(m *jsonrpc.Message) []byte {
	return era.Complete(m, x.request.id, x.request.msg.Method == "resources/read")
}

// cancel tells the backend that nobody waits any more: in the session era a
// closed connection does not.
func (x *bridge) cancel() {
	ctx, done := context.WithTimeout(context.Background(), x.handler.handshakeTimeout)
	defer done()
	message := append([]byte(`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":`), x.id...)
	_ = x.handler.client.Forward(ctx, x.target, x.peer, "notifications/cancelled", append(message, "}}"...))
}

// decline answers a request of the backend's: nobody was said to be there who
// could, so apart from pings there should be none.
func (x *bridge) decline(ctx context.Context, m *jsonrpc.Message) {
	answer := jsonrpc.AppendError(nil, m.RawID(), jsonrpc.CodeMethodNotFound, "the client cannot be asked", nil)
	if m.Method == "ping" {
		answer = jsonrpc.AppendResult(nil, m.RawID(), []byte("{}"))
	}
	if err := x.handler.client.Forward(ctx, x.target, x.peer, "", answer); err != nil {
		x.handler.logger.InfoContext(ctx, "backend's request could not be declined", fault.Attr(err))
	}
}
