package aggregate

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/gateway/internal/aggregate/catalog"
	"chatelaine.dev/services/gateway/internal/aggregate/mcpclient"
	"chatelaine.dev/services/gateway/internal/jsonrpc"
)

// list answers a list request with the lists of all backends: their first
// pages, or with a cursor the pages that follow.
func (h *Handler) list(w http.ResponseWriter, r *http.Request, q *request) {
	kind := catalog.KindOf(q.msg.Method)
	cursor, err := h.cursorOf(q, kind)
	if err != nil {
		h.fail(w, r, q, err)
		return
	}
	merged, err := h.gather(r.Context(), q, kind, cursor)
	if err != nil {
		h.fail(w, r, q, err)
		return
	}
	result, err := h.render(r.Context(), q, merged)
	if err != nil {
		h.fail(w, r, q, err)
		return
	}
	if !kind.Prefixed {
		h.learn(q, merged)
	}
	h.result(w, q, result)
}

func (h *Handler) render(ctx context.Context, q *request, merged *catalog.Merged) ([]byte, error) {
	size := merged.Size() + 1<<10
	if err := q.lease.Copy(size); err != nil {
		return nil, err
	}
	result := append(append(make([]byte, 0, size), `{"`...), merged.Kind.Array...)
	result = append(result, `":`...)
	result, skipped := merged.AppendItems(result)
	if skipped > 0 {
		h.logger.WarnContext(ctx, "list items cannot be reached under their name and are left out", "method", merged.Kind.Method, "items", skipped)
	}
	if cursor := merged.Cursor(); cursor != nil {
		sealed, err := h.sealCursor(q, cursor)
		if err != nil {
			return nil, err
		}
		result = append(append(result, `,"nextCursor":"`...), sealed...)
		result = append(result, '"')
	}
	if q.stateless {
		result = merged.AppendCaching(append(result, ','))
		result = h.appendServerMeta(append(result, `,"resultType":"complete",`...))
	}
	return append(result, '}'), nil
}

// gather fetches one page of every backend, or of those that a cursor names, at
// once. A backend that fails contributes what it showed this person before. It is
// an error when the broker does not answer, and no backend has been reached.
func (h *Handler) gather(ctx context.Context, q *request, kind *catalog.Kind, cursor *catalog.Cursor) (*catalog.Merged, error) {
	type answer struct {
		part *catalog.Part
		err  error
	}
	answers := make([]answer, len(h.deployment.Backends))
	var wg sync.WaitGroup
	for i := range h.deployment.Backends {
		b := &h.deployment.Backends[i]
		at := ""
		if cursor != nil {
			var more bool
			if at, more = cursor.Of(b.Name); !more {
				continue
			}
		}
		wg.Go(func() { answers[i].part, answers[i].err = h.page(ctx, q, b, kind, at, cursor != nil) })
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, fault.From(context.Cause(ctx))
	}
	merged := &catalog.Merged{Kind: kind, Names: h.names, Complete: true}
	var unserved error
	served := false
	for i := range answers {
		if err := answers[i].err; err != nil {
			if isFatal(err) {
				return nil, err
			}
			if isUnserved(err) {
				unserved = err
			}
			h.gap(ctx, &h.deployment.Backends[i], kind.Method, err)
			merged.Complete = false
		}
		if part := answers[i].part; part != nil {
			merged.Parts = append(merged.Parts, *part)
			served = served || !part.Old
		}
	}
	if unserved != nil && !served { // what was shown before may no longer be this caller's
		return nil, unserved
	}
	return merged, nil
}

// page returns what a backend contributes, and why that is not new when it is
// not. Neither means that the backend has no lists of this kind.
func (h *Handler) page(ctx context.Context, q *request, b *config.Backend, kind *catalog.Kind, cursor string, hasCursor bool) (*catalog.Part, error) {
	key := strings.Join([]string{identity(q.who, b), b.Name, kind.Method, cursor}, "\x00")
	page, peer, err := h.fetch(ctx, q, b, kind, cursor, hasCursor)
	switch {
	case err == nil && page == nil:
		return nil, nil
	case err == nil:
		h.pages.Put(key, page, page.Size()+len(key))
		return &catalog.Part{Backend: b.Name, Page: page, Stateless: peer.Stateless(), PerUser: b.Strategy.PerUser()}, nil
	case isFatal(err):
		return nil, err
	}
	old, ok := h.pages.Get(key)
	if !ok {
		return nil, err
	}
	if !isUnserved(err) {
		switch refused := h.entitled(ctx, q, b); {
		case refused == nil:
		case isFatal(refused):
			return nil, refused
		case isUnserved(refused):
			err = refused
		}
	}
	return &catalog.Part{Backend: b.Name, Page: old, Old: true}, err
}

// entitledTimeout is how long a list waits for the broker's word on what was shown
// before, when its backend has used up its own time.
const entitledTimeout = 2 * time.Second

// entitled asks whether the caller may still have the backend's credential: the
// backend may have been given up before the broker was asked. That costs nothing
// while the credential is cached.
func (h *Handler) entitled(ctx context.Context, q *request, b *config.Backend) error {
	ctx, cancel := context.WithTimeout(ctx, entitledTimeout)
	defer cancel()
	_, err := h.credentials.Get(ctx, q.who, b.Name)
	return err
}

func (h *Handler) fetch(ctx context.Context, q *request, b *config.Backend, kind *catalog.Kind, cursor string, hasCursor bool) (*catalog.Page, *mcpclient.Peer, error) {
	if h.isSlow(q.who, b) {
		return nil, nil, errSlow(b)
	}
	ctx, cancel := context.WithTimeout(ctx, h.listTimeout)
	defer cancel()
	var members []byte
	if hasCursor {
		members = jsonrpc.AppendString([]byte(`"cursor":`), cursor)
	}
	m, peer, err := h.ask(ctx, q, b, kind, members)
	if e, ok := errors.AsType[*mcpclient.RPCError](err); ok && e.Code == jsonrpc.CodeMethodNotFound {
		return nil, peer, nil
	}
	h.judge(q.who, b, err)
	if err != nil || m == nil {
		return nil, peer, err
	}
	page, err := catalog.ParsePage(kind, m)
	if err != nil {
		return nil, peer, fault.Wrap(fault.Unavailable, err, "backend "+b.Name+" answered without a list").
			WithReason(mcpclient.ReasonAnswer, "backend", b.Name)
	}
	return page, peer, nil
}

// ask requests a page. The message is nil when the backend does not offer lists
// of this kind.
func (h *Handler) ask(ctx context.Context, q *request, b *config.Backend, kind *catalog.Kind, members []byte) (*jsonrpc.Message, *mcpclient.Peer, error) {
	peer, err := q.link.peer(ctx, b)
	for attempt := 1; ; attempt++ {
		if err != nil {
			return nil, nil, err
		}
		if !peer.Features.Has(featureOf(kind)) {
			return nil, peer, nil
		}
		m, err := h.client.Ask(ctx, mcpclient.Target{Caller: q.who, Backend: b, Lease: q.lease}, peer,
			mcpclient.Head{Method: kind.Method}, mcpclient.Params(peer, q.hello.ClientInfo, members))
		if err == nil || attempt == 2 || !mcpclient.IsStale(err, peer) {
			return m, peer, settled(b, err)
		}
		peer, err = q.link.renew(ctx, b, peer)
		if err != nil {
			return nil, nil, err
		}
	}
}

// settled makes a fault of a session that is lost again at once.
func settled(b *config.Backend, err error) error {
	if errors.Is(err, mcpclient.ErrSessionLost) {
		return fault.Wrap(fault.Unavailable, err, "backend "+b.Name+" does not keep its sessions").
			WithReason(mcpclient.ReasonAnswer, "backend", b.Name)
	}
	return err
}

func featureOf(kind *catalog.Kind) mcpclient.Features {
	switch kind {
	case catalog.Tools:
		return mcpclient.Tools
	case catalog.Prompts:
		return mcpclient.Prompts
	default:
		return mcpclient.Resources
	}
}

// maxCursor bounds a cursor that is taken back, in characters.
const maxCursor = 64 << 10

// cursorOf returns the cursor of a list request, nil when it has none.
func (h *Handler) cursorOf(q *request, kind *catalog.Kind) (*catalog.Cursor, error) {
	span := jsonrpc.Find(q.msg.Raw, q.msg.Params, "cursor")
	if span.IsZero() || span.Kind(q.msg.Raw) == jsonrpc.Null {
		return nil, nil
	}
	invalid := newProblem(jsonrpc.CodeInvalidParams, "the cursor is not one of this list")
	text := q.msg.Text(span)
	if text == "" || len(text) > maxCursor {
		return nil, invalid
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, invalid
	}
	plain, err := h.store.ring.Open(sealed, bound(purposeCursor, q.who.Key, kind.Method))
	if err != nil {
		return nil, invalid
	}
	cursor, err := catalog.UnmarshalCursor(plain, kind.Method)
	if err != nil {
		return nil, invalid
	}
	return cursor, nil
}

func (h *Handler) sealCursor(q *request, cursor *catalog.Cursor) (string, error) {
	plain, err := cursor.Marshal()
	if err != nil {
		return "", fault.Wrap(fault.Internal, err, "the cursor cannot be sealed")
	}
	sealed, err := h.store.ring.Seal(nil, plain, bound(purposeCursor, q.who.Key, cursor.Method))
	if err != nil {
		return "", err
	}
	text := base64.RawURLEncoding.EncodeToString(sealed)
	if len(text) > maxCursor {
		return "", fault.New(fault.Exhausted, "the backends' cursors are too long")
	}
	return text, nil
}
