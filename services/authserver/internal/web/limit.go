package web

import (
	"container/list"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxAddresses bounds the memory of a Limiter; the address that was quiet for
// longest is forgotten first.
const maxAddresses = 10_000

// Limiter bounds how often an address may do something. IPv6 addresses count by
// their /64, since a host has all of one. It holds for this replica.
type Limiter struct {
	rate  rate.Limit
	burst int

	mu      sync.Mutex
	entries map[netip.Addr]*list.Element
	order   *list.List // of *limited, the most recent in front
}

type limited struct {
	addr  netip.Addr
	limit *rate.Limiter
}

// NewLimiter allows perMinute on average, and burst at once.
func NewLimiter(perMinute, burst int) *Limiter {
	return &Limiter{
		rate: rate.Limit(float64(perMinute) / 60), burst: burst,
		entries: make(map[netip.Addr]*list.Element), order: list.New(),
	}
}

// Allow takes one from the address's allowance, or returns how long to wait.
func (l *Limiter) Allow(addr netip.Addr) (ok bool, wait time.Duration) {
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		if p, err := addr.Prefix(64); err == nil {
			addr = p.Addr()
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	e, known := l.entries[addr]
	if !known {
		if len(l.entries) >= maxAddresses {
			oldest := l.order.Back()
			delete(l.entries, oldest.Value.(*limited).addr)
			l.order.Remove(oldest)
		}
		e = l.order.PushFront(&limited{addr, rate.NewLimiter(l.rate, l.burst)})
		l.entries[addr] = e
	}
	l.order.MoveToFront(e)
	reservation := e.Value.(*limited).limit.Reserve()
	if wait = reservation.Delay(); wait > 0 {
		reservation.Cancel()
		return false, wait
	}
	return true, 0
}

// ClientAddress returns who calls: the peer, or, when the peer is one of the
// trusted proxies, the last address of X-Forwarded-For that is not.
func ClientAddress(r *http.Request, trusted []netip.Prefix) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	forwarded := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for _, hop := range slices.Backward(forwarded) {
		if !contains(trusted, addr) {
			break
		}
		next, err := netip.ParseAddr(strings.TrimSpace(hop))
		if err != nil {
			break
		}
		addr = next
	}
	return addr
}

func contains(prefixes []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(addr.Unmap().WithZone("")) })
}
