package catalog

import (
	"strings"
	"sync"
	"time"
)

// Bounds of an index. What is beyond is found by templates and schemes only.
const (
	maxURIs = 20_000
	// maxTemplates bounds the templates of one backend, all of which a URI that
	// nobody lists is compared with.
	maxTemplates = 1_000
	// maxURI bounds a URI or template, in bytes.
	maxURI = 8 << 10
	// MaxSize bounds what an index costs to keep, in bytes.
	MaxSize = 2<<20 - 4<<10
)

// Index says which backend owns a URI, for one person. It is safe for
// concurrent use.
type Index struct {
	mu        sync.RWMutex
	owners    map[string]string // URI or template → backend
	templates []template
	// places are those of templates, by their text; counts how many a backend has.
	places map[string]int
	counts map[string]int
	// schemes holds the owner of all URIs of a scheme, "" when there are several.
	schemes  map[string]string
	loadedAt time.Time
	size     int
}

type template struct {
	backend  string
	literals []string
}

// NewIndex returns an empty index.
func NewIndex() *Index {
	return &Index{
		owners: make(map[string]string), schemes: make(map[string]string),
		places: make(map[string]int), counts: make(map[string]int),
	}
}

// Add notes the URIs of a page of resources, or of templates. Pages may come in
// any order.
func (x *Index) Add(kind *Kind, backend string, page *Page) {
	x.mu.Lock()
	defer x.mu.Unlock()
	page.Keys(func(key string) { x.add(kind, backend, key) })
}

func (x *Index) add(kind *Kind, backend, key string) {
	if _, _, wrapped := UnwrapURI(key); wrapped || len(key) > maxURI {
		return
	}
	owner, known := x.owners[key]
	if known && owner <= backend {
		return
	}
	cost := len(key) + 96
	if !known && (len(x.owners) >= maxURIs || x.size+cost > MaxSize || kind == Templates && x.counts[backend] >= maxTemplates) {
		return
	}
	if !known {
		x.size += cost
	}
	x.owners[key] = backend
	if scheme, _, ok := strings.Cut(key, ":"); ok {
		only := backend
		if other, taken := x.schemes[scheme]; taken && other != backend {
			only = ""
		}
		x.schemes[scheme] = only
	}
	if kind == Templates {
		x.addTemplate(key, backend)
	}
}

func (x *Index) addTemplate(text, backend string) {
	at, known := x.places[text]
	if known {
		x.counts[x.templates[at].backend]--
		x.counts[backend]++
		x.templates[at].backend = backend
		return
	}
	t := template{backend: backend, literals: literalsOf(text)}
	cost := len(text) + 96 + 16*len(t.literals)
	if x.counts[backend] >= maxTemplates || x.size+cost > MaxSize {
		return
	}
	x.size += cost
	x.counts[backend]++
	x.places[text] = len(x.templates)
	x.templates = append(x.templates, t)
}

// Loaded notes that all lists of all backends were added at a time.
func (x *Index) Loaded(at time.Time) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.loadedAt = at
}

// LoadedAt returns when Loaded was told, the zero time when it was not.
func (x *Index) LoadedAt() time.Time {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.loadedAt
}

// Owner returns the backend that lists this very URI, or this template.
func (x *Index) Owner(uri string) (backend string, ok bool) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	backend, ok = x.owners[uri]
	return backend, ok
}

// Guess returns the backend of a URI that none lists: the one with a template
// that matches (of several the one whose name sorts first), or the only one
// that lists URIs of this scheme. Results of tools link to such resources.
func (x *Index) Guess(uri string) (backend string, ok bool) {
	if len(uri) > maxURI {
		return "", false
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	for i := range x.templates {
		if t := &x.templates[i]; t.match(uri) && (!ok || t.backend < backend) {
			backend, ok = t.backend, true
		}
	}
	if ok {
		return backend, true
	}
	scheme, _, hasScheme := strings.Cut(uri, ":")
	if !hasScheme {
		return "", false
	}
	backend = x.schemes[scheme]
	return backend, backend != ""
}

// Size returns what the index costs to keep, in bytes.
func (x *Index) Size() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return 1<<10 + x.size
}

// literalsOf returns what stands between the expressions of a URI template (RFC
// 6570, section 2), including what is in front and behind, which may be empty.
func literalsOf(uriTemplate string) []string {
	var literals []string
	for {
		before, rest, ok := strings.Cut(uriTemplate, "{")
		if before != "" || !ok || len(literals) == 0 {
			literals = append(literals, before)
		}
		if !ok {
			return literals
		}
		_, uriTemplate, _ = strings.Cut(rest, "}")
	}
}

// match reports whether an expansion of the template could be uri: whether its
// literals occur in order, the first at the start, the last at the end. A
// template that begins with an expression matches nothing: it says nothing.
func (t *template) match(uri string) bool {
	if t.literals[0] == "" {
		return false
	}
	rest, ok := strings.CutPrefix(uri, t.literals[0])
	if !ok {
		return false
	}
	if len(t.literals) == 1 {
		return rest == ""
	}
	last := len(t.literals) - 1
	for _, literal := range t.literals[1:last] {
		if _, rest, ok = strings.Cut(rest, literal); !ok {
			return false
		}
	}
	return strings.HasSuffix(rest, t.literals[last])
}
