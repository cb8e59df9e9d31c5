package config

import (
	"slices"
	"strings"
)

// Backend returns the backend of that name.
func (d *Deployment) Backend(name string) (*Backend, bool) {
	i, ok := slices.BinarySearchFunc(d.Backends, name, func(b Backend, n string) int {
		return strings.Compare(b.Name, n)
	})
	if !ok {
		return nil, false
	}
	return &d.Backends[i], true
}

// Provider returns the upstream provider of that name.
func (d *Deployment) Provider(name string) (*Provider, bool) {
	if d.AuthServer == nil {
		return nil, false
	}
	for i := range d.AuthServer.Providers {
		if d.AuthServer.Providers[i].Name == name {
			return &d.AuthServer.Providers[i], true
		}
	}
	return nil, false
}

// Resource returns the protected resource of a backend, or of the aggregated
// endpoint for the empty name. It is empty in ModeAnonymous.
func (d *Deployment) Resource(backend string) string {
	if d.Audience == "" || backend == "" {
		return d.Audience
	}
	return d.Audience + "/" + backend
}

// Resources returns every protected resource: the aggregated endpoint's first,
// then the backends' by name. Tokens are issued for these alone.
func (d *Deployment) Resources() []string {
	if d.Audience == "" {
		return nil
	}
	all := make([]string, 0, len(d.Backends)+1)
	all = append(all, d.Audience)
	for i := range d.Backends {
		all = append(all, d.Backends[i].Resource)
	}
	return all
}

// ResourcesFor returns the audiences that open a backend: its own and the
// aggregated endpoint's. For the empty name it is the latter alone.
func (d *Deployment) ResourcesFor(backend string) []string {
	if d.Audience == "" {
		return nil
	}
	if backend == "" {
		return []string{d.Audience}
	}
	return []string{d.Audience, d.Resource(backend)}
}

// BackendForResource tells what a resource indicator (RFC 8707) stands for: a
// backend's name, or the empty name for the aggregated endpoint. ok is false
// for a resource that is not ours.
func (d *Deployment) BackendForResource(resource string) (backend string, ok bool) {
	if d.Audience == "" {
		return "", false
	}
	resource = CanonicalResource(resource)
	if resource == d.Audience {
		return "", true
	}
	name, found := strings.CutPrefix(resource, d.Audience+"/")
	if !found {
		return "", false
	}
	if _, known := d.Backend(name); !known {
		return "", false
	}
	return name, true
}

// AudienceCovers reports whether a token with these audiences opens a backend,
// or the aggregated endpoint for the empty name. It allocates nothing.
func (d *Deployment) AudienceCovers(audience []string, backend string) bool {
	if d.Audience == "" {
		return false
	}
	for _, a := range audience {
		a = CanonicalResource(a)
		if a == d.Audience {
			return true
		}
		if backend == "" {
			continue
		}
		if name, ok := strings.CutPrefix(a, d.Audience); ok && len(name) == len(backend)+1 &&
			name[0] == '/' && name[1:] == backend {
			return true
		}
	}
	return false
}

// CanonicalResource returns a resource URL without the slash of a bare root:
// `https://x` and `https://x/` are one resource (RFC 3986, section 6.2.3).
func CanonicalResource(resource string) string {
	rest, ok := strings.CutSuffix(resource, "/")
	if !ok {
		return resource
	}
	_, authority, ok := strings.Cut(rest, "://")
	if !ok || authority == "" || strings.ContainsAny(authority, "/?#") {
		return resource
	}
	return rest
}
