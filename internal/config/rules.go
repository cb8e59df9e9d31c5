package config

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"chatelaine.dev/internal/outbound"
)

func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

func isSubdomain(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if !isLabel(label) {
			return false
		}
	}
	return true
}

// isScope checks a scope-token (RFC 6749, section 3.3).
func isScope(s string) bool {
	for _, c := range []byte(s) {
		if c < 0x21 || c > 0x7e || c == '"' || c == '\\' {
			return false
		}
	}
	return s != "" && len(s) <= 256
}

// isHeaderName checks a token (RFC 9110, section 5.6.2).
func isHeaderName(s string) bool {
	return httpguts.ValidHeaderFieldName(s) && len(s) <= 128
}

// protocolHeader says why a header cannot be set by configuration, or "".
func protocolHeader(name string) string {
	switch canonical := http.CanonicalHeaderKey(name); {
	case slices.Contains([]string{
		"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Te", "Trailer",
		"Transfer-Encoding", "Upgrade", "Host", "Content-Length", "Content-Encoding", "Expect", "Forwarded",
	}, canonical), strings.HasPrefix(canonical, "X-Forwarded-"):
		return "it belongs to the connection"
	case slices.Contains([]string{"Content-Type", "Accept", "Accept-Encoding", "Last-Event-Id", "Origin"}, canonical),
		strings.HasPrefix(canonical, "Mcp-"):
		return "MCP sets it itself"
	case slices.Contains([]string{"Cookie", "Set-Cookie"}, canonical):
		return "cookies are not passed on"
	default:
		return ""
	}
}

// secretHeader reports whether a header's name sounds as if its value were a secret.
func secretHeader(name string) bool {
	plain := strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(name))
	return slices.ContainsFunc([]string{"authorization", "apikey", "accesskey", "secret", "token", "password", "passwd", "credential", "cookie", "signature"},
		func(word string) bool { return strings.Contains(plain, word) })
}

// urlRules says what a URL may be beyond absolute and https.
type urlRules struct {
	allowHTTP bool   // http beyond loopback addresses
	permit    string // what would allow it, for the message
	query     bool   // a query is fine
	base      bool   // something is appended: no trailing slash
}

// urlProblem says what is wrong with a URL, or "". It never repeats the URL.
func urlProblem(raw string, rules urlRules) string {
	if len(raw) > 2048 {
		return "is longer than 2048 characters"
	}
	u, err := url.Parse(raw)
	if err != nil || u.Scheme == "" || u.Opaque != "" || u.Host == "" {
		return "must be an absolute URL such as https://example.com/path"
	}
	if strings.ContainsAny(raw, " \t\"<>\\^`{|}") {
		return "has a character that a URL cannot have"
	}
	if u.User != nil {
		return "must not have a user name or password"
	}
	if strings.Contains(raw, "#") {
		return "must not have a fragment (#…)"
	}
	if strings.Contains(raw, "?") && !rules.query {
		return "must not have a query (?…)"
	}
	if u.Hostname() == "" || !validPort(u) {
		return "has no valid host and port"
	}
	if rules.base && strings.HasSuffix(raw, "/") {
		return "must not end with a slash"
	}
	if rules.base && strings.Contains(u.Path, "//") { // a server cleans it away before it looks for what is there
		return "must not have an empty part (//) in its path"
	}
	if dotSegment(u.Path) {
		return "must not have . or .. in its path"
	}
	switch strings.ToLower(u.Scheme) {
	case "https":
		return ""
	case "http":
		if outbound.IsLoopback(u.Hostname()) || rules.allowHTTP {
			return ""
		}
		if rules.permit != "" {
			return "must be https; http is for loopback addresses (localhost, 127.0.0.1, [::1]) unless " + rules.permit
		}
		return "must be https; http is for loopback addresses (localhost, 127.0.0.1, [::1])"
	default:
		return "must be https"
	}
}

func validPort(u *url.URL) bool {
	if u.Port() == "" {
		return !strings.HasSuffix(u.Host, ":")
	}
	_, err := netip.ParseAddrPort("0.0.0.0:" + u.Port())
	return err == nil && u.Port() != "0"
}

func dotSegment(path string) bool {
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}

// isPrivateHost reports whether a host is, by its literal or by its name,
// reachable from inside a network only.
func isPrivateHost(host string) bool {
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	if addr, err := netip.ParseAddr(host); err == nil {
		addr = addr.Unmap()
		return addr.IsPrivate() || netip.MustParsePrefix("100.64.0.0/10").Contains(addr)
	}
	if !strings.Contains(host, ".") {
		return true
	}
	return slices.ContainsFunc([]string{".svc", ".local", ".internal", ".lan", ".home.arpa"}, func(suffix string) bool {
		return strings.HasSuffix(host, suffix)
	})
}

// isForbiddenHost reports whether a literal address can never be a server that
// somebody meant: unspecified, link-local (cloud metadata), multicast.
func isForbiddenHost(host string) bool {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return strings.EqualFold(host, "metadata.google.internal")
	}
	addr = addr.Unmap()
	return addr.IsUnspecified() || addr.IsLinkLocalUnicast() || addr.IsMulticast()
}

// originOf returns the origin of a valid http or https URL: lower case, without
// the default port (RFC 6454, section 6.2).
func originOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	scheme, host, port := strings.ToLower(u.Scheme), strings.ToLower(u.Hostname()), u.Port()
	if port == "" || (scheme == "https" && port == "443") || (scheme == "http" && port == "80") {
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		return scheme + "://" + host
	}
	return scheme + "://" + net.JoinHostPort(host, port)
}
