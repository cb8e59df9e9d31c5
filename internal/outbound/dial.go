package outbound

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"chatelaine.dev/internal/fault"
)

// Dials maps the HOST:PORT of a URL to the HOST:PORT to connect to.
// TLS still verifies the name in the URL.
type Dials map[string]string

// ParseDial reads HOST:PORT=HOST:PORT.
func ParseDial(s string) (from, to string, err error) {
	from, to, ok := strings.Cut(s, "=")
	if !ok {
		return "", "", fault.Newf(fault.Invalid, "%q: want HOST:PORT=HOST:PORT", s)
	}
	for _, hp := range []string{from, to} {
		host, port, err := net.SplitHostPort(hp)
		if err != nil || host == "" {
			return "", "", fault.Newf(fault.Invalid, "%q is not HOST:PORT", hp)
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return "", "", fault.Newf(fault.Invalid, "%q has no port of 1 to 65535", hp)
		}
	}
	return strings.ToLower(from), to, nil
}

// Target returns where to connect for hostport, and whether it was mapped.
func (d Dials) Target(hostport string) (string, bool) {
	to, ok := d[strings.ToLower(hostport)]
	if !ok {
		return hostport, false
	}
	return to, true
}

// resolver is net.Resolver's method that we need.
type resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// guard is the dialer of the package comment.
type guard struct {
	policy   Policy
	dials    Dials
	resolver resolver
	dialer   net.Dialer
}

const (
	dialTimeout = 5 * time.Second
	maxAttempts = 4 // addresses tried of one name
)

func newGuard(policy Policy, dials Dials) *guard {
	return &guard{
		policy: policy, dials: dials, resolver: net.DefaultResolver,
		dialer: net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second},
	}
}

// errRefused marks an address that the policy forbids, see IsRefused.
var errRefused = errors.New("refused by the outbound policy")

// IsRefused reports whether err is that of a connection which the policy forbids.
func IsRefused(err error) bool { return errors.Is(err, errRefused) }

// DialContext resolves, checks each answer, and connects to a checked address.
func (g *guard) DialContext(ctx context.Context, network, hostport string) (net.Conn, error) {
	if to, mapped := g.dials.Target(hostport); mapped {
		return g.dialer.DialContext(ctx, network, to)
	}
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return nil, err
	}
	addrs, err := g.lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	// One forbidden answer spoils the name: a rebinding host answers with both.
	for _, addr := range addrs {
		if why := g.policy.refusal(addr); why != "" {
			return nil, &refusedError{host: host, why: why}
		}
	}
	var failures []error
	for _, addr := range addrs[:min(len(addrs), maxAttempts)] {
		conn, err := g.dialer.DialContext(ctx, network, net.JoinHostPort(addr.String(), port))
		if err == nil {
			return conn, nil
		}
		failures = append(failures, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(failures...)
}

func (g *guard) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr.Unmap()}, nil
	}
	if name := strings.TrimSuffix(host, "."); IsLoopback(name) && !strings.EqualFold(name, "localhost") {
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, nil
	}
	addrs, err := g.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	if len(addrs) == 0 {
		return nil, &net.DNSError{Err: "no addresses", Name: host, IsNotFound: true}
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	return addrs, nil
}

type refusedError struct{ host, why string }

func (e *refusedError) Error() string {
	return "host " + strconv.Quote(e.host) + " is " + e.why + ", which the policy forbids"
}

func (e *refusedError) Unwrap() error { return errRefused }
