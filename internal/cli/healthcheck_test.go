package cli_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"chatelaine.dev/internal/telemetry"
)

// admin serves a real admin handler and returns its address.
func admin(t *testing.T, checks map[string]error) string {
	t.Helper()
	health := telemetry.NewHealth(nil)
	for name, err := range checks {
		health.Add(name, func(_ context.Context) error { return err })
	}
	server := httptest.NewServer(telemetry.Discard().AdminHandler(health))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func TestAContainerLearnsWhetherItsServiceIsReady(t *testing.T) {
	address := admin(t, map[string]error{"schema": nil})
	if o := run(t, "healthcheck", "--admin-address", address); o.status != 0 || o.stdout != "ready\n" || o.stderr != "" {
		t.Errorf("ready: %+v", o)
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("CHATELAINE_ADMIN_ADDRESS", ":"+port) // as the service has it
	if o := run(t, "healthcheck"); o.status != 0 {
		t.Errorf("from the environment: %+v", o)
	}
}

func TestAServiceThatIsNotReadySaysWhichCheckFails(t *testing.T) {
	address := admin(t, map[string]error{"schema": errors.New("secret cause"), "keys": nil})
	o := run(t, "healthcheck", "--admin-address", address)
	if o.status != 1 || !strings.Contains(o.stderr, "not ready: unavailable; schema: ") || strings.Contains(o.stderr, "keys") {
		t.Errorf("%+v", o)
	}
	if o := run(t, "healthcheck", "--live", "--admin-address", address); o.status != 0 || o.stdout != "alive\n" {
		t.Errorf("alive: %+v", o)
	}
}

func TestAHealthcheckFailsWhenNobodyOrAStrangerAnswers(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := ln.Addr().String()
	ln.Close()
	stranger := httptest.NewServer(http.NotFoundHandler())
	defer stranger.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	for name, address := range map[string]string{
		"nobody": nobody, "stranger": stranger.Listener.Addr().String(), "silent": silent.Addr().String(), "nonsense": "nonsense",
	} {
		o := run(t, "healthcheck", "--admin-address", address, "--timeout", "200ms")
		if o.status != 1 || strings.Count(o.stderr, "\n") != 1 || !strings.Contains(o.stderr, address) {
			t.Errorf("%s: %+v", name, o)
		}
	}
}
