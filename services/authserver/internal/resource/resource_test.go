package resource_test

import (
	"slices"
	"strings"
	"testing"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/services/authserver/internal/resource"
)

func policy(audience string) *resource.Policy {
	return resource.New(&config.Deployment{
		Audience: audience, Scopes: []string{"openid", "tools", "admin"},
		AuthServer: &config.AuthServer{BaselineClientScopes: []string{"base", "tools"}},
		Backends:   []config.Backend{{Name: "payroll", Resource: audience + "/payroll"}, {Name: "repos", Resource: audience + "/repos"}},
	})
}

func TestARequestIsForTheDeploymentsOwnResources(t *testing.T) {
	t.Parallel()
	const mcp = "https://gw.example/mcp"
	for _, tt := range []struct {
		audience string
		asked    []string
		want     []string // nil: refused
	}{
		{mcp, nil, []string{mcp}},
		{mcp, []string{mcp}, []string{mcp}},
		{mcp, []string{mcp, mcp + "/repos", mcp}, []string{mcp, mcp + "/repos"}},
		{mcp, []string{mcp + "/"}, nil},
		{mcp, []string{"https://gw.example"}, nil},
		{mcp, []string{mcp + "/unknown"}, nil},
		{mcp, []string{mcp, "https://other.example"}, nil},
		{mcp, []string{""}, nil},
		{mcp, slices.Repeat([]string{mcp}, 21), nil},
		{"https://gw.example", []string{"https://gw.example/"}, []string{"https://gw.example"}},
		{"https://gw.example", []string{"https://gw.example"}, []string{"https://gw.example"}},
	} {
		got, err := policy(tt.audience).Resolve(tt.asked)
		if !slices.Equal(got, tt.want) || (err == nil) != (tt.want != nil) {
			t.Errorf("%s, asked for %.80v: %v, %v", tt.audience, tt.asked, got, err)
		}
		if err != nil && (fault.ReasonOf(err) != resource.ReasonTarget || strings.ContainsAny(err.Error(), `"\`)) {
			t.Errorf("%v is no error_description", err)
		}
	}
}

func TestATokenIsNarrowedAndNeverWidened(t *testing.T) {
	t.Parallel()
	const mcp = "https://gw.example/mcp"
	for _, tt := range []struct{ granted, asked, want []string }{
		{[]string{mcp}, nil, []string{mcp}},
		{[]string{mcp}, []string{mcp + "/repos"}, []string{mcp + "/repos"}},
		{[]string{mcp + "/repos", mcp + "/payroll"}, []string{mcp + "/payroll"}, []string{mcp + "/payroll"}},
		{[]string{mcp + "/repos"}, []string{mcp}, nil},
		{[]string{mcp + "/gone", mcp + "/repos"}, nil, []string{mcp + "/repos"}},
		{[]string{mcp + "/gone"}, nil, nil},
		{[]string{mcp + "/gone"}, []string{mcp + "/gone"}, nil},
		{[]string{mcp + "/repos"}, []string{mcp + "/payroll"}, nil},
		{[]string{mcp + "/repos"}, []string{mcp + "/repos", mcp + "/payroll"}, nil},
	} {
		got, err := policy(mcp).Narrow(tt.granted, tt.asked)
		if !slices.Equal(got, tt.want) || (err == nil) != (tt.want != nil) {
			t.Errorf("%v to %v: %v, %v", tt.granted, tt.asked, got, err)
		}
	}
}

func TestNoScopeIsOfferedThatWouldPromiseAnIDToken(t *testing.T) {
	t.Parallel()
	if got := policy("https://gw.example").Scopes(); !slices.Equal(got, []string{"tools", "admin", "base", "offline_access"}) {
		t.Errorf("scopes %v", got)
	}
}

func TestScopesAreTheCommonPart(t *testing.T) {
	t.Parallel()
	allowed := []string{"tools", "offline_access", "gone"}
	for asked, want := range map[string]string{
		"": "tools offline_access", "tools": "tools", "admin": "", "tools admin openid": "tools", "gone": "", "  tools   tools ": "tools",
	} {
		if got := strings.Join(policy("https://gw.example").Downscope(asked, allowed), " "); got != want {
			t.Errorf("%q: %q, want %q", asked, got, want)
		}
	}
}
