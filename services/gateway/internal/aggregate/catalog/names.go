package catalog

import "strings"

// Names adds a backend's name to the names of its tools and prompts, and takes
// it off again. The zero value has no separator and is of no use.
type Names struct {
	// Separator stands between the names of backend and tool.
	Separator string
	// Known tells the names of backends.
	Known func(backend string) bool
}

// Prefix returns what stands in front of the names of a backend's tools.
func (n Names) Prefix(backend string) string { return backend + n.Separator }

// Split returns the backend of a name and the name that the backend gave. Of
// several backends that the name could belong to it is the one with the longest
// name; with names that are DNS labels and the separator "_" there is only one.
func (n Names) Split(name string) (backend, inner string, ok bool) {
	if n.Separator == "" {
		return "", "", false
	}
	for end := len(name); ; {
		end = strings.LastIndex(name[:end], n.Separator)
		if end < 0 {
			return "", "", false
		}
		if n.Known(name[:end]) {
			return name[:end], name[end+len(n.Separator):], true
		}
	}
}

// uriScheme begins the URIs of wrapURI: "chatelaine+{backend}:{uri}". A backend
// is a DNS label, so the whole is a URI whose scheme names it.
const uriScheme = "chatelaine+"

// wrapURI returns a URI that names its backend.
func wrapURI(backend, uri string) string { return uriScheme + backend + ":" + uri }

// UnwrapURI is the inverse of wrapURI.
func UnwrapURI(wrapped string) (backend, uri string, ok bool) {
	rest, ok := strings.CutPrefix(wrapped, uriScheme)
	if !ok {
		return "", "", false
	}
	backend, uri, ok = strings.Cut(rest, ":")
	return backend, uri, ok && backend != ""
}
