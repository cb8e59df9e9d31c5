package resource

import (
	"slices"
	"strings"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
)

// ReasonTarget is the reason of the errors of Resolve and Narrow: the code of RFC
// 8707, section 2.
const ReasonTarget = "invalid_target"

const maxResources = 20

// Policy is what the deployment offers.
type Policy struct {
	deployment *config.Deployment
	scopes     []string
}

// New returns the policy of a deployment with an authorization server.
func New(d *config.Deployment) *Policy {
	p := &Policy{deployment: d}
	known := slices.Concat(d.Scopes, d.AuthServer.BaselineClientScopes, []string{"offline_access"})
	for _, scope := range known {
		// openid would promise an id_token, and there is none.
		if scope != "openid" && !slices.Contains(p.scopes, scope) {
			p.scopes = append(p.scopes, scope)
		}
	}
	return p
}

// Scopes returns every scope that can be granted.
func (p *Policy) Scopes() []string { return p.scopes }

// Baseline returns the scopes that every client is granted.
func (p *Policy) Baseline() []string { return p.deployment.AuthServer.BaselineClientScopes }

// Resolve returns the resources that a client asks for at the authorization
// endpoint, as the deployment writes them; the aggregated endpoint for none.
func (p *Policy) Resolve(asked []string) ([]string, error) {
	if len(asked) == 0 {
		return []string{p.deployment.Audience}, nil
	}
	return p.canonical(asked)
}

// Narrow returns the resources of one access token: those that the client asks
// for at the token endpoint, each covered by what was granted, or all of it when
// it asks for none (RFC 8707, section 2.2). What the deployment does not offer any
// more is left out.
func (p *Policy) Narrow(granted, asked []string) ([]string, error) {
	granted = slices.DeleteFunc(slices.Clone(granted), func(g string) bool {
		_, known := p.deployment.BackendForResource(g)
		return !known
	})
	if len(granted) == 0 {
		return nil, fault.New(fault.Invalid, "nothing of what was granted is offered here any more").WithReason(ReasonTarget)
	}
	if len(asked) == 0 {
		return granted, nil
	}
	wanted, err := p.canonical(asked)
	if err != nil {
		return nil, err
	}
	for _, w := range wanted {
		backend, _ := p.deployment.BackendForResource(w)
		if !p.deployment.AudienceCovers(granted, backend) {
			return nil, fault.Newf(fault.Invalid, "the resource %s is not part of what was granted", w).WithReason(ReasonTarget)
		}
	}
	return wanted, nil
}

func (p *Policy) canonical(asked []string) ([]string, error) {
	if len(asked) > maxResources {
		return nil, fault.Newf(fault.Invalid, "more than %d resources", maxResources).WithReason(ReasonTarget)
	}
	var list []string
	for _, a := range asked {
		backend, known := p.deployment.BackendForResource(a)
		if !known {
			return nil, fault.New(fault.Invalid, "unknown resource; this server issues tokens for "+
				strings.Join(p.deployment.Resources(), ", ")).WithReason(ReasonTarget)
		}
		if r := p.deployment.Resource(backend); !slices.Contains(list, r) {
			list = append(list, r)
		}
	}
	return list, nil
}

// Downscope returns what a client gets of the scopes that it asks for; all of its
// own when it asks for none (RFC 6749, section 3.3).
func (p *Policy) Downscope(asked string, allowed []string) []string {
	want := strings.Fields(asked)
	granted := []string{}
	for _, scope := range p.scopes {
		if slices.Contains(allowed, scope) && (len(want) == 0 || slices.Contains(want, scope)) {
			granted = append(granted, scope)
		}
	}
	return granted
}
