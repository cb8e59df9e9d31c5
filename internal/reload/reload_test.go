package reload

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/telemetry"
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
kind: MCPGroup
metadata: {name: demo}
---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPServerEntry
metadata: {name: status}
spec: {groupRef: {name: demo}, remoteUrl: "https://status.example/mcp", transport: streamable-http}
`

// fixture is a service whose resources are edited.
type fixture struct {
	t        *testing.T
	path     string
	log      bytes.Buffer
	tel      *telemetry.Telemetry
	follower *Follower
	inUse    string
	refuse   error
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, path: filepath.Join(t.TempDir(), "set.yaml"), inUse: "one"}
	f.write(strings.ReplaceAll(anonymous, "NAME", "one"))
	set, report := config.Load(f.path)
	if err := report.Err(); err != nil {
		t.Fatal(err)
	}
	var err error
	f.tel, err = telemetry.Start(t.Context(), telemetry.Config{Service: "test", LogOutput: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	f.tel.Logger = slog.New(slog.NewTextHandler(&f.log, nil))
	f.follower, err = New(Config{Path: f.path, Digest: set.Digest(), Telemetry: f.tel, Apply: func(_ context.Context, set *config.Set) error {
		if f.refuse == nil {
			f.inUse = set.Deployment().Name
		}
		return f.refuse
	}})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) write(text string) {
	f.t.Helper()
	if err := os.WriteFile(f.path, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// expect looks twice, as time would.
func (f *fixture) expect(inUse, metric string, lines int) {
	f.t.Helper()
	f.follower.look(f.t.Context())
	f.follower.look(f.t.Context())
	if f.inUse != inUse || strings.Count(f.log.String(), "\n") != lines {
		f.t.Errorf("in use: %s, want %s; log, want %d lines:\n%s", f.inUse, inUse, lines, &f.log)
	}
	w := httptest.NewRecorder()
	f.tel.MetricsHandler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if !strings.Contains(w.Body.String(), "\nchatelaine_config_current "+metric+"\n") {
		f.t.Errorf("the metric is not %s", metric)
	}
}

func TestAnEditIsTakenAsAWholeOrNotAtAll(t *testing.T) {
	f := newFixture(t)
	f.expect("one", "1", 0)
	f.write("# a comment changes nothing\n" + strings.ReplaceAll(anonymous, "NAME", "one"))
	f.expect("one", "1", 0)

	f.write(strings.ReplaceAll(anonymous, "NAME", "two"))
	f.expect("two", "1", 1)

	f.write("kind: Nonsense")
	f.expect("two", "0", 4) // each of two problems, and what comes of them
	if strings.Count(f.log.String(), "a resource is not valid") != 2 || !strings.Contains(f.log.String(), "kind=Nonsense") {
		t.Errorf("the log does not say what is wrong: %s", &f.log)
	}
	f.write(strings.ReplaceAll(anonymous, "NAME", "two")) // taken back
	f.expect("two", "1", 5)

	f.refuse = errors.New("a secret is missing")
	f.write(strings.ReplaceAll(anonymous, "NAME", "three"))
	f.expect("two", "0", 6)
	f.refuse = nil // the secret came; nobody touched the file
	f.expect("three", "1", 7)
}

func TestWarningsOfASetThatIsTakenAreLoggedOnce(t *testing.T) {
	f := newFixture(t)
	f.write(strings.ReplaceAll(anonymous, "NAME", "two") + `---
apiVersion: chatelaine.dev/v1alpha1
kind: MCPExternalAuthConfig
metadata: {name: key}
spec: {type: headerInjection, headerInjection: {headerName: Authorization, valueSecretRef: {name: a, key: b}}}
`)
	f.expect("two", "1", 3) // two warnings, and the set is in use
	if !strings.Contains(f.log.String(), "level=WARN") || !strings.Contains(f.log.String(), "path=spec.headerInjection.headerName") {
		t.Errorf("the log does not say what may be wrong: %s", &f.log)
	}
}
