package config

import (
	"testing"
)

func TestTheDemoSetIsClean(t *testing.T) {
	t.Parallel()
	set, report := Load("testdata/demo.yaml")
	if !report.OK() || len(report.Problems) != 0 {
		t.Fatalf("the demo of the documentation would not start:\n%s", report)
	}
	d := set.Deployment()
	if d.Mode != ModeAuthServer || len(d.Backends) != 3 || d.AuthServer.Providers[0].RedirectURI != "http://localhost:8080/oauth/callback/corp" {
		t.Errorf("got %+v", d)
	}
}
