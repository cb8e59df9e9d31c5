package app_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"

	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/pgtest"
	"chatelaine.dev/internal/postgres"
	"chatelaine.dev/internal/rpc/rpctest"
	"chatelaine.dev/internal/secret"
	brokerv1 "chatelaine.dev/proto/broker/v1"
	"chatelaine.dev/services/tokenbroker/internal/app"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/schema"
)

// readiness returns what /readyz says.
func readiness(t *testing.T, address string) string {
	resp, err := http.Get("http://" + address + "/readyz")
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	return fmt.Sprint(resp.StatusCode, " ", string(body))
}

// A broker that is started before its database must neither end nor be ready, and
// must find its way when the schema arrives.
func TestItStartsBeforeItsDatabaseIsReady(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	must(t, b.stop())
	b.url = pgtest.URL(t) // nothing in it
	var err error
	b.pool, err = postgres.Open(context.Background(), postgres.Config{URL: b.url})
	must(t, err)
	t.Cleanup(b.pool.Close)
	server, flags := b.make(b.key)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	b.eventually("a word on the schema", func() bool {
		return strings.Contains(readiness(t, flags.AdminAddress), "tokenbroker migrate")
	})
	if got := readiness(t, flags.AdminAddress); !strings.HasPrefix(got, "503") {
		t.Errorf("without a schema it is ready: %s", got)
	}
	b.grpc = flags.GRPCAddress
	health := healthgrpc.NewHealthClient(b.dial("gateway"))
	serving := func() healthgrpc.HealthCheckResponse_ServingStatus {
		answer, err := health.Check(t.Context(), &healthgrpc.HealthCheckRequest{Service: "broker.v1.CredentialService"})
		must(t, err)
		return answer.GetStatus()
	}
	if got := serving(); got != healthgrpc.HealthCheckResponse_NOT_SERVING {
		t.Errorf("gRPC health without a schema: %s", got)
	}
	_, err = schema.Migrations().Up(t.Context(), b.url, nil)
	must(t, err)
	b.eventually("readiness", func() bool { return strings.HasPrefix(readiness(t, flags.AdminAddress), "200") })
	if got := serving(); got != healthgrpc.HealthCheckResponse_SERVING {
		t.Errorf("gRPC health when ready: %s", got)
	}
	cancel()
	must(t, <-done)
}

// A role that the database refuses is a mistake of the operator's: he must read what
// to do, callers when to come back, and neither the role's name.
func TestABrokerThatItsDatabaseRefusesSaysSo(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	must(t, b.stop())
	u, err := url.Parse(b.url.Reveal())
	must(t, err)
	u.User = url.User("misspelt")
	b.url = secret.New(u.String())
	b.pool, err = postgres.Open(context.Background(), postgres.Config{URL: b.url})
	must(t, err)
	t.Cleanup(b.pool.Close)
	server, flags := b.make(b.key)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	b.eventually("a word on the role", func() bool {
		return strings.Contains(readiness(t, flags.AdminAddress), "check the database URL")
	})
	if got := readiness(t, flags.AdminAddress); !strings.HasPrefix(got, "503") || strings.Contains(got, "misspelt") {
		t.Errorf("readiness: %s", got)
	}
	if log := b.logs.String(); !strings.Contains(log, "misspelt") || !strings.Contains(log, "28000") {
		t.Errorf("the log does not say why:\n%s", log)
	}
	b.rest = flags.RESTAddress
	resp, err := b.request(http.MethodGet, "/v1/users", "", "operator")
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") != "2" ||
		!strings.Contains(string(body), "database_unavailable") || strings.Contains(string(body), "misspelt") {
		t.Errorf("REST: %d, Retry-After %q, %s, %v", resp.StatusCode, resp.Header.Get("Retry-After"), body, err)
	}
	cancel()
	must(t, <-done)
}

func TestGatewaysKeepBlobs(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	blobs := brokerv1.NewMcpSessionServiceClient(b.dial("gateway"))
	const key = "0123456789abcdef"
	_, err := blobs.GetBlob(t.Context(), &brokerv1.GetBlobRequest{Key: key})
	if fault.KindOf(err) != fault.NotFound {
		t.Errorf("a missing blob: %v", err)
	}
	put, err := blobs.PutBlob(t.Context(), &brokerv1.PutBlobRequest{Key: key, Sealed: []byte("x"), TimeToLive: hour()})
	must(t, err)
	_, err = blobs.PutBlob(t.Context(), &brokerv1.PutBlobRequest{Key: key, Sealed: []byte("y"), TimeToLive: hour()})
	wantReason(t, err, reason.VersionMismatch)
	got, err := blobs.GetBlob(t.Context(), &brokerv1.GetBlobRequest{Key: key})
	must(t, err)
	if !bytes.Equal(got.GetSealed(), []byte("x")) || got.GetVersion() != put.GetVersion() {
		t.Errorf("blob = %v", got)
	}
	_, err = blobs.PutBlob(t.Context(), &brokerv1.PutBlobRequest{Key: "short", Sealed: []byte("x"), TimeToLive: hour()})
	if fault.KindOf(err) != fault.Invalid {
		t.Errorf("a short key: %v", err)
	}
}

// The command line must say what is wrong with it, and must not take a password.
func TestTheCommandLineSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	serve := []string{
		"serve", "--config=x", "--tls-cert=x", "--tls-key=x", "--tls-ca=x", "--key-encryption-key=broker/kek",
	}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"a short retention":        {append(serve, "--audit-retention=1h"), "--audit-retention"},
		"a password in a flag":     {append(serve, "--database-listen-url=postgres://u:pw@h/d"), "--database-listen-url has a password"},
		"no key":                   {serve[:5], "--key-encryption-key"},
		"a secret for a reference": {append(serve[:5:5], "--key-encryption-key=c2VjcmV0"), "NAME/KEY"},
		"resources that are not":   {[]string{"validate", "--config=/does/not/exist"}, "not valid"},
	} {
		var stdout, stderr bytes.Buffer
		if code := app.Program().Run(c.args, &stdout, &stderr); code != 2 || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("%s: status %d, %q", name, code, stderr.String())
		}
		if strings.Contains(stderr.String(), "c2VjcmV0") || strings.Contains(stderr.String(), "pw") && name == "a password in a flag" && strings.Contains(stderr.String(), ":pw@") {
			t.Errorf("%s: the message repeats a secret: %q", name, stderr.String())
		}
	}
}

// What keeps a start from working is one line on the terminal, with the flag or the
// secret to correct.
func TestAStartThatCannotWorkSaysWhyOnOneLine(t *testing.T) {
	ca := rpctest.NewCA(t)
	files := ca.Files("tokenbroker")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	config := filepath.Join(t.TempDir(), "demo.yaml")
	text := strings.NewReplacer("CORP", "http://localhost:5556", "HUB", "http://localhost:5557").Replace(resources)
	must(t, os.WriteFile(config, []byte(text), 0o600))
	for name, value := range map[string]string{
		"CORP_IDP_CLIENT_SECRET": "x", "OCTOHUB_CLIENT_SECRET": "x", "BROKER_KEK": randomKey(), "BROKER_SHORT": "c2hvcnQ=",
		"CHATELAINE_DATABASE_URL": "postgres://u:hunter2@127.0.0.1:1/x", secret.DirEnv: "",
	} {
		t.Setenv(name, value)
	}
	for name, c := range map[string]struct {
		args   []string
		status int
		want   string
	}{
		"an unreadable key":        {[]string{"--tls-key", t.TempDir()}, 2, "--tls-key"},
		"a certificate not there":  {[]string{"--tls-cert", "/nowhere"}, 2, "--tls-cert"},
		"a key-encryption key off": {[]string{"--key-encryption-key", "broker/short"}, 2, "--key-encryption-key: "},
		"a secret not there":       {[]string{"--key-encryption-key", "broker/none"}, 1, "--key-encryption-key: secret broker/none"},
		"a taken gRPC address":     {[]string{"--grpc-address", taken.Addr().String()}, 1, "--grpc-address"},
		"a taken REST address":     {[]string{"--rest-address", taken.Addr().String()}, 1, "--rest-address"},
		"a taken admin address":    {[]string{"--admin-address", taken.Addr().String()}, 1, "--admin-address"},
		"no patience":              {[]string{"--database-connect-timeout", "0s"}, 2, "--database-connect-timeout"},
	} {
		flags := map[string]string{
			"--config": config, "--tls-cert": files.Cert, "--tls-key": files.Key, "--tls-ca": files.CA, "--key-encryption-key": "broker/kek",
			"--grpc-address": "127.0.0.1:0", "--rest-address": "127.0.0.1:0", "--admin-address": "127.0.0.1:0", "--log-level": "error",
		}
		flags[c.args[0]] = c.args[1]
		args := []string{"serve"}
		for flag, value := range flags {
			args = append(args, flag+"="+value)
		}
		var stdout, stderr bytes.Buffer
		status := app.Program().Run(args, &stdout, &stderr)
		if line := stderr.String(); status != c.status || !strings.Contains(line, c.want) || strings.Count(line, "\n") != 1 ||
			strings.Contains(line, "hunter2") || strings.Contains(line, "c2hvcnQ=") {
			t.Errorf("%s: status %d, %q", name, status, line)
		}
	}
}

func TestAWrongKeyIsRefusedBeforeAnythingStarts(t *testing.T) {
	t.Parallel()
	flags := new(app.Flags)
	flags.KeyEncryptionKey = []secret.Ref{{Name: "broker", Key: "kek"}}
	for name, value := range map[string]string{"too short": "c2hvcnQ=", "no base64": "!!!"} {
		_, err := app.New(app.Config{Flags: flags, Secrets: &secret.Resolver{
			LookupEnv: func(string) (string, bool) { return value, true },
		}})
		if fault.KindOf(err) != fault.Invalid || !strings.Contains(fault.Detail(err), "broker/kek") || strings.Contains(fault.Detail(err), value) {
			t.Errorf("%s: %s", name, fault.Detail(err))
		}
	}
}
