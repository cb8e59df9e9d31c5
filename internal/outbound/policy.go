package outbound

import (
	"net/netip"
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

	// metadata services of clouds that are not link-local.
	metadata = []netip.Prefix{
		netip.MustParsePrefix("100.100.100.200/32"), // Alibaba Cloud
		netip.MustParsePrefix("fd00:ec2::/32"),      // AWS over IPv6
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
		netip.MustParsePrefix("::/96"),           // RFC 4291: IPv4-compatible, with :: and ::1
		netip.MustParsePrefix("64:ff9b:1::/48"),  // RFC 8215: local NAT64
		netip.MustParsePrefix("100::/64"),        // RFC 6666: discard
		netip.MustParsePrefix("2001::/23"),       // RFC 2928: protocol assignments, Teredo
		netip.MustParsePrefix("2001:db8::/32"),   // RFC 3849: documentation
		netip.MustParsePrefix("3fff::/20"),       // RFC 9637: documentation
		netip.MustParsePrefix("5f00::/16"),       // RFC 9602: segment routing
		netip.MustParsePrefix("fec0::/10"),       // RFC 3879: site-local
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
	case within(addr, reserved), !addr.IsGlobalUnicast():
		return "a reserved address"
	}
	return ""
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
