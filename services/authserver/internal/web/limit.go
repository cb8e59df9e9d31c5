package web

import (
	"container/list"
	"math"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// maxNetworks bounds the memory of a Limiter; the network that was quiet for
	// longest is forgotten first.
	maxNetworks = 10_000
	// siteFactor is how much more than one network a whole site may do: who has a
	// /48 has 65,536 networks.
	siteFactor = 8
	// newcomers is how many networks that are not known may come, for each network's
	// rate, while the table is full.
	newcomers = 100
)

// Limiter bounds how often an address may do something. IPv6 addresses count by
// their /64, since a host has all of one, and by their /48, which a site has. It
// holds for this replica.
type Limiter struct {
	rate  rate.Limit
	burst int

	mu       sync.Mutex
	entries  map[netip.Prefix]*list.Element
	order    *list.List    // of *limited, the most recent in front
	overflow *rate.Limiter // of those who come while the table is full
}

type limited struct {
	network netip.Prefix
	limit   *rate.Limiter
}

// NewLimiter allows perMinute on average, and burst at once.
func NewLimiter(perMinute, burst int) *Limiter {
	perSecond := rate.Limit(float64(perMinute) / 60)
	return &Limiter{
		rate: perSecond, burst: burst, overflow: rate.NewLimiter(newcomers*perSecond, newcomers),
		entries: make(map[netip.Prefix]*list.Element), order: list.New(),
	}
}

// Allow takes one from the address's allowance, or returns how long to wait.
func (l *Limiter) Allow(addr netip.Addr) (ok bool, wait time.Duration) {
	addr = addr.Unmap().WithZone("")
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if addr.Is6() {
		site, _ := addr.Prefix(48) // no error: an IPv6 address has these bits
		taken, wait := l.take(site, siteFactor, now)
		if wait > 0 {
			return false, wait // before the network has an entry: a site has 65,536 of them
		}
		network, _ := addr.Prefix(64)
		if _, wait = l.take(network, 1, now); wait > 0 {
			taken.CancelAt(now) // what one network is refused is not its neighbours' loss
		}
		return wait == 0, wait
	}
	_, wait = l.take(netip.PrefixFrom(addr, addr.BitLen()), 1, now)
	return wait == 0, wait
}

// take takes one from the allowance of a network, factor times the usual one, or
// returns how long to wait. A network that comes while the table is full begins with
// a single call, and pays from what all of them have in common: otherwise who has
// many addresses would get a whole burst for each one that was forgotten.
func (l *Limiter) take(network netip.Prefix, factor int, now time.Time) (*rate.Reservation, time.Duration) {
	if e, known := l.entries[network]; known {
		l.order.MoveToFront(e)
		return reserve(e.Value.(*limited).limit, now)
	}
	limit := rate.NewLimiter(l.rate*rate.Limit(factor), l.burst*factor)
	if len(l.entries) >= maxNetworks {
		if _, wait := reserve(l.overflow, now); wait > 0 {
			return nil, wait
		}
		limit.AllowN(now, l.burst*factor-1)
		oldest := l.order.Back()
		delete(l.entries, oldest.Value.(*limited).network)
		l.order.Remove(oldest)
	}
	l.entries[network] = l.order.PushFront(&limited{network, limit})
	return reserve(limit, now)
}

func reserve(limit *rate.Limiter, now time.Time) (*rate.Reservation, time.Duration) {
	reservation := limit.ReserveN(now, 1)
	wait := reservation.DelayFrom(now)
	if wait > 0 {
		reservation.CancelAt(now)
	}
	return reservation, wait
}

// Limit answers 429 in the form of OAuth (RFC 6749, section 5.2) to who calls next
// more often than the limiter allows.
func (l *Limiter) Limit(next http.Handler, trusted []netip.Prefix) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ok, wait := l.Allow(ClientAddress(r, trusted))
		if ok {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Retry-After", RetryAfter(wait))
		JSON(w, http.StatusTooManyRequests, map[string]string{
			"error": "temporarily_unavailable", "error_description": "too many requests from this address; wait as Retry-After says",
		})
	})
}

// RetryAfter is the value of the header of that name (RFC 9110, section 10.2.3):
// whole seconds, at least one.
func RetryAfter(wait time.Duration) string {
	return strconv.Itoa(max(1, int(math.Ceil(wait.Seconds()))))
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
