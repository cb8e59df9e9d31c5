package aggregate

import (
	"context"
	"net/http"
	"strings"
	"sync"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/gateway/internal/accesslog"
	"chatelaine.dev/services/gateway/internal/aggregate/era"
	"chatelaine.dev/services/gateway/internal/aggregate/mcpclient"
	"chatelaine.dev/services/gateway/internal/backend"
	"chatelaine.dev/services/gateway/internal/caller"
	"chatelaine.dev/services/gateway/internal/credentials"
	"chatelaine.dev/services/gateway/internal/jsonrpc"
	"chatelaine.dev/services/gateway/internal/limits"
	"chatelaine.dev/services/gateway/internal/streams"
)

// maxInstructions bounds the instructions of all backends, in bytes.
const maxInstructions = 64 << 10

// initialize opens a session (MCP 2025-11-25, Lifecycle, Initialization): one
// with every backend that answers in time. The others join when they are needed.
func (h *Handler) initialize(w http.ResponseWriter, r *http.Request, q *request) {
	params := q.msg.Params
	asked := q.msg.Text(jsonrpc.Find(q.msg.Raw, params, "protocolVersion"))
	if asked == "" {
		h.fail(w, r, q, newProblem(jsonrpc.CodeInvalidParams, "protocolVersion is required"))
		return
	}
	// Each one opens a session at every backend, and may leave a row in the broker.
	if err := h.newSessions.Take(q.who); err != nil {
		accesslog.From(r.Context()).Fail(accesslog.OutcomeRefused, fault.ReasonOf(err))
		streams.SetRetryAfter(w.Header(), err)
		writeError(w, http.StatusTooManyRequests, q.id, jsonrpc.CodeUnavailable, fault.From(err).Error(), nil)
		return
	}
	hello := trimmedHello(era.Negotiate(asked), q.msg)
	q.hello = hello
	peers, err := h.handshakes(r.Context(), q.who, func(ctx context.Context, b *config.Backend) (*mcpclient.Peer, error) {
		return h.client.Join(ctx, mcpclient.Target{Caller: q.who, Backend: b}, hello)
	})
	if err != nil {
		h.fail(w, r, q, err)
		return
	}
	s := newSession(q.who, hello, peers)
	id, err := h.sessions.create(r.Context(), q.who, s)
	if err != nil {
		h.fail(w, r, q, err)
		return
	}
	result := append([]byte(`{"protocolVersion":"`), hello.Version...)
	result = append(result, `","capabilities":`...)
	result = h.appendCapabilities(result, peers, true)
	result = append(result, `,"serverInfo":`...)
	result = h.appendServerInfo(result)
	result = h.appendInstructions(result, peers)
	w.Header().Set(era.HeaderSession, id)
	h.result(w, q, append(result, '}'))
}

// discover says what the backends offer (MCP 2026-07-28, Discovery). It never
// fails because one of them does.
func (h *Handler) discover(w http.ResponseWriter, r *http.Request, q *request) {
	peers, err := h.handshakes(r.Context(), q.who, q.link.peer)
	if err != nil {
		h.fail(w, r, q, err)
		return
	}
	result := []byte(`{"resultType":"complete","supportedVersions":["` + strings.Join(era.Versions(), `","`) + `"],"capabilities":`)
	result = h.appendCapabilities(result, peers, false)
	result = h.appendInstructions(result, peers)
	result = append(result, `,"ttlMs":0,"cacheScope":"private",`...)
	h.result(w, q, append(h.appendServerMeta(result), '}'))
}

// handshakes speaks to all backends at once. A backend that does not answer in
// time is missing from the result; only the end of the caller's own session is
// an error.
func (h *Handler) handshakes(ctx context.Context, who *caller.Caller, with func(context.Context, *config.Backend) (*mcpclient.Peer, error)) (map[string]*mcpclient.Peer, error) {
	peers := make(map[string]*mcpclient.Peer, len(h.deployment.Backends))
	var (
		mu    sync.Mutex
		fatal error
		wg    sync.WaitGroup
	)
	for i := range h.deployment.Backends {
		b := &h.deployment.Backends[i]
		if h.isSlow(who, b) {
			h.gap(ctx, b, "handshake", errSlow(b))
			continue
		}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, h.handshakeTimeout)
			defer cancel()
			p, err := with(ctx, b)
			h.judge(who, b, err)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				peers[b.Name] = p
			case isFatal(err):
				fatal = err
			default:
				h.gap(ctx, b, "handshake", err)
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, fault.From(context.Cause(ctx))
	}
	return peers, fatal
}

// isFatal reports whether an error is not one backend's: the MCP session is
// unknown, or the caller's access token is no longer good.
func isFatal(err error) bool {
	return isSessionUnknown(err) || backend.Explain(err).Status == http.StatusUnauthorized
}

// isUnserved reports whether an error is not one backend's either, but the
// broker's: nobody could say whether the caller may have the credential; or the
// gateway's own, which has no room for the answer.
func isUnserved(err error) bool {
	switch fault.ReasonOf(err) {
	case credentials.ReasonBrokerUnavailable, credentials.ReasonConfigUnknown, limits.ReasonBusy:
		return true
	}
	return false
}

// appendCapabilities appends what all backends together offer. A backend that
// is missing is taken to offer everything that can be passed on. With streams,
// changes are announced.
func (h *Handler) appendCapabilities(dst []byte, peers map[string]*mcpclient.Peer, streams bool) []byte {
	features := mcpclient.Tools
	for i := range h.deployment.Backends {
		p, ok := peers[h.deployment.Backends[i].Name]
		switch {
		case !ok:
			features |= mcpclient.Everything
		case streams && !p.Stateless():
			features |= p.Features
		default:
			features |= p.Features & mcpclient.Everything
		}
	}
	dst = append(dst, '{')
	member := func(name string, of mcpclient.Features, flags ...string) {
		if !features.Has(of) {
			return
		}
		if dst[len(dst)-1] != '{' {
			dst = append(dst, ',')
		}
		dst = append(dst, `"`+name+`":{`...)
		first := true
		for _, flag := range flags {
			if flag == "" {
				continue
			}
			if !first {
				dst = append(dst, ',')
			}
			first = false
			dst = append(dst, `"`+flag+`":true`...)
		}
		dst = append(dst, '}')
	}
	flag := func(name string, of mcpclient.Features) string {
		if features.Has(of) {
			return name
		}
		return ""
	}
	member("completions", mcpclient.Completions)
	member("logging", mcpclient.Logging)
	member("prompts", mcpclient.Prompts, flag("listChanged", mcpclient.PromptsChanged))
	member("resources", mcpclient.Resources, flag("listChanged", mcpclient.ResourcesChanged), flag("subscribe", mcpclient.Subscribe))
	member("tools", mcpclient.Tools, flag("listChanged", mcpclient.ToolsChanged))
	return append(dst, '}')
}

func (h *Handler) appendServerInfo(dst []byte) []byte {
	dst = append(dst, `{"name":"chatelaine-gateway","title":"Chatelaine","version":`...)
	return append(jsonrpc.AppendString(dst, h.version), '}')
}

// appendServerMeta appends the member _meta that results of the stateless era
// should have.
func (h *Handler) appendServerMeta(dst []byte) []byte {
	dst = append(dst, `"_meta":{"`+era.MetaServerInfo+`":`...)
	return append(h.appendServerInfo(dst), '}')
}

// appendInstructions appends the member instructions: how tools are named, and
// what each backend says of itself.
func (h *Handler) appendInstructions(dst []byte, peers map[string]*mcpclient.Peer) []byte {
	var text strings.Builder
	text.WriteString("Several servers are behind this one. The names of tools and prompts begin with the server's name and ")
	text.WriteString(quoted(h.names.Separator) + ".")
	for i := range h.deployment.Backends {
		name := h.deployment.Backends[i].Name
		p := peers[name]
		if p == nil || p.Instructions == "" || text.Len()+len(p.Instructions) > maxInstructions {
			continue
		}
		text.WriteString("\n\nServer " + name + ":\n" + p.Instructions)
	}
	dst = append(dst, `,"instructions":`...)
	return jsonrpc.AppendString(dst, text.String())
}
