package aggregate

import (
	"context"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"

	"chatelaine.dev/internal/config"
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
// it is shared between people, between sessions of theirs, or between clients. A
// replica that knows nothing asks the backend again; the session that another
// replica has with it ends by the backend's own time limit.
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
}

func (l *statelessLink) peer(ctx context.Context, b *config.Backend) (*mcpclient.Peer, error) {
	if p, ok := l.known(b); ok {
		return p, nil
	}
	return l.renew(ctx, b, nil)
}

func (l *statelessLink) known(b *config.Backend) (*mcpclient.Peer, bool) {
	p, ok := l.reached.cache.Get(l.key(b))
	if !ok || p.Stateless() && l.reached.now().Sub(p.at) > statelessFor {
		return nil, false
	}
	return p.Peer, true
}

func (l *statelessLink) renew(ctx context.Context, b *config.Backend, stale *mcpclient.Peer) (*mcpclient.Peer, error) {
	key := l.key(b)
	return flight(ctx, &l.reached.flights, key, l.reached.timeout, func(ctx context.Context) (*mcpclient.Peer, error) {
		if p, ok := l.known(b); ok && !same(p, stale) {
			return p, nil
		}
		p, err := l.reached.client.Reach(ctx, mcpclient.Target{Caller: l.who, Backend: b}, l.hello)
		if err != nil {
			return nil, err
		}
		l.reached.cache.Put(key, &reachedPeer{p, l.reached.now()}, len(key)+len(p.SessionID)+len(p.Instructions)+256)
		return p, nil
	})
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
