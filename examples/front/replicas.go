package front

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"time"
)

// replicas are the addresses behind a name.
type replicas struct {
	host, port string
	resolver   Resolver

	mu        sync.Mutex
	addresses []string // HOST:PORT, sorted
	asked     time.Time
	turn      int
	failed    map[string]time.Time
}

var errNoReplica = errors.New("the name has no address")

// inTurn returns the addresses to try for one request, the next in turn first.
func (r *replicas) inTurn(ctx context.Context) ([]string, error) {
	r.mu.Lock()
	// As long as nothing is known everybody asks; later one does, and the others use what is known.
	stale := len(r.addresses) == 0 || time.Since(r.asked) > resolveEvery
	if stale {
		r.asked = time.Now()
	}
	r.mu.Unlock()
	if stale {
		r.resolve(ctx)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.addresses) == 0 {
		return nil, errNoReplica
	}
	var good, doubtful []string
	for _, a := range r.addresses {
		if time.Since(r.failed[a]) < leaveOut {
			doubtful = append(doubtful, a) // better than none
		} else {
			good = append(good, a)
		}
	}
	r.turn++
	first := r.turn % max(1, len(good))
	return slices.Concat(good[first:], good[:first], doubtful), nil
}

// resolve asks DNS. Without an answer what was known stays.
func (r *replicas) resolve(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dialTimeout)
	defer cancel()
	hosts, err := r.resolver.LookupHost(ctx, r.host)
	if err != nil || len(hosts) == 0 {
		return
	}
	addresses := make([]string, 0, len(hosts))
	for _, h := range hosts {
		addresses = append(addresses, net.JoinHostPort(h, r.port))
	}
	slices.Sort(addresses)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.addresses = addresses
	for a := range r.failed {
		if !slices.Contains(addresses, a) {
			delete(r.failed, a)
		}
	}
}

// fail leaves an address out for a while.
func (r *replicas) fail(address string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed[address] = time.Now()
}
