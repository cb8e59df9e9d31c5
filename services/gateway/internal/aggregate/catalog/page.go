package catalog

import (
	"errors"
	"strconv"

	"chatelaine.dev/services/gateway/internal/jsonrpc"
)

// Page is one page of one backend's list. It is immutable.
type Page struct {
	raw   []byte
	items []item
	// Next is the backend's cursor for the page that follows; HasNext tells an
	// empty one from none.
	Next    string
	HasNext bool
	// TTL is for how long the page may be kept, in milliseconds; 0 when the
	// backend does not say.
	TTL int64
	// Public: the page may be shown to anybody, by the backend's own word.
	Public bool
}

// item is one element: its place in raw, and its key's.
type item struct {
	at, keyAt jsonrpc.Span
	key       string
}

// maxItems bounds a page. A backend has further pages for more.
const maxItems = 10_000

var (
	errNoList  = errors.New("the result has no list of this kind")
	errTooMany = errors.New("the page has more than " + strconv.Itoa(maxItems) + " items")
)

// ParsePage reads the response to a list request. An item without a key, or
// with two, is left out: it could not be called.
func ParsePage(kind *Kind, m *jsonrpc.Message) (*Page, error) {
	p := &Page{raw: m.Raw}
	var list jsonrpc.Span
	_ = jsonrpc.Members(m.Raw, m.Result, func(key string, value jsonrpc.Span) error {
		switch key {
		case kind.Array:
			list = value
		case "nextCursor":
			p.Next, p.HasNext = jsonrpc.Text(m.Raw, value)
		case "ttlMs":
			p.TTL = number(value.Of(m.Raw))
		case "cacheScope":
			p.Public = m.Text(value) == "public"
		}
		return nil
	})
	if list.Kind(m.Raw) != jsonrpc.Array {
		return nil, errNoList
	}
	count := 0
	err := jsonrpc.Elements(m.Raw, list, func(at jsonrpc.Span) error {
		if count++; count > maxItems {
			return errTooMany
		}
		if it, ok := readItem(m.Raw, at, kind.Key); ok {
			p.items = append(p.items, it)
		}
		return nil
	})
	if errors.Is(err, errTooMany) {
		return nil, err
	}
	return p, nil
}

func readItem(raw []byte, at jsonrpc.Span, key string) (item, bool) {
	it := item{at: at}
	count := 0
	_ = jsonrpc.Members(raw, at, func(k string, value jsonrpc.Span) error {
		if k == key {
			it.keyAt = value
			count++
		}
		return nil
	})
	var ok bool
	it.key, ok = jsonrpc.Text(raw, it.keyAt)
	return it, ok && count == 1 && it.key != ""
}

// number reads a count; anything else is 0.
func number(raw []byte) int64 {
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// Len returns how many items there are.
func (p *Page) Len() int { return len(p.items) }

// Size returns what the page costs to keep, in bytes.
func (p *Page) Size() int {
	size := len(p.raw)
	for i := range p.items {
		size += len(p.items[i].key) + 64
	}
	return size
}

// Keys calls visit with the key of each item.
func (p *Page) Keys(visit func(key string)) {
	for i := range p.items {
		visit(p.items[i].key)
	}
}

// Item returns the raw item of a key, nil when the page does not have it.
func (p *Page) Item(key string) []byte {
	for i := range p.items {
		if p.items[i].key == key {
			return p.items[i].at.Of(p.raw)
		}
	}
	return nil
}

// appendItem appends an item whose key has prefix in front. The prefix needs no
// escapes in JSON.
func (p *Page) appendItem(dst []byte, it *item, prefix string) []byte {
	dst = append(dst, p.raw[it.at.Start:it.keyAt.Start+1]...)
	dst = append(dst, prefix...)
	return append(dst, p.raw[it.keyAt.Start+1:it.at.End]...)
}
