package mcpclient

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/gateway/internal/jsonrpc"
	"chatelaine.dev/services/gateway/internal/limits"
	"chatelaine.dev/services/gateway/internal/sse"
)

// ErrSessionLost: the backend does not know the session any more.
var ErrSessionLost = errors.New("the backend has lost the session")

// ReasonStatus marks the fault of a backend that answered with a useless status.
const ReasonStatus = "backend_status"

// ReasonAnswer marks the fault of a backend whose answer makes no sense.
const ReasonAnswer = "backend_answer"

// maxErrorBody bounds what is read of an answer that is not 2xx, in bytes.
const maxErrorBody = 1 << 20

func isSessionLost(err error) bool { return errors.Is(err, ErrSessionLost) }

// RPCError is the JSON-RPC error that a backend answered with.
type RPCError struct {
	// Code of the error; 0 when it has none.
	Code int
	// Status of the HTTP response.
	Status int
	// Message is the whole response, as the backend wrote it.
	Message jsonrpc.Message
}

// IsStale reports whether an error means that a peer is to be agreed on anew: the
// session is lost, or the version of the stateless era is no longer spoken. The
// backend has then not acted on the request.
func IsStale(err error, peer *Peer) bool {
	if isSessionLost(err) {
		return true
	}
	e, ok := errors.AsType[*RPCError](err)
	return ok && peer.Stateless() && e.Code == jsonrpc.CodeUnsupportedVersion
}

// Error names the code alone: the text is the backend's.
func (e *RPCError) Error() string {
	return "the backend answered with JSON-RPC error " + strconv.Itoa(e.Code)
}

// Ask sends a request of ours and returns the response to it, which has a
// result. params is a JSON object or nil; the id is new.
func (c *Client) Ask(ctx context.Context, to Target, peer *Peer, head Head, params []byte) (*jsonrpc.Message, error) {
	id := NewID()
	body := append([]byte(`{"jsonrpc":"2.0","id":`), id...)
	body = append(body, `,"method":`...)
	body = jsonrpc.AppendString(body, head.Method)
	if params != nil {
		body = append(body, `,"params":`...)
		body = append(body, params...)
	}
	resp, err := c.Post(ctx, to, peer, head, append(body, '}'))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return c.Reply(ctx, to, resp, id)
}

// notify sends a notification of ours.
func (c *Client) notify(ctx context.Context, to Target, peer *Peer, method string) error {
	body := append([]byte(`{"jsonrpc":"2.0","method":`), jsonrpc.AppendString(nil, method)...)
	return c.Forward(ctx, to, peer, method, append(body, '}'))
}

// Forward sends a notification or an answer, to which there is no answer.
func (c *Client) Forward(ctx context.Context, to Target, peer *Peer, method string, message []byte) error {
	resp, err := c.Post(ctx, to, peer, Head{Method: method}, message)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		return statusFault(to.Backend, resp.StatusCode)
	}
	return nil
}

// Reply reads a response until the answer to the request with that id.
func (c *Client) Reply(ctx context.Context, to Target, resp *http.Response, id []byte) (*jsonrpc.Message, error) {
	b := to.Backend
	to, release := c.leased(to)
	defer release()
	switch {
	case resp.StatusCode >= 300:
		return nil, Refusal(to, resp)
	case IsStream(resp):
		return c.replyOfStream(ctx, to, resp, id)
	}
	raw, err := to.Lease.ReadAll(nil, resp.Body, int64(c.maxMessage), resp.ContentLength)
	if err != nil {
		return nil, readFault(ctx, b, err)
	}
	m, err := jsonrpc.Parse(raw)
	if err != nil {
		return nil, answerFault(b, err)
	}
	if !m.IsResponse() || !bytes.Equal(m.RawID(), id) {
		return nil, answerFault(b, errors.New("this is not the answer to the request"))
	}
	return checked(&m, resp.StatusCode)
}

func (c *Client) replyOfStream(ctx context.Context, to Target, resp *http.Response, id []byte) (*jsonrpc.Message, error) {
	b := to.Backend
	events := sse.NewReader(resp.Body, c.maxMessage)
	events.Budget = to.Lease
	for {
		ev, err := events.Next()
		if err != nil {
			return nil, readFault(ctx, b, err)
		}
		if len(ev.Data) == 0 {
			continue
		}
		m, err := jsonrpc.Parse(ev.Data)
		if err != nil {
			return nil, answerFault(b, err)
		}
		if m.IsResponse() && bytes.Equal(m.RawID(), id) {
			if err := to.Lease.Copy(len(m.Raw)); err != nil {
				return nil, err
			}
			m.Raw = bytes.Clone(m.Raw) // what is kept of it must not keep the reader's memory
			return checked(&m, resp.StatusCode)
		}
	}
}

func checked(m *jsonrpc.Message, status int) (*jsonrpc.Message, error) {
	if m.Error.IsZero() {
		return m, nil
	}
	return nil, NewRPCError(m, status)
}

// NewRPCError returns the error that a response with an error stands for.
func NewRPCError(m *jsonrpc.Message, status int) *RPCError {
	e := &RPCError{Status: status, Message: *m}
	code := jsonrpc.Find(m.Raw, m.Error, "code")
	e.Code, _ = strconv.Atoi(string(code.Of(m.Raw)))
	return e
}

// errorAnswer returns the JSON-RPC error of a response that is not 2xx, or nil.
func errorAnswer(to Target, resp *http.Response) *RPCError {
	raw, err := to.Lease.ReadAll(nil, resp.Body, maxErrorBody, resp.ContentLength)
	if err != nil {
		return nil
	}
	m, err := jsonrpc.Parse(raw)
	if err != nil || !m.IsResponse() || m.Error.IsZero() {
		return nil
	}
	return NewRPCError(&m, resp.StatusCode)
}

// Refusal turns a response that is not 2xx into an error, an *RPCError when its
// body is one. It reads the body, within bounds.
func Refusal(to Target, resp *http.Response) error {
	if e := errorAnswer(to, resp); e != nil {
		return e
	}
	return statusFault(to.Backend, resp.StatusCode)
}

// IsStream reports whether a response is a stream of events.
func IsStream(resp *http.Response) bool {
	t, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return err == nil && t == "text/event-stream"
}

func statusFault(b *config.Backend, status int) error {
	return fault.Newf(fault.Unavailable, "backend %q answered with HTTP status %d", b.Name, status).
		WithReason(ReasonStatus, "backend", b.Name, "status", strconv.Itoa(status))
}

func answerFault(b *config.Backend, cause error) error {
	return fault.Wrap(fault.Unavailable, cause, fmt.Sprintf("backend %q gave an answer that makes no sense", b.Name)).
		WithReason(ReasonAnswer, "backend", b.Name)
}

func isFault(err error) bool {
	_, ok := fault.As(err)
	return ok
}

func readFault(ctx context.Context, b *config.Backend, err error) error {
	kind, text := fault.Unavailable, "backend %q ended its answer too early"
	switch {
	case errors.Is(err, sse.ErrTooLarge), errors.Is(err, limits.ErrTooLarge):
		return answerFault(b, err)
	case isFault(err): // none of the backend's doing
		return err
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		kind, text = fault.Timeout, "backend %q did not answer in time"
	case ctx.Err() != nil:
		kind, text = fault.Canceled, "the call of backend %q was cancelled"
	}
	return fault.Wrap(kind, err, fmt.Sprintf(text, b.Name)).WithReason(ReasonAnswer, "backend", b.Name)
}
