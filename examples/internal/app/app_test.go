package app

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chatelaine.dev/internal/process"
)

// start runs a server on free ports and returns its addresses by listener.
func start(t *testing.T, name string, cmd command) (addresses map[string]string, stop func() error) {
	t.Helper()
	cmd.settings().FaultsAddr = "127.0.0.1:0"
	cmd.settings().LogFormat = "json"
	read, write := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		err := serve(ctx, name, "127.0.0.1:0", cmd, write)
		write.CloseWithError(io.EOF)
		ended <- err
	}()
	addresses = map[string]string{}
	lines := bufio.NewScanner(read)
	for len(addresses) < 2 && lines.Scan() {
		var line struct{ Msg, Server, Address string }
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatalf("%s: %v", lines.Text(), err)
		}
		if line.Msg == "listening" {
			addresses[line.Server] = line.Address
		}
	}
	go func() { // the rest of the log
		for lines.Scan() {
		}
	}()
	if len(addresses) < 2 {
		cancel()
		t.Fatalf("%s ended: %v", name, <-ended)
	}
	return addresses, func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(20 * time.Second):
			t.Fatal(name + " does not stop")
			return nil
		}
	}
}

func statusOf(t *testing.T, url string) int {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// Not parallel: serve sets the process's default logger.
func TestEveryServerStartsAnswersAndStops(t *testing.T) {
	logger := slog.Default()
	t.Cleanup(func() { slog.SetDefault(logger) })
	secrets := t.TempDir()
	for _, ref := range []string{"corp-idp", "corp-sts", "octohub"} {
		if err := os.MkdirAll(filepath.Join(secrets, ref), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(secrets, ref, "client-secret"), []byte("s"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	state := withState{SecretsDir: secrets, StateDir: t.TempDir()}
	hour := time.Hour
	for name, c := range map[string]struct {
		command command
		paths   map[string]int
	}{
		"corp": {
			&corpCmd{Issuer: "http://localhost:5556", withState: state, AccessTokenLifetime: hour, RefreshTokenLifetime: hour, ExchangedTokenLifetime: hour},
			map[string]int{"/.well-known/openid-configuration": 200, "/keys": 200, "/device_authorization": 404},
		},
		"octohub": {
			&octohubCmd{BaseURL: "http://localhost:5557", withState: state, AccessTokenLifetime: hour, RefreshTokenLifetime: hour},
			map[string]int{"/user": 401},
		},
		"repos":   {&reposCmd{OctohubURL: "http://localhost:5557"}, map[string]int{"/mcp": 401}},
		"payroll": {&payrollCmd{Issuer: "http://localhost:5556", PublicURL: "http://localhost:7002"}, map[string]int{"/mcp": 401, "/.well-known/oauth-protected-resource/mcp": 200}},
		"status":  {&statusCmd{}, map[string]int{"/mcp": 400}},
	} {
		addresses, stop := start(t, name, c.command)
		c.paths["/healthz"] = 200
		for path, want := range c.paths {
			if got := statusOf(t, "http://"+addresses[name]+path); got != want {
				t.Errorf("%s%s: %d, want %d", name, path, got, want)
			}
		}
		for _, path := range []string{"/faults", "/requests"} {
			if got := statusOf(t, "http://"+addresses["faults"]+path); got != http.StatusOK {
				t.Errorf("%s, switches %s: %d", name, path, got)
			}
			if got := statusOf(t, "http://"+addresses[name]+path); got != http.StatusNotFound {
				t.Errorf("%s shows its switches in public at %s: %d", name, path, got)
			}
		}
		if err := stop(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"corp.json", "octohub.json"} {
		if _, err := os.Stat(filepath.Join(state.StateDir, name)); err != nil {
			t.Errorf("the state was not kept: %v", err)
		}
	}
}

func TestWrongFlagsAreReportedBeforeAnythingStarts(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"no command":        {nil, "expected one of"},
		"unknown flag":      {[]string{"repos", "--nonsense"}, "--nonsense"},
		"public switches":   {[]string{"repos", "--faults-addr", "0.0.0.0:0"}, "loopback"},
		"missing secret":    {[]string{"octohub", "--addr", "127.0.0.1:0"}, "OCTOHUB_CLIENT_SECRET"},
		"issuer and a path": {[]string{"corp", "--addr", "127.0.0.1:0", "--issuer", "http://localhost/x"}, "issuer"},
		"front to nowhere":  {[]string{"front", "--addr", "127.0.0.1:0", "--to", "nowhere"}, "nowhere"},
		"bad probe":         {[]string{"status", "--addr", "127.0.0.1:0", "--probe", "x=ftp://x"}, "ftp://x"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "issuer and a path" {
				t.Setenv("CORP_IDP_CLIENT_SECRET", "s")
				t.Setenv("CORP_STS_CLIENT_SECRET", "s")
			}
			var out bytes.Buffer
			if got := Run(c.args, &out, &out); got != process.ExitUsage || !strings.Contains(out.String(), c.want) {
				t.Errorf("exit %d: %s", got, out.String())
			}
		})
	}
}

func TestFlagsHaveTwinsInTheEnvironment(t *testing.T) {
	t.Setenv("CHATELAINE_FAULTS_ADDR", "0.0.0.0:0")
	var out bytes.Buffer
	if got := Run([]string{"status"}, &out, &out); got != process.ExitUsage || !strings.Contains(out.String(), "loopback") {
		t.Errorf("exit %d: %s", got, out.String())
	}
}

func TestHealthCheckTellsUpFromDown(t *testing.T) {
	t.Parallel()
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" {
			http.NotFound(w, r)
		}
	}))
	defer up.Close()
	for url, want := range map[string]int{up.URL + "/healthz": process.ExitOK, up.URL + "/other": process.ExitFailure, "http://127.0.0.1:1/healthz": process.ExitFailure} {
		var out bytes.Buffer
		if got := Run([]string{"healthcheck", url}, &out, &out); got != want || (want != process.ExitOK && out.Len() == 0) {
			t.Errorf("%s: exit %d: %q", url, got, out.String())
		}
	}
}
