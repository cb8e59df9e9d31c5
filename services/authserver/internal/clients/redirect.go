package clients

import (
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// MaxRedirectURIs, MaxURIBytes each and MaxRedirectBytes in all bound a registration.
const (
	MaxRedirectURIs  = 10
	MaxURIBytes      = 2048
	MaxRedirectBytes = 8 << 10
)

// CheckRedirectURI returns what is wrong with a redirect URI, or "". Private-use
// schemes (RFC 8252, section 7.1) are for public clients.
func CheckRedirectURI(raw string, public bool) string {
	u, problem := parseURI(raw)
	if problem != "" {
		return problem
	}
	switch u.Scheme {
	case "https":
		if u.Hostname() == "" {
			return "has no host"
		}
		return ""
	case "http":
		if !isLoopback(u) {
			return "http is for loopback addresses only; use https"
		}
		return ""
	}
	switch {
	case notForRedirects(u.Scheme):
		return "the scheme " + u.Scheme + " is not for redirects"
	case !public:
		return "a confidential client needs https"
	}
	return ""
}

// notForRedirects reports whether a scheme belongs to a browser or to a program of
// the system that acts on what it is given: no application of a person has it.
func notForRedirects(scheme string) bool {
	switch scheme {
	case "javascript", "vbscript", "data", "file", "filesystem", "blob", "about", "view-source", "chrome", "edge", "resource", "jar",
		"ws", "wss", "ftp", "ftps", "sftp", "ssh", "telnet", "ldap", "ldaps", "smb", "nfs", "dav", "davs", "gopher", "rlogin", "urn",
		"mailto", "tel", "sms", "smsto", "callto", "facetime", "facetime-audio", "feed", "news", "nntp",
		"intent", "android-app", "shell", "search", "search-ms", "itms", "itmss":
		return true
	}
	return strings.HasPrefix(scheme, "ms-") || strings.HasPrefix(scheme, "itms-") || strings.HasSuffix(scheme, "-extension")
}

func parseURI(raw string) (*url.URL, string) {
	switch {
	case raw == "":
		return nil, "is empty"
	case len(raw) > MaxURIBytes:
		return nil, "is longer than " + strconv.Itoa(MaxURIBytes) + " characters"
	case strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`\<>"{}|^`+"`", r) }):
		return nil, "has a character that a URI does not have"
	case strings.Contains(raw, "#"):
		return nil, "has a fragment"
	case strings.Contains(authority(raw), "%"):
		return nil, "has a percent-encoded host: write it in ASCII (an internationalized name as xn--)"
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, "is not a URI"
	case u.Scheme == "":
		return nil, "is not absolute"
	case u.User != nil:
		return nil, "has a user name"
	case strings.Contains(u.Host, "*"):
		return nil, "has a wildcard"
	case strings.HasSuffix(u.Host, ":"):
		return nil, "has an empty port"
	case !plainHost(u):
		return nil, "has a host that is neither a name of letters, digits and hyphens nor an address"
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, "has no port of 1 to 65535"
		}
	}
	return u, ""
}

// authority returns the part between the slashes as it is written (RFC 3986,
// section 3.2): the parser shows it decoded, browsers do not.
func authority(raw string) string {
	_, rest, found := strings.Cut(raw, "//")
	if !found {
		return ""
	}
	if end := strings.IndexAny(rest, "/?"); end >= 0 {
		rest = rest[:end]
	}
	return rest
}

// plainHost reports whether a host is what it looks like: a name of letters, digits
// and hyphens (RFC 1123, section 2.1) or an IP literal. The consent page shows it.
func plainHost(u *url.URL) bool {
	host := u.Hostname()
	if strings.HasPrefix(u.Host, "[") {
		addr, err := netip.ParseAddr(host)
		return err == nil && addr.Is6() && addr.Zone() == ""
	}
	return !strings.ContainsFunc(host, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.'
	})
}

// loopbackHosts are the names of the loopback interface whose port is ignored.
// RFC 8252, section 7.3, has the two literals; clients use the name as well.
func loopbackHosts() []string { return []string{"localhost", "127.0.0.1", "::1"} }

func isLoopback(u *url.URL) bool {
	return u.Scheme == "http" && slices.Contains(loopbackHosts(), strings.ToLower(u.Hostname()))
}

// MatchRedirectURI reports whether requested is one of the registered URIs. The
// port of loopback http URIs is ignored; everything else is compared byte for byte.
func MatchRedirectURI(registered []string, requested string) bool {
	if slices.Contains(registered, requested) {
		return true
	}
	want, problem := parseURI(requested)
	if problem != "" || !isLoopback(want) {
		return false
	}
	return slices.ContainsFunc(registered, func(r string) bool {
		u, problem := parseURI(r)
		return problem == "" && isLoopback(u) && u.Hostname() == want.Hostname() &&
			u.EscapedPath() == want.EscapedPath() && u.RawQuery == want.RawQuery && u.ForceQuery == want.ForceQuery
	})
}

// ReturnsTo says, for people, where a redirect URI leads: its host, or for a
// private-use scheme the application.
func ReturnsTo(redirectURI string) (place string, loopback bool) {
	u, problem := parseURI(redirectURI)
	switch {
	case problem != "":
		return "an unknown place", false
	case isLoopback(u):
		return strings.ToLower(u.Host), true
	case u.Scheme == "https":
		return strings.ToLower(u.Host), false
	}
	return u.Scheme + ":", false
}
