package aggregate

import (
	"encoding/json"
	"net/http"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/services/gateway/internal/accesslog"
	"chatelaine.dev/services/gateway/internal/aggregate/mcpclient"
	"chatelaine.dev/services/gateway/internal/jsonrpc"
)

// What goes to clients and comes back: ids of the backends' requests, and ids of
// events. They are sealed for the person and the session.
const (
	purposeRequestID = "mcp-request-id"
	purposeEventID   = "mcp-event-id"
)

// requestToken is the id of a backend's request, as the client sees it.
type requestToken struct {
	Backend string `json:"b"`
	// Session that the backend asked in. In another one the same id may be
	// another question.
	Session string          `json:"s,omitempty"`
	ID      json.RawMessage `json:"i"`
}

// eventToken is the id of an event: of the merged stream, then with the position
// in each backend's; or of the stream of one call.
type eventToken struct {
	Positions map[string]string `json:"p,omitempty"`
	Backend   string            `json:"b,omitempty"`
	ID        string            `json:"i,omitempty"`
	// Request is the id of the call, which the rest of its stream may answer.
	Request json.RawMessage `json:"r,omitempty"`
}

// place is what tokens are bound to beside the person.
func place(s *session) string { return endpoint + "#" + s.sealed.KeyText() }

// sealRequestID returns the id, as JSON, under which a client gets to see a
// backend's request. It is false when no answer could be led back.
func (h *Handler) sealRequestID(q *request, b *config.Backend, peer *mcpclient.Peer, id []byte) ([]byte, bool) {
	if q.session == nil || peer.Stateless() {
		return nil, false
	}
	plain, err := json.Marshal(&requestToken{Backend: b.Name, Session: peer.SessionID, ID: id})
	if err != nil {
		return nil, false
	}
	sealed, err := h.sessions.sealer.SealValue(purposeRequestID, q.who, place(q.session), plain)
	if err != nil {
		return nil, false
	}
	return jsonrpc.AppendString(nil, sealed), true
}

// respond leads a client's answer to the backend that has asked.
func (h *Handler) respond(w http.ResponseWriter, r *http.Request, q *request) {
	refuse := func() {
		accesslog.From(r.Context()).Fail(accesslog.OutcomeRefused, "answer")
		http.Error(w, "this answers no request of the session", http.StatusBadRequest)
	}
	plain, err := h.sessions.sealer.OpenValue(purposeRequestID, q.who, place(q.session), q.msg.Text(q.msg.ID))
	if err != nil {
		refuse()
		return
	}
	var token requestToken
	if err := json.Unmarshal(plain, &token); err != nil {
		refuse()
		return
	}
	b, known := h.deployment.Backend(token.Backend)
	peer := q.session.known(token.Backend)
	if !known || peer == nil || peer.SessionID != token.Session { // whoever asked is gone
		refuse()
		return
	}
	accesslog.From(r.Context()).Backend = b.Name
	message := jsonrpc.Splice(q.msg.Raw, jsonrpc.Edit{Span: q.msg.ID, With: token.ID})
	err = h.client.Forward(r.Context(), mcpclient.Target{Caller: q.who, Backend: b}, peer, "", message)
	switch {
	case mcpclient.IsStale(err, peer):
		refuse()
	case err != nil:
		h.refuse(w, r, err)
	default:
		w.WriteHeader(http.StatusAccepted)
	}
}

func (h *Handler) sealEventID(q *request, token *eventToken) []byte {
	plain, err := json.Marshal(token)
	if err != nil {
		return nil
	}
	sealed, err := h.sessions.sealer.SealValue(purposeEventID, q.who, place(q.session), plain)
	if err != nil {
		return nil // an event without an id cannot be resumed from, no more
	}
	return []byte(sealed)
}

func (h *Handler) openEventID(q *request, id string) (*eventToken, bool) {
	plain, err := h.sessions.sealer.OpenValue(purposeEventID, q.who, place(q.session), id)
	if err != nil {
		return nil, false
	}
	var token eventToken
	if err := json.Unmarshal(plain, &token); err != nil {
		return nil, false
	}
	return &token, true
}

// oneEventID is the id of an event in the stream of one call.
func oneEventID(s *stream, id []byte) []byte {
	if s.request.session == nil || s.peer.Stateless() || len(id) == 0 {
		return nil
	}
	return s.handler.sealEventID(s.request, &eventToken{Backend: s.backend.Name, ID: string(id), Request: s.id})
}
