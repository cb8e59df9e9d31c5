package aggregate

import (
	"context"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/gateway/internal/aggregate/lru"
	"chatelaine.dev/services/gateway/internal/aggregate/mcpclient"
	"chatelaine.dev/services/gateway/internal/caller"
)

// link leads from one client to the backends: how each is spoken to.
type link interface {
	// peer returns how a backend is spoken to; the first time this may take a
	// handshake.
	peer(ctx context.Context, b *config.Backend) (*mcpclient.Peer, error)
	// renew is peer after the backend has turned out not to know the stale one.
	renew(ctx context.Context, b *config.Backend, stale *mcpclient.Peer) (*mcpclient.Peer, error)
}

// sessionLink is the link of a client with a session.
type sessionLink struct {
	sessions *sessions
	session  *session
	who      *caller.Caller
}

func (l *sessionLink) peer(ctx context.Context, b *config.Backend) (*mcpclient.Peer, error) {
	if p := l.session.known(b.Name); p != nil {
		return p, nil
	}
	return l.renew(ctx, b, nil)
}

func (l *sessionLink) renew(ctx context.Context, b *config.Backend, stale *mcpclient.Peer) (*mcpclient.Peer, error) {
	return l.sessions.join(ctx, l.session, mcpclient.Target{Caller: l.who, Backend: b}, stale)
}

// statelessFor is after what time a backend is asked again what it offers.
const statelessFor = 15 * time.Minute

// reached remembers how clients without sessions reach the backends. Nothing of
// it is shared between people, between sessions of theirs, or between clients;
// callers without an identity share what is no session alone. A replica that
// knows nothing asks the backend again; the session that another replica has with
// it ends by the backend's own time limit.
type reached struct {
	client  *mcpclient.Client
	cache   *lru.Cache[*reachedPeer]
	flights singleflight.Group
	now     func() time.Time
	timeout time.Duration
}

type reachedPeer struct {
	*mcpclient.Peer
	at time.Time
}

// statelessLink is the link of a client without a session.
type statelessLink struct {
	reached *reached
	who     *caller.Caller
	hello   mcpclient.Hello
	// What this request alone has.
	passing passing
	flights singleflight.Group
}

// passing are sessions with backends that end with the request they were opened
// for: nobody knows whose the next request is.
type passing struct {
	mu    sync.Mutex
	peers map[*config.Backend]*mcpclient.Peer
	over  bool
}

func (l *statelessLink) peer(ctx context.Context, b *config.Backend) (*mcpclient.Peer, error) {
	if p, ok := l.known(b); ok {
		return p, nil
	}
	return l.renew(ctx, b, nil)
}

func (l *statelessLink) known(b *config.Backend) (*mcpclient.Peer, bool) {
	l.passing.mu.Lock()
	own, ok := l.passing.peers[b]
	l.passing.mu.Unlock()
	if ok {
		return own, true
	}
	p, ok := l.reached.cache.Get(l.key(b))
	if !ok || p.Stateless() && l.reached.now().Sub(p.at) > statelessFor {
		return nil, false
	}
	return p.Peer, true
}

func (l *statelessLink) renew(ctx context.Context, b *config.Backend, stale *mcpclient.Peer) (*mcpclient.Peer, error) {
	key, flights := l.key(b), &l.reached.flights
	if l.who.Anonymous {
		flights = &l.flights
	}
	return flight(ctx, flights, key, l.reached.timeout, func(ctx context.Context) (*mcpclient.Peer, error) {
		if p, ok := l.known(b); ok && !same(p, stale) {
			return p, nil
		}
		to := mcpclient.Target{Caller: l.who, Backend: b}
		p, err := l.reached.client.Reach(ctx, to, l.hello)
		if err != nil {
			return nil, err
		}
		if l.who.Anonymous && p.SessionID != "" {
			return p, l.keep(ctx, to, p)
		}
		l.reached.cache.Put(key, &reachedPeer{p, l.reached.now()}, len(key)+len(p.SessionID)+len(p.Instructions)+256)
		return p, nil
	})
}

// keep remembers a session until close. One that comes after close ends at once.
func (l *statelessLink) keep(ctx context.Context, to mcpclient.Target, p *mcpclient.Peer) error {
	l.passing.mu.Lock()
	over := l.passing.over
	if !over {
		if l.passing.peers == nil {
			l.passing.peers = make(map[*config.Backend]*mcpclient.Peer, 1)
		}
		l.passing.peers[to.Backend] = p
	}
	l.passing.mu.Unlock()
	if !over {
		return nil
	}
	_ = l.reached.client.End(ctx, to, p)
	return fault.New(fault.Canceled, "the request is over")
}

// close ends the sessions that were the request's alone. It does not block.
func (l *statelessLink) close() {
	l.passing.mu.Lock()
	peers := l.passing.peers
	l.passing.peers, l.passing.over = nil, true
	l.passing.mu.Unlock()
	for b, p := range peers {
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), l.reached.timeout)
			defer cancel()
			_ = l.reached.client.End(ctx, mcpclient.Target{Caller: l.who, Backend: b}, p) // the backend's own time limit ends it as well
		}()
	}
}

func (l *statelessLink) key(b *config.Backend) string {
	return strings.Join([]string{b.Name, l.who.Key, l.who.SessionID, l.who.ClientID}, "\x00")
}

// identity is under what is cached that a backend showed to somebody: the
// person and the login session, since another login may have linked another
// account. What an unauthenticated backend shows is everybody's.
func identity(who *caller.Caller, b *config.Backend) string {
	if b != nil && b.Strategy.Type == config.StrategyUnauthenticated {
		return ""
	}
	return who.Key + "\x00" + who.SessionID
}
