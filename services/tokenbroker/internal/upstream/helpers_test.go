package upstream_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"chatelaine.dev/internal/config"
	"chatelaine.dev/internal/fault"
	"chatelaine.dev/internal/secret"
	"chatelaine.dev/services/tokenbroker/internal/reason"
	"chatelaine.dev/services/tokenbroker/internal/upstream"
)

func deployment(p ...config.Provider) *config.Deployment {
	return &config.Deployment{Mode: config.ModeAuthServer, AuthServer: &config.AuthServer{Providers: p}}
}

func resolver(env map[string]string) *secret.Resolver {
	return &secret.Resolver{LookupEnv: func(name string) (string, bool) {
		v, ok := env[name]
		return v, ok
	}}
}

// build makes the one provider of a deployment.
func build(t testing.TB, p config.Provider, env map[string]string, logger ...*slog.Logger) *upstream.Provider {
	t.Helper()
	cfg := upstream.Config{Secrets: resolver(env)}
	if len(logger) > 0 {
		cfg.Logger = logger[0]
	}
	r, err := upstream.NewRegistry(deployment(p), cfg)
	if err != nil {
		t.Fatal(fault.Detail(err))
	}
	return r.Providers()[0]
}

// buildAt is build with a clock that the test moves.
func buildAt(t testing.TB, p config.Provider, clock *testClock) *upstream.Provider {
	t.Helper()
	r, err := upstream.NewRegistry(deployment(p), upstream.Config{Secrets: resolver(plantedEnv()), Now: clock.Now})
	if err != nil {
		t.Fatal(fault.Detail(err))
	}
	return r.Providers()[0]
}

// closedURL is where nobody listens.
func closedURL(t testing.TB) string {
	t.Helper()
	server := httptest.NewServer(http.NotFoundHandler())
	server.Close()
	return server.URL
}

func wantReason(t testing.TB, err error, want string) *fault.Error {
	t.Helper()
	f, ok := fault.As(err)
	if !ok || f.Reason != want {
		t.Fatalf("error %v (%s), want reason %s", err, fault.Detail(err), want)
	}
	if f.Metadata[reason.Provider] == "" {
		t.Errorf("the error does not name the provider: %v", f.Metadata)
	}
	return f
}

func wantRefused(t testing.TB, err error, code string) {
	t.Helper()
	f := wantReason(t, err, reason.UpstreamRefused)
	if got := f.Metadata[reason.OAuthError]; got != code {
		t.Errorf("oauth_error %q, want %q", got, code)
	}
}

func wantIdentityInvalid(t testing.TB, err error, check string) {
	t.Helper()
	f := wantReason(t, err, reason.IdentityInvalid)
	if got := f.Metadata[upstream.MetadataCheck]; got != check {
		t.Errorf("check %q (%v), want %q", got, err, check)
	}
}
