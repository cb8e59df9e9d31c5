package aggregate

import (
	"errors"
	"net/http"
	"strings"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/gateway/internal/accesslog"
	"chatelaine.dev/services/gateway/internal/aggregate/era"
	"chatelaine.dev/services/gateway/internal/aggregate/mcpclient"
	"chatelaine.dev/services/gateway/internal/caller"
	"chatelaine.dev/services/gateway/internal/jsonrpc"
	"chatelaine.dev/services/gateway/internal/limits"
)

// request is one message of a client.
type request struct {
	who *caller.Caller
	msg *jsonrpc.Message
	// id of the message, as JSON; nil for notifications.
	id []byte
	// stateless: the client speaks the stateless era.
	stateless bool
	link      link
	// session of the client; nil in the stateless era.
	session *session
	hello   mcpclient.Hello
	// params are the client's Mcp-Param-* headers.
	params http.Header
	// lease is for what is held until the request is over.
	lease *limits.Lease
}

// unleased returns the request for what is not held until then: pages of which
// nothing is shown, and work that outlives the request.
func (q *request) unleased() *request {
	other := *q
	other.lease = nil
	return &other
}

// complete reports whether results must say that they are complete.
func (q *request) complete() bool { return q.stateless }

func (h *Handler) post(w http.ResponseWriter, r *http.Request, who *caller.Caller) {
	if !jsonrpc.IsMedia(r.Header.Get("Content-Type")) {
		http.Error(w, "Content-Type must be application/json, in UTF-8", http.StatusUnsupportedMediaType)
		return
	}
	if !accepts(r.Header, "application/json") || !accepts(r.Header, "text/event-stream") {
		http.Error(w, "Accept must have application/json and text/event-stream", http.StatusNotAcceptable)
		return
	}
	var held struct { // in one piece
		request

		lease limits.Lease
	}
	held.lease.Begin(h.memory, who)
	defer held.lease.Release()
	body, err := held.lease.ReadAll(nil, http.MaxBytesReader(w, r.Body, h.maxBody), h.maxBody, r.ContentLength)
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok || errors.Is(err, limits.ErrTooLarge) {
			writeError(w, http.StatusRequestEntityTooLarge, nil, jsonrpc.CodeInvalidRequest, "the message is too large", nil)
			return
		}
		if fault.ReasonOf(err) == limits.ReasonBusy {
			accesslog.From(r.Context()).Fail(accesslog.OutcomeRefused, limits.ReasonBusy)
			w.Header().Set("Connection", "close") // the rest of the body is not read
			unserved(w, nil, err)
			return
		}
		writeError(w, http.StatusBadRequest, nil, jsonrpc.CodeInvalidRequest, "the request's body did not arrive whole", nil)
		return
	}
	if jsonrpc.IsBatch(body) {
		h.batch(w, r, who, body)
		return
	}
	m, err := jsonrpc.Parse(body)
	if err != nil {
		writeError(w, http.StatusBadRequest, m.RawID(), jsonrpc.CodeOf(err), err.Error(), nil)
		return
	}
	rec := accesslog.From(r.Context())
	if rec.Method = m.Method; m.IsResponse() {
		rec.Method = "answer"
	}
	held.request = request{who: who, msg: &m, id: m.RawID(), lease: &held.lease}
	h.message(w, r, &held.request)
}

// message serves one message of either era.
func (h *Handler) message(w http.ResponseWriter, r *http.Request, q *request) {
	version := r.Header.Get(era.HeaderVersion)
	claimed := q.msg.Text(q.msg.ProtocolVersion)
	switch {
	case q.msg.IsRequest() && (era.IsStateless(version) || !q.msg.ProtocolVersion.IsZero()):
		if problem := checkStateless(r.Header, q.msg); problem != nil {
			writeError(w, problem.status, q.id, problem.code, problem.text, problem.data)
			return
		}
		if era.IsStateless(claimed) {
			h.stateless(w, r, q)
			return
		}
	case era.IsStateless(version):
		// Notifications have nothing to say here: closing a stream cancels.
		w.WriteHeader(http.StatusAccepted)
		return
	}
	if version != "" && !era.IsSession(version) {
		writeError(w, http.StatusBadRequest, q.id, jsonrpc.CodeInvalidRequest,
			"unsupported protocol version; supported are "+strings.Join(era.Versions(), ", "), nil)
		return
	}
	if q.msg.Method == "initialize" && q.msg.IsRequest() {
		h.initialize(w, r, q)
		return
	}
	id, ok := sessionOf(w, r)
	if !ok {
		return
	}
	s, err := h.sessions.open(r.Context(), q.who, id, !oneBackend(q.msg.Method))
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	q.session, q.hello = s, s.hello
	q.link = &sessionLink{sessions: h.sessions, session: s, who: q.who}
	h.inSession(w, r, q)
}

// oneBackend reports whether a method goes to one backend, without which the
// session is not worth a question to the store.
func oneBackend(method string) bool {
	switch method {
	case "tools/call", "prompts/get", "resources/read", "completion/complete":
		return true
	}
	return false
}

// stateless serves a request of the stateless era.
func (h *Handler) stateless(w http.ResponseWriter, r *http.Request, q *request) {
	q.stateless = true
	info := jsonrpc.Find(q.msg.Raw, q.msg.Meta, era.MetaClientInfo)
	q.hello = mcpclient.Hello{ClientInfo: trimmed(q.msg.Raw, info, "name", "version", "title")}
	link := &statelessLink{reached: h.reached, who: q.who, hello: q.hello}
	defer link.close()
	q.link = link
	for name, values := range r.Header {
		if strings.HasPrefix(name, era.HeaderParamPrefix) {
			if q.params == nil {
				q.params = make(http.Header)
			}
			q.params[name] = values
		}
	}
	switch q.msg.Method {
	case "server/discover":
		h.discover(w, r, q)
	case "subscriptions/listen":
		h.subscribe(w, r, q)
	default:
		h.common(w, r, q)
	}
}

// inSession serves a message of the session era.
func (h *Handler) inSession(w http.ResponseWriter, r *http.Request, q *request) {
	switch {
	case q.msg.IsResponse():
		h.respond(w, r, q)
	case q.msg.IsNotification():
		h.notify(w, r, q)
	default:
		switch q.msg.Method {
		case "ping":
			h.result(w, q, []byte("{}"))
		case "logging/setLevel":
			h.setLevel(w, r, q)
		case "resources/subscribe", "resources/unsubscribe":
			h.call(w, r, q)
		default:
			h.common(w, r, q)
		}
	}
}

// common serves the requests that both eras have.
func (h *Handler) common(w http.ResponseWriter, r *http.Request, q *request) {
	switch q.msg.Method {
	case "tools/list", "prompts/list", "resources/list", "resources/templates/list":
		h.list(w, r, q)
	case "tools/call", "prompts/get", "resources/read", "completion/complete":
		h.call(w, r, q)
	default:
		h.fail(w, r, q, newProblem(jsonrpc.CodeMethodNotFound, "there is no method "+quoted(q.msg.Method)))
	}
}

// sessionOf returns the session id of a request of the session era, or answers
// that there must be one.
func sessionOf(w http.ResponseWriter, r *http.Request) (string, bool) {
	if era.IsStateless(r.Header.Get(era.HeaderVersion)) {
		methodNotAllowed(w, r)
		return "", false
	}
	id := r.Header.Get(era.HeaderSession)
	if id == "" {
		http.Error(w, era.HeaderSession+" is required: initialize first", http.StatusBadRequest)
		return "", false
	}
	return id, true
}

func methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	allow := "GET, POST, DELETE"
	if era.IsStateless(r.Header.Get(era.HeaderVersion)) {
		allow = "POST"
	}
	w.Header().Set("Allow", allow)
	http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
}

// accepts reports whether a media type is acceptable (RFC 9110, section 12.5.1).
// Without the header, everything is.
func accepts(header http.Header, mediaType string) bool {
	values := header.Values("Accept")
	if len(values) == 0 {
		return true
	}
	family, _, _ := strings.Cut(mediaType, "/")
	for _, value := range values {
		for one := range strings.SplitSeq(value, ",") {
			one, _, _ = strings.Cut(one, ";")
			switch strings.ToLower(strings.TrimSpace(one)) {
			case mediaType, family + "/*", "*/*":
				return true
			}
		}
	}
	return false
}
