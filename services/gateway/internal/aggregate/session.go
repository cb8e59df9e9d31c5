package aggregate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/gateway/internal/aggregate/era"
	"chatelaine.dev/services/gateway/internal/aggregate/mcpclient"
	"chatelaine.dev/services/gateway/internal/caller"
	"chatelaine.dev/services/gateway/internal/jsonrpc"
	"chatelaine.dev/services/gateway/internal/sessionid"
)

const (
	// maxSessionAge is how long a session id is good for; then clients
	// initialise again.
	maxSessionAge = 7 * 24 * time.Hour
	// recheck is how long a replica believes that a session was not ended on
	// another, in calls that go to one backend. All other requests ask.
	recheck = 30 * time.Second
	// maxHelloMember bounds what a session id carries of the client's info and
	// of its capabilities, in bytes each.
	maxHelloMember = 512
)

// session is a client's session, opened. What the id carries never changes;
// backends that joined later, or anew, are in the state.
type session struct {
	owner  string // caller.Key
	sealed *sessionid.Session
	hello  mcpclient.Hello
	base   map[string]*mcpclient.Peer
	// inBlob: the id could not carry the backends.
	inBlob bool

	state     atomic.Pointer[sessionState]
	checkedAt atomic.Int64 // Unix nanoseconds; 0: never
	joins     singleflight.Group
}

// sessionState is what the id does not carry. It is immutable.
type sessionState struct {
	// revision of the stored blob; 0 when there is none.
	revision int64
	ended    bool
	joined   map[string]*mcpclient.Peer
}

// known returns the peer of a backend, nil when it has not joined.
func (s *session) known(backend string) *mcpclient.Peer {
	if p, ok := s.state.Load().joined[backend]; ok {
		return p
	}
	return s.base[backend]
}

// peers returns the backends that have joined.
func (s *session) peers() map[string]*mcpclient.Peer {
	state := s.state.Load()
	all := make(map[string]*mcpclient.Peer, len(s.base)+len(state.joined))
	for name, p := range s.base {
		all[name] = p
	}
	for name, p := range state.joined {
		all[name] = p
	}
	return all
}

// extra is what the session id carries beside the backends' session ids.
type extra struct {
	ClientInfo   json.RawMessage `json:"i,omitempty"`
	Capabilities json.RawMessage `json:"c,omitempty"`
	// Peers belong to the id's backends, in the same order: the place of the
	// version in extraVersions, and the features.
	Peers [][2]int `json:"p,omitempty"`
	// Origins are those of the sessions, in the same order; ids of the version
	// before have none.
	Origins []string `json:"o,omitempty"`
	InBlob  bool     `json:"b,omitempty"`
}

// extraVersions is part of the format of session ids: add at the end.
func extraVersions() []string {
	return []string{era.V20250326, era.V20250618, era.V20251125, era.V20260728}
}

// seal makes the session id of a fresh session.
func (m *sessions) seal(who *caller.Caller, s *session) (string, error) {
	x := extra{ClientInfo: s.hello.ClientInfo, Capabilities: s.hello.Capabilities, InBlob: s.inBlob}
	s.sealed.Backends = nil
	if !s.inBlob {
		for name, p := range s.base {
			for v, version := range extraVersions() {
				if version == p.Version {
					s.sealed.Backends = append(s.sealed.Backends, sessionid.BackendSession{Backend: name, ID: p.SessionID})
					x.Peers = append(x.Peers, [2]int{v, int(p.Features)})
					x.Origins = append(x.Origins, p.Origin)
				}
			}
		}
	}
	var err error
	if s.sealed.Extra, err = json.Marshal(&x); err != nil {
		return "", fault.Wrap(fault.Internal, err, "the session cannot be sealed")
	}
	return m.sealer.Seal(who, endpoint, s.sealed)
}

// unseal opens a session id.
func (m *sessions) unseal(who *caller.Caller, id string) (*session, error) {
	sealed, err := m.sealer.Open(who, endpoint, id)
	if err != nil {
		return nil, err
	}
	s, ok := m.fromSealed(sealed)
	if !ok || m.now().Sub(sealed.CreatedAt) > maxSessionAge {
		return nil, errSessionUnknown()
	}
	s.owner = who.Key
	return s, nil
}

func (m *sessions) fromSealed(sealed *sessionid.Session) (*session, bool) {
	var x extra
	if err := json.Unmarshal(sealed.Extra, &x); err != nil || len(x.Peers) != len(sealed.Backends) {
		return nil, false
	}
	s := &session{
		sealed: sealed, inBlob: x.InBlob, base: make(map[string]*mcpclient.Peer, len(x.Peers)),
		hello: mcpclient.Hello{Version: sealed.ProtocolVersion, ClientInfo: x.ClientInfo, Capabilities: x.Capabilities},
	}
	versions := extraVersions()
	for i, p := range x.Peers {
		if p[0] < 0 || p[0] >= len(versions) {
			return nil, false
		}
		b := sealed.Backends[i]
		peer := &mcpclient.Peer{Version: versions[p[0]], SessionID: b.ID, Features: mcpclient.Features(p[1])}
		if i < len(x.Origins) {
			peer.Origin = x.Origins[i]
		}
		if !m.store.elsewhere(b.Backend, peer) {
			s.base[b.Backend] = peer
		}
	}
	s.state.Store(&sessionState{})
	return s, true
}

// newSession makes a session that is not sealed yet.
func newSession(who *caller.Caller, hello mcpclient.Hello, peers map[string]*mcpclient.Peer) *session {
	s := &session{owner: who.Key, sealed: sessionid.New(hello.Version), hello: hello, base: make(map[string]*mcpclient.Peer, len(peers))}
	for name, p := range peers { // the instructions are said once, and long
		s.base[name] = &mcpclient.Peer{Version: p.Version, SessionID: p.SessionID, Origin: p.Origin, Features: p.Features}
	}
	s.state.Store(&sessionState{})
	return s
}

// errSessionUnknown is the error of a session that is not, or no more, the
// caller's. Its answer is 404, upon which clients initialise again.
func errSessionUnknown() error {
	return fault.New(fault.NotFound, "session not found").WithReason(sessionid.ReasonUnknown)
}

func isSessionUnknown(err error) bool { return fault.ReasonOf(err) == sessionid.ReasonUnknown }

// trimmedHello returns what a session id can carry of an introduction. Of the
// capabilities it keeps those whose requests the gateway passes on to the client.
func trimmedHello(version string, m *jsonrpc.Message) mcpclient.Hello {
	info := jsonrpc.Find(m.Raw, m.Params, "clientInfo")
	capabilities := jsonrpc.Find(m.Raw, m.Params, "capabilities")
	return mcpclient.Hello{
		Version:      version,
		ClientInfo:   trimmed(m.Raw, info, "name", "version", "title"),
		Capabilities: only(m.Raw, capabilities, "roots", "sampling", "elicitation"),
	}
}

// trimmed returns an object, of a large one only the named members, and nil
// when these are too large as well, or when there is no object.
func trimmed(raw []byte, obj jsonrpc.Span, keep ...string) []byte {
	if obj.Kind(raw) != jsonrpc.Object {
		return nil
	}
	if whole := obj.Of(raw); len(whole) <= maxHelloMember {
		return bytes.Clone(whole)
	}
	return only(raw, obj, keep...)
}

// only returns an object with the named members alone, nil when it is too large.
func only(raw []byte, obj jsonrpc.Span, keep ...string) []byte {
	out := []byte{'{'}
	for _, name := range keep {
		value := jsonrpc.Find(raw, obj, name)
		if value.IsZero() {
			continue
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(append(jsonrpc.AppendString(out, name), ':'), value.Of(raw)...)
	}
	if out = append(out, '}'); len(out) > maxHelloMember {
		return nil
	}
	return out
}

// flight runs work once for all who ask at the same time. It outlives the one
// who began it, within timeout; each caller waits no longer than its own context.
func flight[T any](ctx context.Context, g *singleflight.Group, key string, timeout time.Duration, work func(context.Context) (T, error)) (T, error) {
	done := g.DoChan(key, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
		defer cancel()
		return work(ctx)
	})
	var none T
	select {
	case r := <-done:
		if r.Err != nil {
			return none, r.Err
		}
		return r.Val.(T), nil
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return none, fault.Wrap(fault.Timeout, ctx.Err(), "the backend did not answer in time")
		}
		return none, fault.From(context.Cause(ctx))
	}
}
