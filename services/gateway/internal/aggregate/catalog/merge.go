package catalog

import "strconv"

// Part is what one backend contributes to a list.
type Part struct {
	Backend string
	Page    *Page
	// Old: the backend could not be asked, and this is what it said before.
	Old bool
	// Stateless: what the page says of caches is to be believed.
	Stateless bool
	// PerUser: the page was asked for with one person's credential, so that it
	// is theirs, whatever the backend thinks.
	PerUser bool
}

// Merged says how a list was put together, and how it goes on.
type Merged struct {
	Kind  *Kind
	Names Names
	// Parts are sorted by the names of the backends.
	Parts []Part
	// Complete: every backend that should have contributed has.
	Complete bool
}

// Size returns about what AppendItems appends, in bytes.
func (m *Merged) Size() int {
	size := 0
	for i := range m.Parts {
		part := &m.Parts[i]
		for j := range part.Page.items {
			it := &part.Page.items[j]
			size += it.at.End - it.at.Start + len(part.Backend) + 16
		}
	}
	return size
}

// AppendItems appends the array of all items. Names that would not lead back to
// their backend are left out; skipped counts them.
func (m *Merged) AppendItems(dst []byte) (out []byte, skipped int) {
	dst = append(dst, '[')
	first := true
	owners := make(map[string]string)
	for i := range m.Parts {
		part := &m.Parts[i]
		for j := range part.Page.items {
			it := &part.Page.items[j]
			prefix, ok := m.prefix(part.Backend, it.key, owners)
			if !ok {
				skipped++
				continue
			}
			if !first {
				dst = append(dst, ',')
			}
			first = false
			dst = part.Page.appendItem(dst, it, prefix)
		}
	}
	return append(dst, ']'), skipped
}

func (m *Merged) prefix(backend, key string, owners map[string]string) (prefix string, ok bool) {
	if m.Kind.Prefixed {
		prefix = m.Names.Prefix(backend)
		owner, _, found := m.Names.Split(prefix + key)
		return prefix, found && owner == backend
	}
	if _, _, wrapped := UnwrapURI(key); wrapped {
		return "", false // a backend does not name other backends' resources
	}
	owner, taken := owners[key]
	switch {
	case !taken:
		owners[key] = backend
		return "", true
	case owner == backend:
		return "", false
	default:
		return wrapURI(backend, ""), true
	}
}

// Cursor returns the cursor of what follows, nil when nothing does.
func (m *Merged) Cursor() *Cursor {
	var c *Cursor
	for i := range m.Parts {
		if page := m.Parts[i].Page; page.HasNext {
			if c == nil {
				c = &Cursor{Method: m.Kind.Method}
			}
			c.Next = append(c.Next, Position{Backend: m.Parts[i].Backend, Cursor: page.Next})
		}
	}
	return c
}

// AppendCaching appends the members ttlMs and cacheScope. They promise no more
// than the most careful of the backends; a list with a gap, or with old parts,
// promises nothing.
func (m *Merged) AppendCaching(dst []byte) []byte {
	ttl, public := int64(-1), true
	for i := range m.Parts {
		part := &m.Parts[i]
		if !part.Stateless || part.Old {
			ttl, public = 0, false
			break
		}
		if ttl < 0 || part.Page.TTL < ttl {
			ttl = part.Page.TTL
		}
		public = public && part.Page.Public && !part.PerUser
	}
	if !m.Complete || ttl < 0 {
		ttl, public = 0, false
	}
	dst = append(dst, `"ttlMs":`...)
	dst = strconv.AppendInt(dst, ttl, 10)
	if public {
		return append(dst, `,"cacheScope":"public"`...)
	}
	return append(dst, `,"cacheScope":"private"`...)
}
