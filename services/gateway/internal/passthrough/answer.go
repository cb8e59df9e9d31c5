package passthrough

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/gateway/internal/accesslog"
	"chatelaine.dev/services/gateway/internal/aggregate/era"
	"chatelaine.dev/services/gateway/internal/backend"
	"chatelaine.dev/services/gateway/internal/jsonrpc"
	"chatelaine.dev/services/gateway/internal/sessionid"
)

// answerHeader writes the header of the answer. It reports whether to go on.
func (x *exchange) answerHeader(resp *http.Response) bool {
	h := x.w.Header()
	for name, values := range resp.Header {
		if returns(name) {
			h[name] = values
		}
	}
	if id := resp.Header.Get(era.HeaderSession); id != "" && !x.stateless {
		sealed, err := x.sealSession(id)
		if err != nil {
			x.fail(err)
			return false
		}
		h[era.HeaderSession] = []string{sealed}
	}
	if isEvents(resp) {
		h["X-Accel-Buffering"] = []string{"no"} // nginx would collect events
		h.Del("Content-Length")
	}
	x.w.WriteHeader(resp.StatusCode)
	return true
}

// sealSession returns the client's id for a session of the backend: the one that
// it already has when the backend repeats its own.
func (x *exchange) sealSession(id string) (string, error) {
	if x.sealed != "" && id == x.session {
		return x.sealed, nil
	}
	name := x.h.cfg.Backend.Name
	session := sessionid.New("", sessionid.BackendSession{Backend: name, ID: id})
	session.Extra = []byte(x.h.origin)
	sealed, err := x.h.cfg.Sessions.Seal(x.who, x.h.endpoint, session)
	if err != nil {
		return "", fault.Wrap(fault.Unavailable, err, "backend "+name+" gave a session id that is too long").
			WithReason(sessionid.ReasonTooLarge, "backend", name)
	}
	return sealed, nil
}

// returns reports whether a header of a backend's answer reaches the client.
// Cookies, challenges and CORS are ours to give.
func returns(name string) bool {
	switch name {
	case "Content-Type", "Content-Length", "Content-Encoding", "Cache-Control", "Retry-After", "Allow", "Last-Modified", "Etag":
		return true
	case era.HeaderSession:
		return false
	}
	return strings.HasPrefix(name, "Mcp-")
}

func isEvents(resp *http.Response) bool {
	contentType, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	return strings.EqualFold(strings.TrimSpace(contentType), "text/event-stream")
}

// errWrite marks an error of the client's side.
var errWrite = errors.New("writing to the client")

// stream copies the body. What the backend sends of an event stream goes out at
// once. The server bounds each write, since a client that does not read keeps a
// connection to the backend busy.
func (x *exchange) stream(resp *http.Response) error {
	control := http.NewResponseController(x.w)
	events := isEvents(resp)
	if events {
		if err := control.Flush(); err != nil { // the headers, before the first event
			return errors.Join(errWrite, err)
		}
	}
	buf := x.h.chunks.Get().(*[]byte) // New makes nothing else
	defer x.h.chunks.Put(buf)
	for {
		n, err := resp.Body.Read(*buf)
		if n > 0 {
			if _, werr := x.w.Write((*buf)[:n]); werr != nil {
				return errors.Join(errWrite, werr)
			}
			if events {
				if werr := control.Flush(); werr != nil {
					return errors.Join(errWrite, werr)
				}
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// broken ends an answer that could not be copied to its end. A client must not
// take a part for the whole; only an event stream may end early.
func (x *exchange) broken(ctx context.Context, resp *http.Response, err error) {
	cause := context.Cause(ctx)
	f, ours := fault.As(cause)
	if cause == nil {
		f, ours = fault.As(err) // of the request to the backend alone
	}
	switch {
	case errors.Is(err, errWrite), cause != nil && !ours:
		x.rec.Fail(accesslog.OutcomeCanceled, "client")
	case ours: // the session ended, the token expired, the gateway stops
		x.rec.Fail(accesslog.OutcomeRefused, f.Reason)
		if isEvents(resp) {
			return
		}
	default:
		x.rec.Fail(accesslog.OutcomeFailed, "backend_stream")
	}
	panic(http.ErrAbortHandler)
}

// fail answers a request that got no answer from the backend.
func (x *exchange) fail(err error) {
	if f := fault.From(err); f.Kind == fault.Canceled {
		x.rec.Fail(accesslog.OutcomeCanceled, "client")
		x.w.WriteHeader(f.Kind.HTTPStatus()) // nobody is left to read it
		return
	}
	e := backend.Explain(err)
	x.rec.Fail(accesslog.OutcomeFailed, e.Reason)
	switch {
	case e.Status == http.StatusUnauthorized:
		x.h.cfg.Challenger.Challenge(x.w, x.r, x.h.cfg.Backend.Name, err)
		return
	case e.UserCanFix:
		x.rec.Outcome = accesslog.OutcomeUser
	}
	status := e.Status
	if x.message.IsRequest() && (e.UserCanFix || x.probing()) {
		status = http.StatusOK // the transport works
	}
	if status >= http.StatusInternalServerError && status != http.StatusBadGateway {
		x.w.Header().Set("Retry-After", "5")
	}
	if e.UserCanFix && x.message.Method == "tools/call" && x.message.IsRequest() {
		jsonrpc.Write(x.w, status, jsonrpc.AppendToolError(nil, x.message.RawID(), e.Text, x.stateless))
		return
	}
	var id []byte
	if x.message.IsRequest() {
		id = x.message.RawID()
	}
	jsonrpc.Write(x.w, status, jsonrpc.AppendError(nil, id, e.Code, e.Text, e.Data()))
}
