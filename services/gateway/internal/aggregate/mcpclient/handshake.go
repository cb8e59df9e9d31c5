package mcpclient

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/gateway/internal/aggregate/era"
	"chatelaine.dev/services/gateway/internal/jsonrpc"
	"chatelaine.dev/services/gateway/internal/sessionid"
)

// Hello is how a client introduces itself.
type Hello struct {
	// Version of the session era that the client agreed on with us.
	Version string
	// ClientInfo is JSON; nil stands for the gateway's own.
	ClientInfo []byte
	// Capabilities is JSON; nil stands for none.
	Capabilities []byte
}

const (
	maxInstructions = 16 << 10
	maxSessionID    = 1024
)

// errOtherEra: the backend does not speak the era that was tried.
var errOtherEra = errors.New("the backend does not speak this era")

// Initialize opens a session (MCP 2025-11-25, Lifecycle, Initialization). The
// notification that ends the handshake is still to be sent: Initialized.
func (c *Client) Initialize(ctx context.Context, to Target, hello Hello) (*Peer, error) {
	capabilities := hello.Capabilities
	if capabilities == nil {
		capabilities = []byte("{}")
	}
	id := NewID()
	body := append([]byte(`{"jsonrpc":"2.0","id":`), id...)
	body = append(body, `,"method":"initialize","params":{"protocolVersion":`...)
	body = jsonrpc.AppendString(body, hello.Version)
	body = append(body, `,"capabilities":`...)
	body = append(body, capabilities...)
	body = append(body, `,"clientInfo":`...)
	body = append(body, c.infoOf(&hello)...)
	body = append(body, "}}"...)

	resp, err := c.Post(ctx, to, &Peer{}, Head{Method: "initialize"}, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	m, err := c.Reply(ctx, to, resp, id)
	if err != nil {
		return nil, err
	}
	return sessionPeer(to, resp, m)
}

func sessionPeer(to Target, resp *http.Response, m *jsonrpc.Message) (*Peer, error) {
	peer := &Peer{
		SessionID: resp.Header.Get(era.HeaderSession),
		Origin:    sessionid.OriginOf(to.Backend.Origin),
		Version:   m.Text(jsonrpc.Find(m.Raw, m.Result, "protocolVersion")),
		Features:  featuresOf(m.Raw, jsonrpc.Find(m.Raw, m.Result, "capabilities")),
	}
	peer.Instructions = instructions(m)
	switch {
	case !era.IsSession(peer.Version):
		return nil, answerFault(to.Backend, errors.New("it wants a protocol version that the gateway does not speak"))
	case !validSessionID(peer.SessionID):
		return nil, answerFault(to.Backend, errors.New("its session id is too long, or not visible ASCII"))
	}
	return peer, nil
}

// Initialized ends the handshake of Initialize.
func (c *Client) Initialized(ctx context.Context, to Target, peer *Peer) error {
	return c.notify(ctx, to, peer, "notifications/initialized")
}

// Discover asks a backend whether it speaks the stateless era (MCP 2026-07-28,
// Discovery). The error is errOtherEra when it certainly does not.
func (c *Client) Discover(ctx context.Context, to Target, clientInfo []byte) (*Peer, error) {
	peer := &Peer{Version: era.V20260728}
	m, err := c.Ask(ctx, to, peer, Head{Method: "server/discover"}, Params(peer, clientInfo, nil))
	if err != nil {
		if saysOtherEra(err) {
			return nil, errOtherEra
		}
		return nil, err
	}
	supported := false
	_ = jsonrpc.Elements(m.Raw, jsonrpc.Find(m.Raw, m.Result, "supportedVersions"), func(v jsonrpc.Span) error {
		supported = supported || m.Text(v) == era.V20260728
		return nil
	})
	if !supported {
		return nil, errOtherEra
	}
	peer.Features = featuresOf(m.Raw, jsonrpc.Find(m.Raw, m.Result, "capabilities"))
	peer.Instructions = instructions(m)
	return peer, nil
}

// Join returns a peer for a client with a session: with initialize, or of the
// stateless era where the backend has nothing else. The handshake is complete
// for a stateless peer only; a session still wants Initialized.
func (c *Client) Join(ctx context.Context, to Target, hello Hello) (*Peer, error) {
	peer, err := c.Initialize(ctx, to, hello)
	if err == nil || !saysOtherEra(err) {
		return peer, err
	}
	stateless, discoverErr := c.Discover(ctx, to, c.infoOf(&hello))
	if discoverErr != nil {
		return nil, c.explain(to, err)
	}
	return stateless, nil
}

// Reach returns a peer for a client without a session: of the stateless era, or
// with a session of our own, its handshake complete, where the backend has
// nothing else. Some servers of the session era answer a method that they do not
// know with 5xx, so that is worth another try as well.
func (c *Client) Reach(ctx context.Context, to Target, hello Hello) (*Peer, error) {
	peer, err := c.Discover(ctx, to, c.infoOf(&hello))
	if err == nil || !errors.Is(err, errOtherEra) && statusOf(err) < http.StatusInternalServerError {
		return peer, err
	}
	hello.Version, hello.Capabilities = era.LatestSession, nil
	peer, err = c.Initialize(ctx, to, hello)
	if err != nil {
		return nil, c.explain(to, err)
	}
	if err := c.Initialized(ctx, to, peer); err != nil {
		return nil, err
	}
	return peer, nil
}

// explain makes a fault of a JSON-RPC error that no request of the client got.
func (c *Client) explain(to Target, err error) error {
	if _, ok := errors.AsType[*RPCError](err); ok {
		return answerFault(to.Backend, err)
	}
	return err
}

// saysOtherEra reports whether an answer to a handshake means that the backend
// speaks the other era: any refusal but one for who is calling or how often.
func saysOtherEra(err error) bool {
	if _, ok := errors.AsType[*RPCError](err); ok {
		return true
	}
	switch status := statusOf(err); status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return false
	default:
		return status >= 400 && status < 500
	}
}

// statusOf returns the HTTP status that a backend's answer failed with, 0 when
// that is not why err is there.
func statusOf(err error) int {
	e, ok := fault.As(err)
	if !ok || e.Reason != ReasonStatus {
		return 0
	}
	status, _ := strconv.Atoi(e.Metadata["status"])
	return status
}

// Params returns the parameters of a request of ours to a peer, with members
// given as JSON without braces, nil for none.
func Params(peer *Peer, clientInfo, members []byte) []byte {
	if !peer.Stateless() {
		return append(append([]byte{'{'}, members...), '}')
	}
	p := append([]byte(`{"_meta":{`), era.Meta(clientInfo)...)
	p = append(p, '}')
	if len(members) > 0 {
		p = append(append(p, ','), members...)
	}
	return append(p, '}')
}

func (c *Client) infoOf(h *Hello) []byte {
	if h.ClientInfo != nil {
		return h.ClientInfo
	}
	return c.info
}

func instructions(m *jsonrpc.Message) string {
	text := m.Text(jsonrpc.Find(m.Raw, m.Result, "instructions"))
	if len(text) > maxInstructions {
		return ""
	}
	return text
}

// validSessionID: visible ASCII (MCP 2025-11-25, Session Management).
func validSessionID(id string) bool {
	for i := range len(id) {
		if id[i] < 0x21 || id[i] > 0x7e {
			return false
		}
	}
	return len(id) <= maxSessionID
}
