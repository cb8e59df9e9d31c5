package deployment_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/services/tokenbroker/internal/deployment"
	"chatelaine.dev/services/tokenbroker/internal/upstream"
)

const anonymous = `
apiVersion: chatelaine.dev/v1alpha1
kind: VirtualMCPServer
metadata: {name: NAME}
spec:
  groupRef: {name: demo}
  incomingAuth: {type: anonymous}
  outgoingAuth: {source: inline}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPServerEntry
metadata: {name: status}
spec: {groupRef: {name: demo}, remoteUrl: "https://status.example/mcp", transport: streamable-http}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPGroup
metadata: {name: demo}
`

// load returns the set whose deployment has that name.
func load(t *testing.T, name string) *config.Set {
	t.Helper()
	path := filepath.Join(t.TempDir(), "set.yaml")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(anonymous, "NAME", name)), 0o600); err != nil {
		t.Fatal(err)
	}
	set, report := config.Load(path)
	if err := report.Err(); err != nil {
		t.Fatal(err)
	}
	return set
}

func noProviders(d *config.Deployment) (*upstream.Registry, error) {
	return upstream.NewRegistry(d, upstream.Config{})
}

func TestGatewaysThatHaveNotSwappedAreStillUnderstood(t *testing.T) {
	t.Parallel()
	source, err := deployment.New(deployment.Config{Providers: noProviders}, load(t, "one"))
	if err != nil {
		t.Fatal(err)
	}
	one := source.Current()
	if err := source.Apply(t.Context(), load(t, "two")); err != nil {
		t.Fatal(err)
	}
	two := source.Current()
	if two.Digest == one.Digest || two.Deployment.Name != "two" {
		t.Fatalf("current = %s", two.Deployment.Name)
	}
	for _, want := range []*deployment.Snapshot{one, two} {
		if got, ok := source.Find(want.Digest); !ok || got != want {
			t.Errorf("the set %s cannot be found by its digest", want.Deployment.Name)
		}
	}
	if _, ok := source.Find(strings.Repeat("0", 64)); ok {
		t.Error("a digest that never was is known")
	}
	if err := source.Apply(t.Context(), load(t, "one")); err != nil { // rolled back
		t.Fatal(err)
	}
	if got, ok := source.Find(one.Digest); !ok || got != source.Current() {
		t.Error("after a roll-back the digest does not name the current set")
	}
}

func TestASetThatCannotBeUsedLeavesTheLastOneAlone(t *testing.T) {
	t.Parallel()
	missing := errors.New("a secret is missing")
	var refuse error
	source, err := deployment.New(deployment.Config{
		Providers: noProviders, Prepare: func(*deployment.Snapshot) error { return refuse },
	}, load(t, "one"))
	if err != nil {
		t.Fatal(err)
	}
	one := source.Current()
	refuse = missing
	two := load(t, "two")
	if err := source.Apply(t.Context(), two); !errors.Is(err, missing) {
		t.Errorf("err = %v, want %v", err, missing)
	}
	if _, known := source.Find(two.Digest()); known || source.Current() != one {
		t.Error("a bad set is in use")
	}
	if _, err := deployment.New(deployment.Config{
		Providers: noProviders, Prepare: func(*deployment.Snapshot) error { return refuse },
	}, two); !errors.Is(err, missing) {
		t.Errorf("at start: err = %v, want %v", err, missing)
	}
	refuse = nil
	if err := source.Apply(t.Context(), two); err != nil || source.Current().Deployment.Name != "two" {
		t.Errorf("the set is not used although its problem is gone: %v", err)
	}
}
