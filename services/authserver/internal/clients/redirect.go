package clients

import (
	"net/url"
	"slices"
	"strconv"
	"strings"

	"chatelaine.dev/services/authserver/internal/store"
)

// MaxRedirectURIs and MaxURIBytes bound a registration.
const (
	MaxRedirectURIs = 10
	MaxURIBytes     = 2048
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
	case "javascript", "vbscript", "data", "file", "filesystem", "blob", "about", "ws", "wss", "ftp", "mailto", "tel",
		"view-source", "chrome", "ms-appx", "intent", "jar", "resource", "urn":
		return "the scheme " + u.Scheme + " is not for redirects"
	}
	if !public {
		return "a confidential client needs https"
	}
	return ""
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
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, "has no port of 1 to 65535"
		}
	}
	return u, ""
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
		return u.Host, true
	case u.Scheme == "https":
		return u.Host, false
	}
	return u.Scheme + ":", false
}

// OnlyLoopback reports whether every redirect URI of a client is on the loopback
// interface: any program on the person's machine can then pass for it.
func OnlyLoopback(c *store.Client) bool {
	return !slices.ContainsFunc(c.RedirectURIs, func(raw string) bool {
		_, loopback := ReturnsTo(raw)
		return !loopback
	})
}
