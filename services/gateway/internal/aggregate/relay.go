package aggregate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"sync"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/gateway/internal/aggregate/era"
	"chatelaine.dev/services/gateway/internal/aggregate/mcpclient"
	"chatelaine.dev/services/gateway/internal/backend"
	"chatelaine.dev/services/gateway/internal/jsonrpc"
	"chatelaine.dev/services/gateway/internal/limits"
	"chatelaine.dev/services/gateway/internal/sse"
)

// relay passes a backend's answer to the client: of a stream each message as it
// comes in, otherwise the whole. No answer passes but the one to this request,
// or a backend could answer what another one was asked. Of a stream, event ids
// and the ids of the backend's own requests are sealed, because they come back to
// us and must find their backend again.
func (h *Handler) relay(ctx context.Context, w http.ResponseWriter, q *request, b *config.Backend, peer *mcpclient.Peer, resp *http.Response) error {
	if mcpclient.IsStream(resp) {
		out := sse.NewWriter(w)
		s := &stream{handler: h, request: q, backend: b, peer: peer, out: out, eventID: oneEventID, id: q.id, lease: q.lease}
		defer h.answersByStream(ctx, q, resp)()
		_ = s.out.Start() // a client that is gone ends ctx
		err := s.copy(resp.Body)
		if ctx.Err() == nil && !s.answered && !s.resumable(err) {
			err = errCutOff(b, err)
			h.log(ctx, err)
			_ = s.out.Write(event(h.failure(q, err)))
		}
		return nil
	}
	if t, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || t != "application/json" || resp.StatusCode != http.StatusOK {
		return noAnswer(b)
	}
	buf := h.buffers.Get().(*[]byte) //nolint:forcetypeassert // New makes nothing else
	defer h.buffers.Put(buf)
	answer, err := q.lease.ReadAll(*buf, resp.Body, maxAnswer, resp.ContentLength)
	switch {
	case errors.Is(err, limits.ErrTooLarge):
		return errNonsense(b, fmt.Errorf("the answer is larger than %d bytes", maxAnswer))
	case err != nil:
		return errCutOff(b, err)
	}
	if cap(answer) <= limits.Free {
		*buf = answer[:0]
	}
	if m, err := jsonrpc.Parse(answer); err != nil || !answers(&m, q.id) {
		return errNonsense(b, err)
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	jsonrpc.Write(w, http.StatusOK, answer)
	return nil
}

// answersByStream is told of a stream that answers a request, and returns what to
// do when it is over.
func (h *Handler) answersByStream(ctx context.Context, q *request, resp *http.Response) (done func()) {
	if h.streams == nil {
		return func() {}
	}
	return h.streams.Answer(ctx, q.who, "aggregate", func(cause error) { backend.Interrupt(resp, cause) })
}

const (
	// maxAnswer bounds an answer that is no stream, in bytes.
	maxAnswer = sse.DefaultMaxEvent
	// maxUnasked bounds an event that answers nothing, in bytes: there may be many
	// streams of those, and they last.
	maxUnasked = 1 << 20
	// maxEventID bounds the id of an event, in bytes. A longer one would not fit
	// into the id that we make of it.
	maxEventID = 1 << 10
	// firstBuffer is the size of a buffer that was not used yet, in bytes.
	firstBuffer = 8 << 10
)

// answers reports whether m is the answer to the request with that id. Servers
// may write the characters of a string in another way.
func answers(m *jsonrpc.Message, id []byte) bool {
	if !m.IsResponse() || len(id) == 0 {
		return false
	}
	if bytes.Equal(m.RawID(), id) {
		return true
	}
	got, ok := jsonrpc.Text(m.Raw, m.ID)
	if !ok {
		return false
	}
	want, ok := jsonrpc.Text(id, jsonrpc.Span{End: len(id)})
	return ok && got == want
}

func errNonsense(b *config.Backend, cause error) error {
	if cause == nil {
		cause = errors.New("this is not the answer to the request")
	}
	return fault.Wrap(fault.Unavailable, cause, "backend "+b.Name+" gave an answer that makes no sense").
		WithReason(mcpclient.ReasonAnswer, "backend", b.Name)
}

func noAnswer(b *config.Backend) error {
	return fault.New(fault.Unavailable, "backend "+b.Name+" accepted the request and did not answer it").
		WithReason(mcpclient.ReasonAnswer, "backend", b.Name)
}

// errCutOff is the error of an answer that ended too early: why it did, where that
// is known to be none of the backend's doing.
func errCutOff(b *config.Backend, cause error) error {
	if f, ours := fault.As(cause); ours {
		return f
	}
	return fault.Wrap(fault.Unavailable, cause, "backend "+b.Name+" ended its answer too early").
		WithReason(mcpclient.ReasonAnswer, "backend", b.Name)
}

// stream copies a backend's messages to a client. Its events are written anew:
// what readers understand in different ways (marks of byte order, line ends,
// unknown fields) would let a backend say something that was not looked at.
type stream struct {
	handler *Handler
	request *request
	backend *config.Backend
	peer    *mcpclient.Peer
	out     *sse.Writer
	// eventID seals an event's id; its result is sent in its place, unless nil.
	eventID func(s *stream, id []byte) []byte
	// id of the request that the stream may answer; nil where it answers none.
	id []byte
	// answered: the answer to that request has passed.
	answered bool
	// hasID: an event with an id has passed.
	hasID bool
	// lease is for the event that is on its way, which maxEvent bounds; 0 means
	// maxAnswer.
	lease    *limits.Lease
	maxEvent int
	// mu is held while an event gets its id and is sent, where several streams
	// share out; nil otherwise.
	mu *sync.Mutex
}

// event is the event of a message.
func event(message []byte) sse.Event { return sse.Event{Data: jsonrpc.EscapeLineEnds(message)} }

// copy returns nil at the end of the stream, and otherwise what ended it.
func (s *stream) copy(body io.Reader) error {
	events := sse.NewReader(body, s.maxEvent)
	events.Budget = s.lease
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

// resumable reports whether a stream that ended without the answer has one: the
// backend has closed the connection, and the client comes back for the rest (MCP
// 2025-11-25, Streamable HTTP, Sending Messages to the Server).
func (s *stream) resumable(err error) bool {
	return err == nil && s.hasID && s.request.session != nil && s.request.hello.Version >= era.V20251125
}

// pass sends one event.
func (s *stream) pass(ev *sse.Event) error {
	if s.mu != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
	}
	var out sse.Event
	if len(ev.Data) > 0 {
		if !isMessage(ev.Name) {
			return nil
		}
		data, keep := s.data(ev.Data)
		if !keep {
			return nil
		}
		out = event(data)
	}
	if ev.HasID && len(ev.ID) <= maxEventID {
		out.ID = s.eventID(s, ev.ID)
		out.HasID = out.ID != nil
		s.hasID = s.hasID || out.HasID
	}
	if s.mu == nil && isDelay(ev.Retry) {
		out.Retry = ev.Retry
	}
	if len(out.Data) == 0 && !out.HasID && len(out.Retry) == 0 {
		return s.out.Comment("") // a sign of life passes as one
	}
	// An event without data is none for clients, but its id counts.
	out.HasData = ev.HasData
	return s.out.Write(out)
}

// isMessage reports whether events of that name carry messages; clients do not
// look at others.
func isMessage(name []byte) bool { return len(name) == 0 || string(name) == "message" }

// isDelay reports whether a time to wait before coming back may pass: clients
// may use it for their other streams as well.
func isDelay(retry []byte) bool {
	const most = 5 // digits, of milliseconds
	for _, c := range retry {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(retry) > 0 && len(retry) <= most
}

// data returns the message to be sent. What is no message, or answers something
// else than the stream's request, is dropped.
func (s *stream) data(data []byte) (message []byte, keep bool) {
	m, err := jsonrpc.Parse(data)
	switch {
	case err != nil:
		return nil, false
	case m.IsResponse():
		if s.answered || !answers(&m, s.id) {
			return nil, false
		}
		s.answered = true
		return data, true
	case !m.IsRequest():
		return data, true
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
	target  mcpclient.Target
	peer    *mcpclient.Peer
	// id that the request has at the backend.
	id []byte
}

// relay reads until the first message is there, because a refusal has an HTTP
// status of its own in the stateless era.
func (x *bridge) relay(ctx context.Context, w http.ResponseWriter, resp *http.Response) error {
	if !mcpclient.IsStream(resp) {
		m, err := x.handler.client.Reply(ctx, x.target, resp, x.id)
		if err != nil {
			return err
		}
		return x.answer(w, nil, m)
	}
	var out *sse.Writer
	defer x.handler.answersByStream(ctx, x.request, resp)()
	events := sse.NewReader(resp.Body, 0)
	events.Budget = x.target.Lease
	for {
		ev, err := events.Next()
		if err != nil {
			err = errCutOff(x.target.Backend, err)
			if out == nil {
				return err
			}
			if ctx.Err() == nil {
				x.handler.log(ctx, err)
				_ = out.Write(event(x.handler.failure(x.request, err)))
			}
			return nil
		}
		m, err := jsonrpc.Parse(ev.Data)
		switch {
		case len(ev.Data) == 0, err != nil, !isMessage(ev.Name):
		case m.IsRequest():
			x.decline(ctx, &m)
		case m.IsResponse():
			if !bytes.Equal(m.RawID(), x.id) {
				continue
			}
			return x.answer(w, out, &m) // and nothing is read any more
		default:
			if out == nil {
				out = sse.NewWriter(w)
			}
			if err := out.Write(event(ev.Data)); err != nil {
				return nil
			}
		}
	}
}

// answer sends the answer, as an event when there is a stream already.
func (x *bridge) answer(w http.ResponseWriter, out *sse.Writer, m *jsonrpc.Message) error {
	err := x.target.Lease.Copy(len(m.Raw)) // its translation
	switch {
	case err != nil && out != nil:
		_ = out.Write(event(x.handler.failure(x.request, err)))
	case err != nil:
		return err
	case out != nil:
		_ = out.Write(event(x.complete(m)))
	case !m.Error.IsZero():
		return mcpclient.NewRPCError(m, http.StatusOK)
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
