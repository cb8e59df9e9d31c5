package outbound

import (
	"cmp"
	"net/netip"
	"net/url"
	"strings"
)

// Policy says which addresses a client may connect to beyond public ones.
// The zero value allows public addresses only.
type Policy struct {
	// AllowPrivate also allows RFC 1918, unique-local and CGNAT addresses.
	AllowPrivate bool
	// AllowLoopback also allows 127.0.0.0/8 and ::1.
	AllowLoopback bool
}

// Trusted allows private and loopback addresses: for URLs that an operator wrote.
// Link-local (cloud metadata), multicast and reserved addresses stay refused.
func Trusted() Policy { return Policy{AllowPrivate: true, AllowLoopback: true} }

// Special-purpose blocks (IANA registries, RFC 6890 and its successors) that
// netip's predicates do not name. Shared address space is private to us.
var (
	cgnat    = netip.MustParsePrefix("100.64.0.0/10") // RFC 6598
	nat64    = netip.MustParsePrefix("64:ff9b::/96")  // RFC 6052: an IPv4 address inside
	sixToFor = netip.MustParsePrefix("2002::/16")     // RFC 3056: an IPv4 address inside
	// unicast6 is all that IANA gives out for the Internet (RFC 4291 section 2.4).
	// What is beyond it is refused unless it is named here: among it addresses
	// that hold IPv4 ones (::/96, RFC 4291; ::ffff:0:0:0/96, RFC 7915;
	// 64:ff9b:1::/48, RFC 8215) and blocks that nobody has yet.
	unicast6 = netip.MustParsePrefix("2000::/3")

	// metadata services of clouds that are not link-local.
	metadata = []netip.Prefix{
		netip.MustParsePrefix("100.100.100.200/32"), // Alibaba Cloud
		netip.MustParsePrefix("fd00:ec2::/32"),      // AWS over IPv6
		netip.MustParsePrefix("fd20:ce::/32"),       // Google Cloud over IPv6
		netip.MustParsePrefix("168.63.129.16/32"),   // Azure
		netip.MustParsePrefix("192.0.0.192/32"),     // Oracle Cloud
	}
	reserved = []netip.Prefix{
		netip.MustParsePrefix("0.0.0.0/8"),       // RFC 791: this network
		netip.MustParsePrefix("192.0.0.0/24"),    // RFC 6890
		netip.MustParsePrefix("192.0.2.0/24"),    // RFC 5737: documentation
		netip.MustParsePrefix("192.88.99.0/24"),  // RFC 7526: 6to4 relays
		netip.MustParsePrefix("198.18.0.0/15"),   // RFC 2544: benchmarks
		netip.MustParsePrefix("198.51.100.0/24"), // RFC 5737
		netip.MustParsePrefix("203.0.113.0/24"),  // RFC 5737
		netip.MustParsePrefix("240.0.0.0/4"),     // RFC 1112: reserved, and broadcast
		netip.MustParsePrefix("2001::/23"),       // RFC 2928: protocol assignments, Teredo
		netip.MustParsePrefix("2001:db8::/32"),   // RFC 3849: documentation
		netip.MustParsePrefix("3fff::/20"),       // RFC 9637: documentation
	}
)

// refusal says why the policy forbids addr, or "" when it does not.
func (p Policy) refusal(addr netip.Addr) string {
	addr = addr.Unmap().WithZone("")
	switch {
	case !addr.IsValid():
		return "no address"
	case within(addr, metadata):
		return "a metadata service"
	case isatap(addr):
		b := addr.As16()
		return cmp.Or(p.refusal(netip.AddrFrom4([4]byte(b[12:16]))), p.refusal(withoutIPv4(b)))
	case addr.IsLoopback():
		return unless(p.AllowLoopback, "a loopback address")
	case addr.IsPrivate(), cgnat.Contains(addr): // RFC 1918, RFC 4193, RFC 6598
		return unless(p.AllowPrivate, "a private address")
	case addr.IsLinkLocalUnicast():
		return "a link-local address"
	case addr.IsMulticast():
		return "a multicast address"
	case nat64.Contains(addr):
		b := addr.As16()
		return p.refusal(netip.AddrFrom4([4]byte(b[12:16])))
	case sixToFor.Contains(addr):
		b := addr.As16()
		return p.refusal(netip.AddrFrom4([4]byte(b[2:6])))
	case addr.Is6() && !unicast6.Contains(addr), within(addr, reserved), !addr.IsGlobalUnicast():
		return "a reserved address"
	}
	return ""
}

// isatap reports whether an interface identifier holds an IPv4 address that a
// router sends the packet to, in whatever network (RFC 5214 section 6.1).
func isatap(addr netip.Addr) bool {
	b := addr.As16()
	return addr.Is6() && b[8]&^0x02 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe
}

// withoutIPv4 returns the network of an ISATAP address, as an address that is none.
func withoutIPv4(b [16]byte) netip.Addr {
	clear(b[10:])
	b[15] = 1
	return netip.AddrFrom16(b)
}

func unless(allowed bool, why string) string {
	if allowed {
		return ""
	}
	return why
}

func within(addr netip.Addr, prefixes []netip.Prefix) bool {
	for _, p := range prefixes {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// Loopback reports whether a URL names this machine, by literal or by name. Only
// where the operator wrote such a URL may a client connect to loopback addresses.
func Loopback(text string) bool {
	u, err := url.Parse(text)
	if err != nil {
		return false
	}
	return IsLoopback(u.Hostname())
}

// IsLoopback reports whether a host is this machine: by a literal, or as localhost
// or a name below it, for which no name server is asked (RFC 6761, section 6.3).
func IsLoopback(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}
