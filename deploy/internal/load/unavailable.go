package load

import (
	"errors"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"chatelaine.dev/examples/browse"
)

// promptly is how long "come again" may take: a client that waited longer has a reason to complain.
const promptly = 15 * time.Second

// unavailable reports whether err told the client or the person to come again: a 503, OAuth's
// temporarily_unavailable, or that nobody takes the connection, which is what a Service without a
// ready pod is where no Ingress makes a 503 of it. Such a connection is refused, or leads nowhere:
// that is the network plug-in's choice. A name that is not found is a failure.
func unavailable(err error) bool {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		_, lookup := errors.AsType[*net.DNSError](err)
		return !lookup
	}
	if refused, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		return refused.ErrorCode == "temporarily_unavailable" ||
			refused.Response != nil && refused.Response.StatusCode == http.StatusServiceUnavailable
	}
	if stuck, ok := errors.AsType[*browse.StuckError](err); ok {
		return stuck.Page.Status == http.StatusServiceUnavailable
	}
	// The MCP library keeps nothing of the answer but the status, in words.
	return strings.HasSuffix(err.Error(), ": "+http.StatusText(http.StatusServiceUnavailable))
}
