package aggregate

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/gateway/internal/aggregate/catalog"
	"chatelaine.dev/services/gateway/internal/aggregate/mcpclient"
	"chatelaine.dev/services/gateway/internal/jsonrpc"
)

const (
	// indexFor is how long an index that does not know a URI is believed.
	indexFor = 30 * time.Second
	// maxIndexPages bounds how far a backend's list is followed for an index.
	maxIndexPages = 50
)

// route is where a request goes, and under what name.
type route struct {
	backend *config.Backend
	// name of the tool or prompt, or the URI, as the backend knows it.
	name string
	// span of the name in the client's message, with the name to put there; the
	// zero edit when it stays.
	edit jsonrpc.Edit
}

// route finds the one backend that a request is for.
func (h *Handler) route(ctx context.Context, q *request) (*route, error) {
	switch q.msg.Method {
	case "tools/call":
		return h.routeName(q, "tool", q.msg.Name)
	case "prompts/get":
		return h.routeName(q, "prompt", q.msg.Name)
	case "completion/complete":
		return h.routeReference(ctx, q)
	default:
		return h.routeURI(ctx, q, q.msg.URI)
	}
}

func (h *Handler) routeName(q *request, what string, span jsonrpc.Span) (*route, error) {
	name, ok := jsonrpc.Text(q.msg.Raw, span)
	if !ok {
		return nil, newProblem(jsonrpc.CodeInvalidParams, "the name of the "+what+" is required")
	}
	owner, inner, ok := h.names.Split(name)
	if !ok {
		return nil, newProblem(jsonrpc.CodeInvalidParams, "unknown "+what+" "+quoted(name))
	}
	b, _ := h.deployment.Backend(owner)
	return &route{backend: b, name: inner, edit: jsonrpc.Edit{Span: span, With: jsonrpc.AppendString(nil, inner)}}, nil
}

// routeReference routes by what a completion is for.
func (h *Handler) routeReference(ctx context.Context, q *request) (*route, error) {
	ref := jsonrpc.Find(q.msg.Raw, q.msg.Params, "ref")
	switch q.msg.Text(jsonrpc.Find(q.msg.Raw, ref, "type")) {
	case "ref/prompt":
		return h.routeName(q, "prompt", jsonrpc.Find(q.msg.Raw, ref, "name"))
	case "ref/resource":
		return h.routeURI(ctx, q, jsonrpc.Find(q.msg.Raw, ref, "uri"))
	}
	return nil, newProblem(jsonrpc.CodeInvalidParams, "ref must be of type ref/prompt or ref/resource")
}

// routeURI routes by the owner of a URI, see package catalog. The lists of all
// backends are read when nothing is known of the URI.
func (h *Handler) routeURI(ctx context.Context, q *request, span jsonrpc.Span) (*route, error) {
	uri, ok := jsonrpc.Text(q.msg.Raw, span)
	if !ok || uri == "" {
		return nil, newProblem(jsonrpc.CodeInvalidParams, "the URI of the resource is required")
	}
	if owner, inner, ok := catalog.UnwrapURI(uri); ok {
		b, known := h.deployment.Backend(owner)
		if !known {
			return nil, unknownResource(uri)
		}
		return &route{backend: b, name: inner, edit: jsonrpc.Edit{Span: span, With: jsonrpc.AppendString(nil, inner)}}, nil
	}
	if len(h.deployment.Backends) == 1 {
		return &route{backend: &h.deployment.Backends[0], name: uri}, nil
	}
	index := h.index(q)
	owner, ok := index.Owner(uri)
	if !ok && h.now().Sub(index.LoadedAt()) > indexFor {
		if err := h.load(ctx, q, index); err != nil {
			return nil, err
		}
		owner, ok = index.Owner(uri)
	}
	if !ok {
		owner, ok = index.Guess(uri)
	}
	if !ok {
		return nil, unknownResource(uri)
	}
	b, known := h.deployment.Backend(owner)
	if !known {
		return nil, unknownResource(uri)
	}
	return &route{backend: b, name: uri}, nil
}

func unknownResource(uri string) error {
	return newProblem(jsonrpc.CodeInvalidParams, "unknown resource "+quoted(uri))
}

// index returns what is known of the URIs that a person may see.
func (h *Handler) index(q *request) *catalog.Index {
	key := identity(q.who, nil)
	if x, ok := h.indexes.Get(key); ok {
		return x
	}
	x := catalog.NewIndex()
	x, _ = h.indexes.GetOrPut(key, x, x.Size())
	return x
}

// learn notes the URIs of a list that was just shown.
func (h *Handler) learn(q *request, merged *catalog.Merged) {
	x := h.index(q)
	for i := range merged.Parts {
		x.Add(merged.Kind, merged.Parts[i].Backend, merged.Parts[i].Page)
	}
	h.indexes.Put(identity(q.who, nil), x, x.Size())
}

// load reads the resources and templates of all backends, once for all who wait
// for the same person's.
func (h *Handler) load(ctx context.Context, q *request, x *catalog.Index) error {
	key := strings.Join([]string{identity(q.who, nil), q.who.ClientID}, "\x00")
	if q.session != nil { // peers differ between sessions
		key += "\x00" + q.session.sealed.KeyText()
	}
	_, err := flight(ctx, &h.loads, key, 2*h.listTimeout, func(ctx context.Context) (struct{}, error) {
		kinds := []*catalog.Kind{catalog.Resources, catalog.Templates}
		errs := make([]error, len(h.deployment.Backends)*len(kinds))
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { errs[i] = h.loadOne(ctx, q, &h.deployment.Backends[i/len(kinds)], kinds[i%len(kinds)], x) })
		}
		wg.Wait()
		if i := slices.IndexFunc(errs, isUnserved); i >= 0 { // a URI may be there that nobody could see
			return struct{}{}, errs[i]
		}
		x.Loaded(h.now())
		h.indexes.Put(identity(q.who, nil), x, x.Size())
		return struct{}{}, nil
	})
	if fault.ReasonOf(err) == mcpclient.ReasonAnswer {
		return nil
	}
	return err
}

func (h *Handler) loadOne(ctx context.Context, q *request, b *config.Backend, kind *catalog.Kind, x *catalog.Index) error {
	cursor, more := "", false
	for range maxIndexPages {
		part, err := h.page(ctx, q.unleased(), b, kind, cursor, more)
		if err != nil {
			h.gap(ctx, b, kind.Method, err)
		}
		if part == nil {
			return err
		}
		x.Add(kind, b.Name, part.Page)
		if !part.Page.HasNext {
			return err
		}
		cursor, more = part.Page.Next, true
	}
	return nil
}
