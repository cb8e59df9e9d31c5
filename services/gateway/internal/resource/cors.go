package resource

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"

	"chatelaine.dev/services/gateway/internal/accesslog"
	"chatelaine.dev/services/gateway/internal/jsonrpc"
)

const (
	maxAge         = "7200" // seconds; browsers take no more
	allowedMethods = "GET, POST, DELETE, OPTIONS"
	allowedHeaders = "Authorization, Content-Type, Accept, MCP-Protocol-Version, Mcp-Method, Mcp-Name, Mcp-Session-Id, Last-Event-ID"
	exposedHeaders = "WWW-Authenticate, Mcp-Session-Id, MCP-Protocol-Version"
	paramPrefix    = "mcp-param-"
	maxParams      = 64
)

// admit checks where the request comes from and answers preflights. It reports
// whether to go on.
func (s *Server) admit(w http.ResponseWriter, r *http.Request) bool {
	if !s.admitHost(w, r) {
		return false
	}
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	origins, sent := r.Header["Origin"]
	if sent {
		// MCP, Streamable HTTP, Security Warning: an origin that is not allowed
		// must be refused, or pages of strangers could use a gateway nearby.
		if len(origins) != 1 || !s.origins.allow(origins[0]) {
			accesslog.From(r.Context()).Fail(accesslog.OutcomeRefused, "origin")
			jsonrpc.WriteError(w, http.StatusForbidden, nil, jsonrpc.CodeInvalidRequest, "this origin is not allowed: see --allowed-origin")
			return false
		}
		h.Set("Access-Control-Allow-Origin", origins[0])
		h.Set("Access-Control-Expose-Headers", exposedHeaders)
	}
	h.Add("Vary", "Origin")
	if r.Method != http.MethodOptions {
		return true
	}
	h.Set("Allow", allowedMethods)
	if sent {
		h.Set("Access-Control-Allow-Methods", allowedMethods)
		h.Set("Access-Control-Allow-Headers", allowedHeaders+params(r.Header.Get("Access-Control-Request-Headers")))
		h.Set("Access-Control-Max-Age", maxAge)
	}
	w.WriteHeader(http.StatusNoContent)
	return false
}

// params returns the Mcp-Param-* headers that a preflight asks for: CORS has no
// pattern for them, "*" does not cover requests with credentials.
func params(requested string) string {
	var b strings.Builder
	n := 0
	for name := range strings.SplitSeq(requested, ",") {
		name = strings.ToLower(strings.TrimSpace(name))
		if n < maxParams && strings.HasPrefix(name, paramPrefix) && httpguts.ValidHeaderFieldName(name) {
			n++
			b.WriteString(", ")
			b.WriteString(name)
		}
	}
	return b.String()
}

// admitHost refuses requests for a name that is not ours: a page of a stranger
// whose name server points at us (DNS rebinding).
func (s *Server) admitHost(w http.ResponseWriter, r *http.Request) bool {
	if s.hosts.allow(r.Host) {
		return true
	}
	accesslog.From(r.Context()).Fail(accesslog.OutcomeRefused, "host")
	jsonrpc.WriteError(w, http.StatusForbidden, nil, jsonrpc.CodeInvalidRequest, "this host name is not allowed: see --allowed-host")
	return false
}

// hosts are names that we are reached under. Those of loopback always are: no
// name server can make a stranger's page send them.
type hosts map[string]bool

func newHosts(names []string) hosts {
	h := make(hosts)
	for _, name := range names {
		h.add(name)
	}
	return h
}

func (h hosts) add(name string) { h[strings.ToLower(name)] = true }

func (h hosts) allow(host string) bool {
	if h[host] {
		return true
	}
	host = strings.ToLower(host)
	name := host
	if n, _, err := net.SplitHostPort(host); err == nil {
		name = n
	}
	return h[host] || h[name] || isLoopback(strings.Trim(name, "[]"))
}

// isLoopback is narrower than outbound.IsLoopback: a browser may still ask a name
// server for what is below localhost.
func isLoopback(name string) bool {
	if name == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.Unmap().IsLoopback()
}

// origins are those of browser clients. Loopback ones always are: tools that run
// on the person's own machine.
type origins map[string]bool

func newOrigins(list []string) origins {
	o := make(origins)
	for _, origin := range list {
		o.add(origin)
	}
	return o
}

func (o origins) add(origin string) { o[strings.ToLower(strings.TrimSuffix(origin, "/"))] = true }

func (o origins) allow(origin string) bool {
	if o["*"] || o[strings.ToLower(origin)] {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && isLoopback(strings.ToLower(u.Hostname()))
}
