package config

import (
	"slices"
	"strings"
)

// resource is a decoded document: the spec of its kind.
type resource[S any] struct {
	doc  *document
	Spec *S
}

// resources are all documents of a set, in the order in which they were read.
type resources struct {
	servers []resource[VirtualMCPServerSpec]
	auths   []resource[ExternalAuthSpec]
	entries []resource[MCPServerEntrySpec]
	oidc    []resource[MCPOIDCConfigSpec]
	groups  []resource[MCPGroupSpec]
}

func kinds() []string {
	return []string{KindVirtualMCPServer, KindMCPExternalAuthConfig, KindMCPServerEntry, KindMCPOIDCConfig, KindMCPGroup}
}

func apiVersions() []string { return []string{APIVersion, APIVersionToolHiveBeta, APIVersionToolHive} }

// newResource returns a pointer to an empty resource of a kind, or nil.
func newResource(kind string) any {
	switch kind {
	case KindVirtualMCPServer:
		return &VirtualMCPServer{}
	case KindMCPExternalAuthConfig:
		return &MCPExternalAuthConfig{}
	case KindMCPServerEntry:
		return &MCPServerEntry{}
	case KindMCPOIDCConfig:
		return &MCPOIDCConfig{}
	case KindMCPGroup:
		return &MCPGroup{}
	default:
		return nil
	}
}

func (r *resources) add(doc *document, v any) {
	switch v := v.(type) {
	case *VirtualMCPServer:
		r.servers = append(r.servers, resource[VirtualMCPServerSpec]{doc, &v.Spec})
	case *MCPExternalAuthConfig:
		r.auths = append(r.auths, resource[ExternalAuthSpec]{doc, &v.Spec})
	case *MCPServerEntry:
		r.entries = append(r.entries, resource[MCPServerEntrySpec]{doc, &v.Spec})
	case *MCPOIDCConfig:
		r.oidc = append(r.oidc, resource[MCPOIDCConfigSpec]{doc, &v.Spec})
	case *MCPGroup:
		r.groups = append(r.groups, resource[MCPGroupSpec]{doc, &v.Spec})
	}
}

// documents of all kinds, in a fixed order.
func (r *resources) documents() []*document {
	var all []*document
	collect(&all, r.servers)
	collect(&all, r.auths)
	collect(&all, r.entries)
	collect(&all, r.oidc)
	collect(&all, r.groups)
	return all
}

func collect[T any](all *[]*document, list []resource[T]) {
	for _, x := range list {
		*all = append(*all, x.doc)
	}
}

// find returns the resource of a name, and all names.
func find[T any](list []resource[T], name string) (*resource[T], []string) {
	var found *resource[T]
	names := make([]string, 0, len(list))
	for i := range list {
		names = append(names, list[i].doc.name)
		if list[i].doc.name == name && found == nil {
			found = &list[i]
		}
	}
	slices.Sort(names)
	return found, names
}

// checkHeader reports what is wrong with apiVersion and kind, and whether the
// document is one of ours to decode.
func checkHeader(doc *document, report *Report) bool {
	if doc.kind == "" {
		report.errorf(doc, "kind", "is required; use %s", oneOf(kinds()))
		return false
	}
	known := slices.Contains(kinds(), doc.kind)
	switch {
	case slices.Contains(apiVersions(), doc.apiVersion):
	case doc.apiVersion == "v1" && doc.kind == "Secret":
		report.errorf(doc, "", "a Secret must not be part of the set: its values belong under $CHATELAINE_SECRETS_DIR/NAME/KEY, or in the environment")
		return false
	case known || ownGroup(doc.apiVersion):
		report.errorf(doc, "apiVersion", "%s is not known; use %s", show(doc.apiVersion), oneOf(apiVersions()))
		return known
	default:
		report.warnf(doc, "apiVersion", "the document is ignored: %s %s is none of %s",
			show(doc.apiVersion), doc.kind, strings.Join(apiVersions(), ", "))
		return false
	}
	if known {
		return true
	}
	if c, ok := foreignKind(doc.kind); ok {
		if c.verdict == compatRefuse {
			report.errorf(doc, "kind", "%s %s", doc.kind, c.reason)
		} else {
			report.warnf(doc, "kind", "%s %s", doc.kind, c.reason)
		}
		return false
	}
	report.errorf(doc, "kind", "%s is not known; use %s%s", show(doc.kind), oneOf(kinds()), didYouMean(doc.kind, kinds()))
	return false
}

// ownGroup reports whether an apiVersion is, or was meant to be, one of ours.
func ownGroup(apiVersion string) bool {
	group, _, _ := strings.Cut(apiVersion, "/")
	return apiVersion == "" || nearest(group, []string{"chatelaine.dev", "toolhive.stacklok.dev"}) != ""
}

// index checks the identity of documents: names, and that none occurs twice.
func (r *resources) index(report *Report) {
	type identity struct{ kind, name string }
	first := map[identity]*document{}
	namespace := ""
	var namespaced *document
	for _, doc := range r.documents() {
		checkName(doc, report)
		if doc.namespace != "" {
			if namespaced == nil {
				namespace, namespaced = doc.namespace, doc
			} else if doc.namespace != namespace {
				report.errorf(doc, "metadata.namespace", "%s is not the namespace of %s/%s (%s): one set, one namespace",
					show(doc.namespace), namespaced.kind, namespaced.name, namespace)
			}
		}
		id := identity{doc.kind, doc.name}
		if before, dup := first[id]; dup && doc.name != "" {
			report.errorf(doc, "metadata.name", "there is another %s of this name, in %s line %d", doc.kind, before.file, before.line)
			continue
		}
		first[id] = doc
	}
}

func checkName(doc *document, report *Report) {
	switch {
	case doc.name == "":
		return // reported as required
	case doc.kind == KindMCPServerEntry:
		if !isLabel(doc.name) {
			report.errorf(doc, "metadata.name", "%s is not a DNS label (lower-case letters, digits and '-', at most 63), which the name of a backend must be", show(doc.name))
		} else if slices.Contains(reservedBackends(), doc.name) {
			report.errorf(doc, "metadata.name", "%q is reserved and cannot name a backend", doc.name)
		}
	case !isSubdomain(doc.name):
		report.errorf(doc, "metadata.name", "%s is not a valid name: lower-case letters, digits, '-' and '.', at most 253", show(doc.name))
	}
}

// reservedBackends are names that would read as a part of the gateway itself in
// a URL or in front of a tool's name.
func reservedBackends() []string {
	return []string{"chatelaine", "mcp", "oauth"}
}
