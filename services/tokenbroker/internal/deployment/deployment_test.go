package deployment_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
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

type fixture struct {
	t       *testing.T
	path    string
	log     bytes.Buffer
	prepare error
	source  *deployment.Source
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, path: filepath.Join(t.TempDir(), "set.yaml")}
	f.write("one")
	var err error
	f.source, err = deployment.Open(deployment.Config{
		Path: f.path, Logger: slog.New(slog.NewTextHandler(&f.log, nil)),
		Providers: func(d *config.Deployment) (*upstream.Registry, error) {
			return upstream.NewRegistry(d, upstream.Config{})
		},
		Prepare: func(*deployment.Snapshot) error { return f.prepare },
	})
	if err != nil {
		t.Fatal(fault.Detail(err))
	}
	return f
}

func (f *fixture) write(name string) {
	f.t.Helper()
	if err := os.WriteFile(f.path, []byte(strings.ReplaceAll(anonymous, "NAME", name)), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func TestGatewaysThatHaveNotSwappedAreStillUnderstood(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	one := f.source.Current()
	f.source.Reload(t.Context())
	if f.source.Current() != one {
		t.Error("an unchanged set was swapped")
	}
	f.write("two")
	f.source.Reload(t.Context())
	two := f.source.Current()
	if two.Digest == one.Digest || two.Deployment.Name != "two" {
		t.Fatalf("current = %s", two.Deployment.Name)
	}
	for _, want := range []*deployment.Snapshot{one, two} {
		if got, ok := f.source.Find(want.Digest); !ok || got != want {
			t.Errorf("the set %s cannot be found by its digest", want.Deployment.Name)
		}
	}
	if _, ok := f.source.Find(strings.Repeat("0", 64)); ok {
		t.Error("a digest that never was is known")
	}
	f.write("one") // rolled back
	f.source.Reload(t.Context())
	if got, ok := f.source.Find(one.Digest); !ok || got != f.source.Current() {
		t.Error("after a roll-back the digest does not name the current set")
	}
}

func TestASetThatCannotBeUsedLeavesTheLastOneAlone(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	one := f.source.Current()
	for range 3 {
		if err := os.WriteFile(f.path, []byte("kind: Nonsense"), 0o600); err != nil {
			t.Fatal(err)
		}
		f.source.Reload(t.Context())
	}
	f.prepare = errors.New("a secret is missing")
	f.write("two")
	f.source.Reload(t.Context())
	if f.source.Current() != one {
		t.Error("a bad set is in use")
	}
	if n := strings.Count(f.log.String(), "keeping the last good configuration"); n != 2 {
		t.Errorf("two problems were reported %d times", n)
	}
	f.prepare = nil
	f.source.Reload(t.Context())
	if f.source.Current().Deployment.Name != "two" {
		t.Error("the set is not used although its problem is gone")
	}
}

func TestABadSetIsAnErrorAtStart(t *testing.T) {
	t.Parallel()
	_, err := deployment.Open(deployment.Config{Path: filepath.Join(t.TempDir(), "none.yaml")})
	if fault.KindOf(err) != fault.Invalid {
		t.Errorf("err = %v", err)
	}
}
