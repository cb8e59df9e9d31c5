package app_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"chatelaine.dev/internal/cli"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/pgtest"
	"chatelaine.dev/internal/rpc/rpctest"
	"chatelaine.dev/internal/secret"
	authserverv1 "chatelaine.dev/proto/authserver/v1"
	"chatelaine.dev/services/authserver/internal/app"
	"chatelaine.dev/services/authserver/internal/store"
)

// freeAddress was free a moment ago.
func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func writeResources(t *testing.T, edit func(string) string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "chatelaine.yaml")
	if err := os.WriteFile(path, []byte(edit(strings.ReplaceAll(resources, "ISSUER", issuer))), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTheProcessStartsWithoutTheBrokerAndSaysWhatItWaitsFor(t *testing.T) {
	ca := rpctest.NewCA(t)
	files := ca.Files("authserver")
	t.Setenv("AUTHSERVER_SIGNING", signingKeyPEM(t))
	t.Setenv("AUTHSERVER_HMAC", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")
	flags := &app.Flags{
		PublicAddress: freeAddress(t), GRPCAddress: freeAddress(t), BrokerAddress: freeAddress(t),
		RegistrationsPerMinute: 1, RegistrationBurst: 1, LoginsPerMinute: 1, LoginBurst: 1, RefreshGrace: time.Minute, UnusedClients: time.Hour, IdleClients: time.Hour, Drain: cli.Drain{DrainTimeout: time.Second},
	}
	flags.Path = writeResources(t, func(s string) string { return s })
	flags.AdminAddress = freeAddress(t)
	flags.LogLevel = 12
	flags.TLSCert, flags.TLSKey, flags.TLSCA = files.Cert, files.Key, files.CA
	url := pgtest.URL(t) // an empty database: nobody has migrated
	flags.Database, flags.DatabaseURL = databaseFlags(), url

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- app.Serve(ctx, flags) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(fault.Detail(err))
		}
	}()
	waitFor(t, "http://"+flags.AdminAddress+"/readyz", http.StatusServiceUnavailable, "run `authserver migrate`")
	if _, err := store.Migrations().Up(t.Context(), url, nil); err != nil {
		t.Fatal(fault.Detail(err))
	}
	waitFor(t, "http://"+flags.AdminAddress+"/readyz", http.StatusOK, `"status":"ready"`)
	waitFor(t, "http://"+flags.PublicAddress+"/oauth/jwks", http.StatusOK, `"kty":"EC"`)
	waitFor(t, "http://"+flags.AdminAddress+"/metrics", http.StatusOK, `http_route="/oauth/jwks"`)
	edited, err := os.ReadFile(flags.Path)
	if err != nil || os.WriteFile(flags.Path, bytes.Replace(edited, []byte("[tools, admin]"), []byte("[tools]"), 1), 0o600) != nil {
		t.Fatal("cannot edit the resources")
	}
	waitFor(t, "http://"+flags.AdminAddress+"/metrics", http.StatusOK, "chatelaine_config_current 0")
	waitFor(t, "http://"+flags.AdminAddress+"/readyz", http.StatusOK, `"status":"ready"`)
	shown := func() string {
		conn, err := ca.TLS("tokenbroker").DialTLSContext("authserver")(t.Context(), "tcp", flags.GRPCAddress)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return string(conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Raw)
	}
	old := shown()
	ca.Files("authserver") // renewed, in the same files
	for deadline := time.Now().Add(20 * time.Second); shown() == old; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the renewed certificate is not shown")
		}
	}
	for name, want := range map[string]fault.Kind{ // the person of nobody's session, to the one who may ask
		"tokenbroker": fault.Precondition, "gateway": fault.Denied, "authserver": fault.Denied, "operator": fault.Denied,
	} {
		subjects := authserverv1.NewSubjectTokenServiceClient(ca.Dial(flags.GRPCAddress, "authserver", nil, name))
		_, err := subjects.MintSubjectToken(t.Context(), &authserverv1.MintSubjectTokenRequest{SessionId: "s", UserId: "u", Audience: "https://sts.example/token"})
		if fault.KindOf(err) != want {
			t.Errorf("%s asks for a subject token: %v", name, err)
		}
	}
}

// waitFor asks until the answer is the one that is wanted.
func waitFor(t *testing.T, url string, status int, text string) {
	t.Helper()
	var last string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		response, err := http.Get(url)
		if err != nil {
			last = err.Error()
			continue
		}
		body, _ := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if last = string(body); response.StatusCode == status && strings.Contains(last, text) {
			return
		}
	}
	t.Fatalf("%s: want %d with %q, last %s", url, status, text, last)
}

// databaseFlags are those that have defaults.
func databaseFlags() cli.Database {
	return cli.Database{
		DatabaseServer:   cli.DatabaseServer{DatabaseConnectTimeout: 5 * time.Second},
		DatabaseMaxConns: 8, DatabaseStatementTimeout: 10 * time.Second,
	}
}

func TestAStartThatCannotWorkSaysWhy(t *testing.T) {
	t.Parallel()
	ca := rpctest.NewCA(t)
	files := ca.Files("authserver")
	same := func(s string) string { return s }
	for name, tt := range map[string]struct {
		resources func(string) string
		flags     func(*app.Flags)
		want      string
	}{
		"no signing key": {func(s string) string {
			return strings.Replace(s, "signingKeySecretRefs: [{name: authserver, key: signing}]", "", 1)
		}, nil, "signingKeySecretRefs names no key"},
		"a secret that is not there": {same, nil, "AUTHSERVER_SIGNING"},
		"invalid resources":          {func(s string) string { return strings.Replace(s, "type: oidc", "type: oidk", 1) }, nil, "resources are not valid"},
		"a key that cannot be read":  {same, func(f *app.Flags) { f.TLSKey = t.TempDir() }, "--tls-key"},
		"a key that is not there":    {same, func(f *app.Flags) { f.TLSKey = "/nowhere" }, "--tls-key"},
		"no database":                {same, func(f *app.Flags) { f.DatabaseURLFile = "/nowhere" }, "/nowhere"},
		"a wrong broker address":     {same, func(f *app.Flags) { f.BrokerAddress = "broker" }, "HOST:PORT"},
	} {
		flags := &app.Flags{PublicAddress: "127.0.0.1:0", GRPCAddress: "127.0.0.1:0", BrokerAddress: "127.0.0.1:1", RegistrationsPerMinute: 1, RegistrationBurst: 1, LoginsPerMinute: 1, LoginBurst: 1, UnusedClients: 1, IdleClients: 1, Drain: cli.Drain{DrainTimeout: 1}}
		flags.Path = writeResources(t, tt.resources)
		flags.LogLevel = 12
		flags.TLSCert, flags.TLSKey, flags.TLSCA = files.Cert, files.Key, files.CA
		flags.Database = databaseFlags()
		if flags.DatabaseURLFile = filepath.Join(t.TempDir(), "url"); os.WriteFile(flags.DatabaseURLFile, []byte("postgres://u@127.0.0.1:1/x"), 0o600) != nil {
			t.Fatal("cannot write")
		}
		if tt.flags != nil {
			tt.flags(flags)
		}
		if err := app.Serve(t.Context(), flags); err == nil || !strings.Contains(fault.Detail(err), tt.want) || strings.Contains(fault.Terminal(err), "\n") {
			t.Errorf("%s: %s", name, fault.Terminal(err))
		}
	}
}

// What keeps a start from working after the files were read: one line, with the flag
// or the secret to correct.
func TestATakenAddressAndAWrongSecretAreNamed(t *testing.T) {
	files := rpctest.NewCA(t).Files("authserver")
	for name, tt := range map[string]struct {
		flags func(*app.Flags)
		hmac  string
		want  string
	}{
		"public address": {func(f *app.Flags) { f.PublicAddress = takenAddress(t) }, "", "--public-address"},
		"gRPC address":   {func(f *app.Flags) { f.GRPCAddress = takenAddress(t) }, "", "--grpc-address"},
		"admin address":  {func(f *app.Flags) { f.AdminAddress = takenAddress(t) }, "", "--admin-address"},
		"short secret":   {func(*app.Flags) {}, "c2hvcnQ=", "authserver/hmac"},
		"no base64":      {func(*app.Flags) {}, "!!!", "authserver/hmac"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("AUTHSERVER_SIGNING", signingKeyPEM(t))
			t.Setenv("AUTHSERVER_HMAC", cmp.Or(tt.hmac, "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="))
			flags := &app.Flags{
				PublicAddress: "127.0.0.1:0", GRPCAddress: "127.0.0.1:0", BrokerAddress: "127.0.0.1:1", Database: databaseFlags(),
				RegistrationsPerMinute: 1, RegistrationBurst: 1, LoginsPerMinute: 1, LoginBurst: 1, UnusedClients: 1, IdleClients: 1, Drain: cli.Drain{DrainTimeout: 1},
			}
			flags.Path = writeResources(t, func(s string) string { return s })
			flags.AdminAddress, flags.LogLevel = "127.0.0.1:0", 12
			flags.TLSCert, flags.TLSKey, flags.TLSCA = files.Cert, files.Key, files.CA
			flags.DatabaseURL = secret.New("postgres://u@127.0.0.1:1/x")
			tt.flags(flags)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			line := fault.Terminal(app.Serve(ctx, flags))
			if !strings.Contains(line, tt.want) || strings.Contains(line, "\n") || tt.hmac != "" && strings.Contains(line, tt.hmac) {
				t.Errorf("%q", line)
			}
		})
	}
}

// takenAddress returns one on which somebody listens.
func takenAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	return ln.Addr().String()
}

func TestFlagsThatMakeNoSenseAreRefused(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		edit func(*app.Flags)
		want string
	}{
		"a grace of an hour":  {func(f *app.Flags) { f.RefreshGrace = time.Hour }, "--refresh-grace"},
		"a negative delay":    {func(f *app.Flags) { f.KeyPublishDelay = -1 }, "--key-publish-delay"},
		"no registrations":    {func(f *app.Flags) { f.RegistrationBurst = 0 }, "--registration-burst"},
		"a proxy, no network": {func(f *app.Flags) { f.TrustedProxy = []string{"10.0.0.1"} }, "--trusted-proxy"},
	} {
		flags := &app.Flags{RegistrationsPerMinute: 1, RegistrationBurst: 1, LoginsPerMinute: 1, LoginBurst: 1, UnusedClients: 1, IdleClients: 1, Drain: cli.Drain{DrainTimeout: 1}}
		tt.edit(flags)
		if err := flags.Check(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheCommandChecksResourcesAndPrintsItsVersion(t *testing.T) {
	t.Parallel()
	good := writeResources(t, func(s string) string { return s })
	bad := writeResources(t, func(s string) string { return strings.Replace(s, "type: oidc", "type: oidk", 1) })
	for _, tt := range []struct {
		args   []string
		status int
		out    string
	}{
		{[]string{"version"}, 0, "authserver "},
		{[]string{"validate", "--config", good}, 0, ""},
		{[]string{"validate", "--config", bad}, 2, "oidk"},
		{[]string{"serve"}, 2, "--config"},
		{[]string{"migrate"}, 2, "--database-url"},
	} {
		var out bytes.Buffer
		if got := app.Program().Run(tt.args, &out, &out); got != tt.status || !strings.Contains(out.String(), tt.out) {
			t.Errorf("%v: status %d, %s", tt.args, got, out.String())
		}
	}
}
