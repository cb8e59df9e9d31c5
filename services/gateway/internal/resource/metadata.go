package resource

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
)

const wellKnown = "/.well-known/oauth-protected-resource"

// document is the metadata of a protected resource (RFC 9728, section 2).
type document struct {
	Resource             string   `json:"resource"`
	AuthorizationServers []string `json:"authorization_servers"`
	ScopesSupported      []string `json:"scopes_supported,omitempty"`
	BearerMethods        []string `json:"bearer_methods_supported"`
	ResourceName         string   `json:"resource_name,omitempty"`
}

// grantable refuses a required scope that no token of the deployment's own
// authorization server can have: every call would be forbidden, for good.
func grantable(d *config.Deployment, required []string) error {
	if d.AuthServer == nil {
		return nil // what a foreign issuer grants is not known here
	}
	for _, scope := range required {
		if scope != "offline_access" && !slices.Contains(d.Scopes, scope) && !slices.Contains(d.AuthServer.BaselineClientScopes, scope) {
			return fault.Newf(fault.Invalid, "the required scope %q is none that the authorization server grants: add it to spec.incomingAuth.oidcConfigRef.scopes", scope)
		}
	}
	return nil
}

func newProtected(d *config.Deployment, audience *url.URL, backend string, required []string) (*protected, error) {
	if d.Issuer == nil {
		return nil, fault.New(fault.Internal, "resource: the deployment has no issuer")
	}
	name := d.Name
	if backend != "" {
		name += "/" + backend
	}
	scopes := slices.Clone(d.Scopes)
	for _, scope := range required {
		if !slices.Contains(scopes, scope) {
			scopes = append(scopes, scope)
		}
	}
	metadata, err := json.Marshal(document{
		Resource: d.Resource(backend), AuthorizationServers: []string{d.Issuer.URL},
		ScopesSupported: scopes, BearerMethods: []string{"header"}, ResourceName: name,
	})
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "cannot write metadata")
	}
	p := &protected{metadata: metadata}
	for _, accepted := range d.ResourcesFor(backend) {
		p.accepted = append(p.accepted, accepted)
		// RFC 3986, section 6.2.3: with a bare authority, "/" is no other resource.
		if u, err := url.Parse(accepted); err == nil && u.Path == "" {
			p.accepted = append(p.accepted, accepted+"/")
		}
	}
	// RFC 9728, section 3.1: the well-known part stands between host and path.
	suffix := ""
	if backend != "" {
		suffix = "/" + backend
	}
	path := wellKnown + strings.TrimSuffix(audience.EscapedPath(), "/") + suffix
	p.paths = []string{path}
	if served := wellKnown + "/mcp" + suffix; served != path {
		p.paths = append(p.paths, served)
	}
	if backend == "" && path != wellKnown {
		p.paths = append(p.paths, wellKnown) // where clients look that know nothing of paths
	}
	p.parameters = `resource_metadata="` + audience.Scheme + "://" + audience.Host + path + `"`
	if len(scopes) > 0 {
		p.parameters += `, scope="` + quotable(strings.Join(scopes, " ")) + `"`
	}
	return p, nil
}

// Handle serves the metadata documents. An anonymous deployment has none.
func (s *Server) Handle(mux *http.ServeMux) {
	for _, p := range s.resources {
		handler := s.serveMetadata(p)
		for _, path := range p.paths {
			mux.Handle(path, handler)
		}
	}
}

// serveMetadata answers any origin: the document is public, and a browser client
// must be able to read it before it has a token.
func (s *Server) serveMetadata(p *protected) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.admitHost(w, r) {
			return
		}
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "*")
		switch r.Method {
		case http.MethodGet, http.MethodHead:
			h.Set("Content-Type", "application/json")
			h.Set("Cache-Control", "public, max-age=300")
			_, _ = w.Write(p.metadata) // the client went away: nobody to tell
		case http.MethodOptions:
			h.Set("Access-Control-Allow-Methods", "GET, HEAD, OPTIONS")
			h.Set("Access-Control-Allow-Headers", "MCP-Protocol-Version, Content-Type, Accept, Authorization")
			h.Set("Access-Control-Max-Age", maxAge)
			w.WriteHeader(http.StatusNoContent)
		default:
			h.Set("Allow", "GET, HEAD, OPTIONS")
			w.WriteHeader(http.StatusMethodNotAllowed)
		}
	})
}
