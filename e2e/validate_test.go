package e2e

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestEveryServiceValidatesResourcesAndSaysItsVersion(t *testing.T) {
	needProcesses(t)
	t.Parallel()
	for _, service := range []string{"authserver", "tokenbroker", "gateway"} {
		program := filepath.Join(shared.binDir, service)
		if out, err := exec.CommandContext(t.Context(), program, "version").CombinedOutput(); err != nil || !strings.HasPrefix(string(out), service+" ") {
			t.Errorf("%s version: %v, %s", service, err, out)
		}
		if out, err := exec.CommandContext(t.Context(), program, "validate", "--config", shared.stack.ResourcesFile()).CombinedOutput(); err != nil {
			t.Errorf("%s refuses the demo's resources: %v\n%s", service, err, out)
		}
		github := filepath.Join("..", "internal", "config", "testdata", "github-google.yaml")
		if out, err := exec.CommandContext(t.Context(), program, "validate", "--config", github).CombinedOutput(); err != nil {
			t.Errorf("%s refuses ToolHive's resources: %v\n%s", service, err, out)
		}
		all := filepath.Join("..", "internal", "config", "testdata", "rules", "all.yaml")
		out, err := exec.CommandContext(t.Context(), program, "validate", "--config", all).CombinedOutput()
		if err == nil {
			t.Errorf("%s accepts resources that break every rule", service)
		}
		for _, code := range []string{"V-01", "V-02", "V-03", "V-04", "V-05", "V-06", "V-07", "V-08", "V-09", "V-10", "V-11", "V-12"} {
			if !strings.Contains(string(out), code) {
				t.Errorf("%s does not report %s:\n%s", service, code, out)
			}
		}
		if out, err := exec.CommandContext(t.Context(), program, "serve", "--config", all).CombinedOutput(); err == nil {
			t.Errorf("%s serves without its flags: %s", service, out)
		}
	}
}
