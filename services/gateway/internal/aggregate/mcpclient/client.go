package mcpclient

import (
	"context"
	"crypto/rand"
	"net/http"
	"strings"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/services/gateway/internal/aggregate/era"
	"chatelaine.dev/services/gateway/internal/backend"
	"chatelaine.dev/services/gateway/internal/caller"
	"chatelaine.dev/services/gateway/internal/jsonrpc"
	"chatelaine.dev/services/gateway/internal/limits"
)

// DefaultMaxMessage bounds an answer that Ask reads, in bytes.
const DefaultMaxMessage = 16 << 20

// Backends sends one HTTP request to a backend, with the caller's credential.
// Errors are *fault.Error.
type Backends interface {
	Do(ctx context.Context, c *caller.Caller, b *config.Backend, r *backend.Request) (*http.Response, error)
}

// Peer is how a backend is spoken to for one client. It is immutable.
type Peer struct {
	// Version of the protocol that was agreed on.
	Version string
	// SessionID is the backend's Mcp-Session-Id; empty when it has none.
	SessionID string
	// Origin is where the session is; see sessionid.OriginOf. Empty when that is
	// not known.
	Origin string
	// Features that the backend declared.
	Features Features
	// Instructions of the backend for the model; may be empty.
	Instructions string
}

// Stateless reports whether the peer speaks the stateless era.
func (p *Peer) Stateless() bool { return era.IsStateless(p.Version) }

// Target is whom a request goes to, and for whom.
type Target struct {
	Caller  *caller.Caller
	Backend *config.Backend
	// Lease is where the memory for what the backend answers comes from. When it is
	// nil, the memory is the client's until the answer is there.
	Lease *limits.Lease
}

// Client talks to backends. It is safe for concurrent use.
type Client struct {
	backends   Backends
	info       []byte // of the gateway itself, as JSON
	memory     *limits.Memory
	maxMessage int
}

// New returns a client that sends its requests through backends, to which it names
// the gateway's version where no client's name is to be given. It reads answers into
// memory, which may be nil.
func New(backends Backends, version string, memory *limits.Memory) *Client {
	info := jsonrpc.AppendString([]byte(`{"name":"chatelaine-gateway","version":`), version)
	return &Client{backends: backends, info: append(info, '}'), memory: memory, maxMessage: DefaultMaxMessage}
}

// leased returns the target with a lease, and what gives back the lease that is
// not the caller's.
func (c *Client) leased(to Target) (Target, func()) {
	if to.Lease != nil {
		return to, func() {}
	}
	to.Lease = &limits.Lease{}
	to.Lease.Begin(c.memory, to.Caller)
	return to, to.Lease.Release
}

// Head is what the headers of a request repeat of its body (MCP 2026-07-28,
// Streamable HTTP, Standard Request Headers). The session era has no use for it.
type Head struct {
	Method string
	// Name of the tool or prompt, or the resource's URI, as the backend knows it.
	Name string
	// Params holds the client's Mcp-Param-* headers.
	Params http.Header
}

// Post sends one message and returns the response with its body unread. The
// error of a session that the backend has lost is ErrSessionLost.
func (c *Client) Post(ctx context.Context, to Target, peer *Peer, head Head, message []byte) (*http.Response, error) {
	header := peer.header(4)
	header.Set("Content-Type", "application/json")
	header.Set("Accept", "application/json, text/event-stream")
	if peer.Stateless() {
		header.Set(era.HeaderMethod, head.Method)
		if head.Name != "" {
			header.Set(era.HeaderName, era.EncodeHeader(head.Name))
		}
		for name, values := range head.Params {
			header[name] = values
		}
	}
	return c.do(ctx, to, peer, &backend.Request{Method: http.MethodPost, Header: header, Body: message})
}

// Listen opens the backend's stream of messages, from after an event when
// lastEventID is not empty. The body is unread.
func (c *Client) Listen(ctx context.Context, to Target, peer *Peer, lastEventID string) (*http.Response, error) {
	header := peer.header(2)
	header.Set("Accept", "text/event-stream")
	if lastEventID != "" {
		header.Set(era.HeaderLastEventID, lastEventID)
	}
	return c.do(ctx, to, peer, &backend.Request{Method: http.MethodGet, Header: header})
}

// End ends the backend's session. A backend that does not let clients end
// sessions (405), or that has forgotten it (404), is no error.
func (c *Client) End(ctx context.Context, to Target, peer *Peer) error {
	if peer.SessionID == "" {
		return nil
	}
	resp, err := c.do(ctx, to, peer, &backend.Request{Method: http.MethodDelete, Header: peer.header(0)})
	if err != nil {
		if isSessionLost(err) {
			return nil
		}
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode < 300 || resp.StatusCode == http.StatusMethodNotAllowed {
		return nil
	}
	return statusFault(to.Backend, resp.StatusCode)
}

func (c *Client) do(ctx context.Context, to Target, peer *Peer, req *backend.Request) (*http.Response, error) {
	resp, err := c.backends.Do(ctx, to.Caller, to.Backend, req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusNotFound && peer.SessionID != "" {
		_ = resp.Body.Close()
		return nil, ErrSessionLost
	}
	return resp, nil
}

// header returns the headers that every request to the peer has.
func (p *Peer) header(more int) http.Header {
	h := make(http.Header, more+2)
	if p.Version != "" {
		h[era.HeaderVersion] = []string{p.Version}
	}
	if p.SessionID != "" {
		h[era.HeaderSession] = []string{p.SessionID}
	}
	return h
}

// NewID returns a request id of ours, as JSON, that no client's request has.
func NewID() []byte { return []byte(`"chatelaine-` + strings.ToLower(rand.Text()) + `"`) }
