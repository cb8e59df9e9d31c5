package e2e

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
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
		if out, err := serve(t, service, all, "--log-format", "text"); err == nil || !strings.Contains(out, "error[V-01]") {
			t.Errorf("%s serves resources that break every rule, or does not say which: %v\n%s", service, err, out)
		}
	}
}

func TestAStartThatFailsIsToldInTheLogsFormat(t *testing.T) {
	needProcesses(t)
	t.Parallel()
	all := filepath.Join("..", "internal", "config", "testdata", "rules", "all.yaml")
	good := shared.stack.ResourcesFile()
	for _, service := range []string{"authserver", "tokenbroker", "gateway"} {
		for name, args := range map[string][]string{
			"resources":  {all},
			"a flag":     {good, "--nope"},
			"a file":     {good, "--tls-cert", "/nowhere"},
			"an address": {good, "--admin-address", "nonsense"},
		} {
			out, err := serve(t, service, args[0], args[1:]...)
			if err == nil {
				t.Errorf("%s starts in spite of %s", service, name)
			}
			seen := map[string]bool{}
			for line := range strings.Lines(out) {
				var l struct {
					Time, Level, Msg, Service, Rule, Path string
					Error                                 struct{ Message string }
				}
				if err := json.Unmarshal([]byte(line), &l); err != nil || l.Time == "" || l.Msg == "" || l.Service != service {
					t.Errorf("%s, %s: not a line of a log: %s", service, name, line)
				}
				if l.Level == "ERROR" && l.Error.Message != "" {
					seen[l.Rule+l.Msg] = true
				}
			}
			if !seen["ended with an error"] || name == "resources" && !(seen["V-01a resource is not valid"] && seen["V-12a resource is not valid"]) {
				t.Errorf("%s, %s: the log does not say why it ended:\n%s", service, name, out)
			}
			if out, _ := serve(t, service, args[0], append(args[1:], "--log-format=text")...); !strings.Contains("\n"+out, "\n"+service+": ") {
				t.Errorf("%s, %s: no readable line:\n%s", service, name, out)
			}
		}
	}
}

// serve runs a service of its own, with all that it needs but good resources, and
// returns what it prints.
func serve(t *testing.T, service, config string, more ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	material := func(file string) string { return filepath.Join(shared.stack.TLSDir(), file) }
	args := []string{
		"serve", "--config", config, "--admin-address", "127.0.0.1:0",
		"--tls-cert", material(service + ".crt"), "--tls-key", material(service + ".key"), "--tls-ca", material("ca.crt"),
	}
	args = append(args, map[string][]string{
		"authserver":  {"--public-address", "127.0.0.1:0", "--grpc-address", "127.0.0.1:0", "--broker-address", shared.stack.BrokerAddress()},
		"tokenbroker": {"--grpc-address", "127.0.0.1:0", "--rest-address", "127.0.0.1:0", "--key-encryption-key", "tokenbroker-kek/key"},
		"gateway":     {"--public-address", "127.0.0.1:0", "--broker-address", shared.stack.BrokerAddress(), "--session-key", "gateway-session/key"},
	}[service]...)
	args = append(args, more...)
	cmd := exec.CommandContext(ctx, filepath.Join(shared.binDir, service), args...)
	cmd.Env = append(os.Environ(), "CHATELAINE_SECRETS_DIR="+shared.stack.SecretsDir(service), "CHATELAINE_DATABASE_URL="+shared.stack.DatabaseURL())
	out, err := cmd.CombinedOutput()
	return string(out), err
}
